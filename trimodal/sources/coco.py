"""COCO 2017 captions: ``annotations/captions_{train,val}2017.json`` beside ``{train,val}2017/``."""

import json
from pathlib import Path
from typing import Any, Literal

from trimodal.records import CaptionedImage, DataError, check_file_name


def read_coco(folder: Path, split: Literal["train", "val"]) -> list[CaptionedImage]:
    """The captioned images of a split, by image id; captions in annotation order.

    Raises DataError, naming file and key, for JSON of another form, an annotation of an unknown
    image and an empty caption.
    """
    path = folder / "annotations" / f"captions_{split}2017.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    files = {
        _field(path, "images", row, "id", int): check_file_name(
            _field(path, "images", row, "file_name", str), f"{path}: images"
        )
        for row in _rows(path, content, "images")
    }
    captions: dict[int, list[str]] = {}
    for row in _rows(path, content, "annotations"):
        image_id = _field(path, "annotations", row, "image_id", int)
        caption = _field(path, "annotations", row, "caption", str).strip()
        if image_id not in files:
            raise DataError(f"{path}: annotations: image_id {image_id} is not among the images")
        if not caption:
            raise DataError(f"{path}: annotations: image {image_id} has an empty caption")
        captions.setdefault(image_id, []).append(caption)
    return [
        CaptionedImage(
            image_id=f"coco_{image_id:012d}",
            split=split,
            source="coco",
            file_name=files[image_id],
            captions=tuple(captions[image_id]),
        )
        for image_id in sorted(captions)
    ]


def _rows(path: Path, content: Any, key: str) -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise DataError(f"{path}: has no list '{key}'")
    return list(content[key])


def _field(path: Path, table: str, row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind) or (isinstance(value, str) and not _encodable(value)):
        raise DataError(f"{path}: {table}: {row!r:.80} has no {kind.__name__} '{key}'")
    return value


def _encodable(text: str) -> bool:
    # JSON can spell half of a surrogate pair, which no file can hold.
    return not any("\ud800" <= character <= "\udfff" for character in text)
