"""Flickr30k's ``results.csv``: 'image_name| comment_number| comment', beside ``images/``."""

import re
from pathlib import Path

from trimodal.records import (
    CaptionedImage,
    DataError,
    check_file_name,
    check_name,
    reading_text,
)

_ROW = re.compile(r"(?P<name>[^|]+)\|\s*(?P<number>\d+)\s*(?:\|\s*|\s+)(?P<caption>[^\s|].*)")


def read_flickr30k(folder: Path) -> list[CaptionedImage]:
    """All images with their captions in comment order, as training images, by name.

    The official file has one row whose second separator is missing ('name| 4   A dog runs ...'):
    it is read like the others. Raises DataError with file and row for a row of any other form, an
    unsafe name, an empty caption, a comment number that occurs twice and two names of one stem.
    """
    path = folder / "results.csv"
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    if not lines[0].startswith("image_name|"):
        raise DataError(f"{path}: the first row is not 'image_name| comment_number| comment'")
    captions: dict[str, dict[int, str]] = {}
    name_of_stem: dict[str, str] = {}
    for row, line in enumerate(lines[1:], start=2):
        where = f"{path}, row {row}"
        if not line.strip():
            continue
        match = _ROW.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{where}: {line!r:.80} is not 'name| number| caption'")
        name = check_file_name(match["name"].strip(), where)
        stem = check_name(Path(name).stem, where)
        if name_of_stem.setdefault(stem, name) != name:
            raise DataError(f"{where}: {name} and {name_of_stem[stem]} have one stem")
        numbered = captions.setdefault(name, {})
        number = int(match["number"])
        if number in numbered:
            raise DataError(f"{where}: comment {number} occurs twice")
        numbered[number] = match["caption"].strip()
    return [
        CaptionedImage(
            image_id=f"flickr_{Path(name).stem}",
            split="train",
            source="flickr30k",
            file_name=name,
            captions=tuple(numbered[number] for number in sorted(numbered)),
        )
        for name, numbered in sorted(captions.items())
    ]
