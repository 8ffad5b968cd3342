"""Flickr30k's ``results.csv``: 'image_name| comment_number| comment'."""

import re
from collections import Counter
from pathlib import Path

from trimodal.core.records import CaptionedImage, DataError, reading_text
from trimodal.sources.rows import BadRowError, RowTally, flickr_image_id, plain_file_name

_ROW = re.compile(
    r"(?P<name>[^|]+)\|\s*(?P<number>[0-9]{1,9})\s*(?:\|\s*|\s+)(?P<caption>[^\s|].*)"
)


def read_flickr30k(folder: Path) -> tuple[list[CaptionedImage], Counter[str]]:
    """All images, sorted by name, captions in comment order, as training images; and the bad rows
    by reason.

    The official file has one row whose second separator is missing ('name| 4   A dog runs ...'):
    it is read like the others. Raises DataError, naming the file, for a missing header, for more
    than 1 % bad rows and if there is no image.
    """
    path = folder / "results.csv"
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    if not lines[0].startswith("image_name|"):
        raise DataError(f"{path}: the first row is not 'image_name| comment_number| comment'")
    tally = RowTally(path, "flickr30k")
    captions: dict[str, dict[int, str]] = {}
    name_of_id: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            with tally.row(f"row {number} ({line.strip()!r:.80})"):
                _read_row(line.strip(), captions, name_of_id)
    images = [
        CaptionedImage(
            image_id=image_id,
            split="train",
            source="flickr30k",
            file_name=name,
            captions=tuple(captions[name][number] for number in sorted(captions[name])),
        )
        for name, image_id in sorted((name, image_id) for image_id, name in name_of_id.items())
    ]
    return images, tally.checked(images)


def _read_row(line: str, captions: dict[str, dict[int, str]], name_of_id: dict[str, str]) -> None:
    match = _ROW.fullmatch(line)
    if match is None:
        raise BadRowError("row is not 'name| number| caption'")
    name = plain_file_name(match["name"].strip())
    if name_of_id.setdefault(flickr_image_id(name), name) != name:
        raise BadRowError("two files of one stem")
    numbered = captions.setdefault(name, {})
    number = int(match["number"])
    if number in numbered:
        raise BadRowError("comment number occurs twice")
    numbered[number] = match["caption"].strip()
