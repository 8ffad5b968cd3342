"""Karpathy's splits of COCO and Flickr30k: ``dataset_coco.json``, ``dataset_flickr30k.json``."""

from collections import Counter
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

_SPLITS: dict[str, Split] = {"train": "train", "restval": "train", "val": "val"}


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
    path = folder / f"dataset_{source}.json"
    tally = RowTally(path, source)
    rows: dict[str, tuple[str, str, list[Any]]] = {}
    for position, row in enumerate(list_in(path, read_json(path), "images")):
        with tally.row(f"images: entry {position}"):
            image_id, file_name = _names(row, source)
            if image_id in rows:
                raise BadRowError("an image occurs twice")
            split = value_of(row, "split", str)
            if split not in (*_SPLITS, "test"):
                raise BadRowError("unknown split")
            rows[image_id] = file_name, split, value_of(row, "sentences", list)
    images: list[CaptionedImage] = []
    not_used: Counter[str] = Counter()
    for image_id, (file_name, split, sentences) in sorted(rows.items()):
        if split == "test":
            not_used[f"{source}: image of the test split"] += 1
            continue
        captions = _captions(image_id, sentences, tally)
        if not captions:
            not_used[f"{source}: image without a caption"] += 1
            continue
        images.append(
            CaptionedImage(
                image_id=image_id,
                split=_SPLITS[split],
                source=source,
                file_name=file_name,
                captions=captions,
            )
        )
    return images, tally.checked(images) + not_used


def _captions(image_id: str, sentences: list[Any], tally: RowTally) -> tuple[str, ...]:
    captions = []
    for position, sentence in enumerate(sentences):
        with tally.row(f"{image_id}: sentence {position}"):
            captions.append(caption_in(sentence, "raw"))
    return tuple(captions)


def _names(row: Any, source: Literal["coco", "flickr30k"]) -> tuple[str, str]:
    """Image id and file name."""
    if source == "coco":
        number = coco_number(row, "cocoid")
        return f"coco_{number:012d}", f"{number:012d}.jpg"
    file_name = plain_file_name(value_of(row, "filename", str))
    return flickr_image_id(file_name), file_name
