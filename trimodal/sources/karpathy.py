"""Karpathy's splits: ``dataset_{coco,flickr30k,flickr8k}.json``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trimodal.core.files import read_json
from trimodal.core.records import CaptionedImage, Split
from trimodal.sources.rows import (
    BadRowError,
    RowTally,
    caption_in,
    coco_number,
    flickr_image_id,
    list_in,
    plain_file_name,
    value_of,
)

Source = Literal["coco", "flickr30k", "flickr8k"]
_SPLITS: dict[str, Split] = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An image of the file."""

    image_id: str
    file_name: str
    split: str
    sentences: list[Any]


def read_karpathy(
    folder: Path, source: Literal["coco", "flickr30k"]
) -> tuple[list[CaptionedImage], Counter[str]]:
    """The captioned images of ``dataset_<source>.json``, sorted by image id, captions in file
    order; and counts of what is left out, by reason: bad rows (of images and of sentences) and the
    test split.

    'train' and 'restval' are for training, 'val' for validation. COCO's images
    (COCO_val2014_000000000042.jpg) are named as in COCO 2017 (000000000042.jpg), which has the same
    images in other splits. Raises DataError, naming the file, for JSON with another structure, for
    more than 1 % bad rows and if there is no training or validation image.
    """
    tally = RowTally(_path(folder, source), source)
    rows = sorted(_rows(folder, source, tally), key=lambda row: row.image_id)
    used = [row for row in rows if row.split != "test"]
    images, uncaptioned = _captioned(used, source, tally)
    not_used = Counter({f"{source}: image of the test split": len(rows) - len(used)})
    return images, tally.checked(images) + uncaptioned + not_used


def read_karpathy_split(
    folder: Path, source: Source, split: str
) -> tuple[list[CaptionedImage], Counter[str]]:
    """As :func:`read_karpathy`, but the images of one split, in file order, which is that of the
    folds of 1,000 in the literature; images of other splits are not counted.
    """
    tally = RowTally(_path(folder, source), source)
    used = [row for row in _rows(folder, source, tally) if row.split == split]
    images, uncaptioned = _captioned(used, source, tally)
    return images, tally.checked(images) + uncaptioned


def _path(folder: Path, source: Source) -> Path:
    return folder / f"dataset_{source}.json"


def _rows(folder: Path, source: Source, tally: RowTally) -> list[_Row]:
    path = _path(folder, source)
    rows: dict[str, _Row] = {}
    for position, row in enumerate(list_in(path, read_json(path), "images")):
        with tally.row(f"images: entry {position}"):
            image_id, file_name = _names(row, source)
            if image_id in rows:
                raise BadRowError("an image occurs twice")
            split = value_of(row, "split", str)
            if split not in _SPLITS:
                raise BadRowError("unknown split")
            rows[image_id] = _Row(
                image_id=image_id,
                file_name=file_name,
                split=split,
                sentences=value_of(row, "sentences", list),
            )
    return list(rows.values())


def _captioned(
    rows: list[_Row], source: Source, tally: RowTally
) -> tuple[list[CaptionedImage], Counter[str]]:
    images: list[CaptionedImage] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        captions = _captions(row.image_id, row.sentences, tally)
        if not captions:
            left_out[f"{source}: image without a caption"] += 1
            continue
        images.append(
            CaptionedImage(
                image_id=row.image_id,
                split=_SPLITS[row.split],
                source=source,
                file_name=row.file_name,
                captions=captions,
            )
        )
    return images, left_out


def _captions(image_id: str, sentences: list[Any], tally: RowTally) -> tuple[str, ...]:
    captions = []
    for position, sentence in enumerate(sentences):
        with tally.row(f"{image_id}: sentence {position}"):
            captions.append(caption_in(sentence, "raw"))
    return tuple(captions)


def _names(row: Any, source: Source) -> tuple[str, str]:
    """Image id and file name."""
    if source == "coco":
        number = coco_number(row, "cocoid")
        return f"coco_{number:012d}", f"{number:012d}.jpg"
    file_name = plain_file_name(value_of(row, "filename", str))
    return flickr_image_id(file_name), file_name
