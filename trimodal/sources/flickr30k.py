"""Flickr30k's ``results.csv``: 'image_name| comment_number| comment', beside ``images/``."""

import re
from pathlib import Path

from trimodal.records import CaptionedImage, DataError, check_name

_ROW = re.compile(r"(?P<name>[^|]+)\|\s*(?P<number>\d+)\s*(?:\|\s*|\s+)(?P<caption>\S.*)")


def read_flickr30k(folder: Path) -> list[CaptionedImage]:
    """All images with their captions in comment order, as training images, by name.

    The official file has one row whose second separator is missing ('name| 4   A dog runs ...'):
    it is read like the others. Raises DataError with file and row for a row of any other form, an
    empty caption and a comment number that occurs twice.
    """
    path = folder / "results.csv"
    captions: dict[str, dict[int, str]] = {}
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if not lines or not lines[0].startswith("image_name|"):
        raise DataError(f"{path}: the first row is not 'image_name| comment_number| comment'")
    for row, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        match = _ROW.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{path}, row {row}: {line!r:.80} is not 'name| number| caption'")
        numbered = captions.setdefault(match["name"].strip(), {})
        number = int(match["number"])
        if number in numbered:
            raise DataError(f"{path}, row {row}: comment {number} occurs twice")
        numbered[number] = match["caption"].strip()
    return [
        CaptionedImage(
            image_id=check_name(f"flickr_{Path(name).stem}", str(path)),
            split="train",
            source="flickr30k",
            file_name=name,
            captions=tuple(numbered[number] for number in sorted(numbered)),
        )
        for name, numbered in sorted(captions.items())
    ]
