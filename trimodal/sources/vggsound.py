"""VGGSound's ``vggsound.csv``: no header; YouTube id, start second, label, split."""

from collections import Counter
from pathlib import Path

from trimodal.core.records import Clip, is_youtube_id, reading_text
from trimodal.sources.rows import BadRowError, RowTally, csv_rows

_SPLITS = ("train", "test")
CLIP_SECONDS = 10.0


def read_vggsound(
    csv_path: Path, training_splits: tuple[str, ...]
) -> tuple[list[Clip], Counter[str]]:
    """The clips of ``training_splits``, in file order, as training clips; and counts of what is
    left out, by reason: bad rows, and clips of other splits.

    An id can start with '-' or '_' and occur with several start seconds. Raises DataError for a
    file in another format, for more than 1 % bad rows and if these splits have no clip.
    """
    clips: dict[str, Clip] = {}
    seen: set[str] = set()
    other_splits: Counter[str] = Counter()
    tally = RowTally(csv_path, "vggsound")
    with reading_text(csv_path), csv_path.open(encoding="utf-8-sig", newline="") as lines:
        for where, count, row in csv_rows(lines):
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                clip_id, youtube_id, label, split = _checked(row)
                if clip_id in seen:
                    raise BadRowError("a clip occurs twice")
                seen.add(clip_id)
                if split not in training_splits:
                    other_splits[f"vggsound: clip of the {split} split"] += 1
                else:
                    clips[clip_id] = Clip(
                        clip_id=clip_id,
                        source="vggsound",
                        split="train",
                        label=label,
                        youtube_id=youtube_id,
                    )
    return list(clips.values()), tally.checked(clips) + other_splits


def _checked(row: list[str]) -> tuple[str, str, str, str]:
    """Clip id, YouTube id, label and split of a row; raises BadRowError for a bad row."""
    if len(row) != 4:
        raise BadRowError("row has not 4 columns")
    youtube_id, start, label, split = row
    if not is_youtube_id(youtube_id):
        raise BadRowError("no YouTube id")
    if not (start.isascii() and start.isdigit() and len(start) <= 6):
        raise BadRowError("start second is no whole number")
    if split not in _SPLITS:
        raise BadRowError("split is not train or test")
    return f"{youtube_id}_{int(start):06d}", youtube_id, label, split


def youtube_section(clip: Clip) -> tuple[str, int]:
    """The YouTube id of a clip and the second of the video at which its 10 s start."""
    youtube_id, start = clip.clip_id[:11], clip.clip_id[12:]
    return youtube_id, int(start)
