"""VGGSound's ``vggsound.csv``: no header; YouTube id, start second, label, split."""

import csv
import re
from pathlib import Path

from trimodal.records import Clip, DataError, reading_text

_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_SPLITS = ("train", "test")


def read_vggsound(csv_path: Path, training_splits: tuple[str, ...]) -> list[Clip]:
    """The clips of the named splits, in file order, as clips to train on.

    An id may begin with '-' or '_' and occur with several start seconds; the same pair twice is an
    error. Raises DataError with file and row for anything else that is not as it should be.
    """
    clips: dict[str, Clip] = {}
    unwanted: set[str] = set()
    with reading_text(csv_path), csv_path.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
            where = f"{csv_path}, row {number}"
            if not row:
                continue
            if len(row) != 4:
                raise DataError(f"{where}: {len(row)} columns, not 4 (id, start, label, split)")
            youtube_id, start, label, split = row
            if not _YOUTUBE_ID.fullmatch(youtube_id):
                raise DataError(f"{where}: {youtube_id!r} is not a YouTube id")
            if not (start.isascii() and start.isdigit() and len(start) <= 6):
                raise DataError(f"{where}: start second {start!r} is not a whole number")
            if split not in _SPLITS:
                raise DataError(f"{where}: split {split!r} is not train or test")
            clip_id = f"{youtube_id}_{int(start):06d}"
            if clip_id in clips or clip_id in unwanted:
                raise DataError(f"{where}: {clip_id} occurs twice")
            if split in training_splits:
                clips[clip_id] = Clip(
                    clip_id=clip_id, source="vggsound", split="train", label=label
                )
            else:
                unwanted.add(clip_id)
    return list(clips.values())
