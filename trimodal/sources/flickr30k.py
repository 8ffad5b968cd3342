"""Flickr30k's ``results.csv``: 'image_name| comment_number| comment'; and the splits beside it."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from trimodal.core.fingerprint import bytes_fingerprint
from trimodal.core.records import CaptionedImage, DataError, reading_text
from trimodal.sources.rows import BadRowError, RowTally, csv_rows, flickr_image_id, plain_file_name

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


def read_training_split(folder: Path) -> tuple[list[CaptionedImage], Counter[str]]:
    """:func:`read_flickr30k`'s images that ``splits.csv`` beside ``results.csv`` calls ``train``;
    those of other splits are counted. Raises DataError as :func:`names_in_split`, too.
    """
    images, left_out = read_flickr30k(folder)
    names, bad_rows = names_in_split(folder / "splits.csv", "train")
    training = set(names)
    chosen = [image for image in images if image.file_name in training]
    left_out += bad_rows
    left_out["flickr30k: image of another split"] += len(images) - len(chosen)
    return chosen, +left_out


def held_out(images: list[CaptionedImage], count: int) -> list[CaptionedImage]:
    """The images, ``count`` of the training images, always the same, now for validation. Raises
    DataError if there are not more of them.
    """
    training = [image.image_id for image in images if image.split == "train"]
    if count and count >= len(training):
        raise DataError(
            f"captions.flickr30k_held_out: {count}, but there are {len(training)} training images"
        )
    order = sorted(training, key=lambda name: bytes_fingerprint(name.encode()))
    chosen = set(order[:count])
    return [replace(image, split="val") if image.image_id in chosen else image for image in images]


def names_in_split(path: Path, split: str) -> tuple[list[str], Counter[str]]:
    """The images of a split of a ``splits.csv`` (image_name, split), in file order; and the bad
    rows by reason. Raises DataError for another file and for a split that it has not.
    """
    tally = RowTally(path, "splits")
    split_of: dict[str, str] = {}
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv_rows(lines)
        _, _, header = next(rows, ("", 0, []))
        if header != ["image_name", "split"]:
            raise DataError(f"{path}: the first row is not image_name,split")
        for where, count, row in rows:
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                if len(row) != 2:
                    raise BadRowError("row has not 2 columns")
                if split_of.setdefault(plain_file_name(row[0]), row[1]) != row[1]:
                    raise BadRowError("an image is in two splits")
    bad_rows = tally.checked(split_of)
    names = [name for name, its_split in split_of.items() if its_split == split]
    if not names:
        known = ", ".join(sorted(set(split_of.values())))
        raise DataError(f"{path}: no image of split {split} (it has: {known})")
    return names, bad_rows
