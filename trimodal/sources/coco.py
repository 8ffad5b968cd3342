"""COCO 2017 captions: ``annotations/captions_{train,val}2017.json``."""

from collections import Counter
from pathlib import Path
from typing import Literal

from trimodal.core.files import read_json
from trimodal.core.records import CaptionedImage
from trimodal.sources.rows import (
    BadRowError,
    RowTally,
    caption_in,
    coco_number,
    list_in,
    plain_file_name,
    value_of,
)


def read_coco(
    folder: Path, split: Literal["train", "val"]
) -> tuple[list[CaptionedImage], Counter[str]]:
    """The captioned images of a split, sorted by image id, captions in annotation order; and counts
    of what is left out, by reason: bad rows and images without a caption.

    Raises DataError, naming the file, for JSON with another structure, for more than 1 % bad rows
    and if no image has a caption.
    """
    path = folder / "annotations" / f"captions_{split}2017.json"
    content = read_json(path)
    tally = RowTally(path, "coco")
    file_names: dict[int, str] = {}
    for position, row in enumerate(list_in(path, content, "images")):
        with tally.row(f"images: entry {position}"):
            number = coco_number(row, "id")
            if number in file_names:
                raise BadRowError("an image occurs twice")
            file_names[number] = plain_file_name(value_of(row, "file_name", str))
    captions: dict[int, list[str]] = {}
    for position, row in enumerate(list_in(path, content, "annotations")):
        with tally.row(f"annotations: entry {position}"):
            number = coco_number(row, "image_id")
            if number not in file_names:
                raise BadRowError("caption of an unknown image")
            caption = caption_in(row, "caption")
            captions.setdefault(number, []).append(caption)
    left_out = tally.checked(captions)
    if uncaptioned := len(file_names) - len(captions):
        left_out["coco: image without a caption"] += uncaptioned
    images = [
        CaptionedImage(
            image_id=f"coco_{number:012d}",
            split=split,
            source="coco",
            file_name=file_names[number],
            captions=tuple(captions[number]),
        )
        for number in sorted(captions)
    ]
    return images, left_out
