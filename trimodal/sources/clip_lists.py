"""Lists of test clips without sentences: VGGSound's official CSV, or names alone."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from trimodal.core.records import DataError, check_name, reading_text
from trimodal.sources.rows import BadRowError, RowTally, csv_rows
from trimodal.sources.vggsound import read_vggsound


def read_clip_list(path: Path) -> tuple[list[str], Counter[str]]:
    """Clip ids in file order; and counts of what is left out, by reason. Forms:

    - the official ``vggsound.csv`` (no header; YouTube id, start second, label, split): its test
      split;
    - ``<clip id>.mp4, label`` without a header, as VGGSound's ``test.csv``;
    - a header with a column ``video_id``, one row or more a clip.

    Raises DataError, naming the file, for another form, more than 1 % bad rows and no clip.
    """
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        _, _, first = next(csv_rows(lines), ("", 0, []))
    if "video_id" in first:
        return _read_names(path, first.index("video_id"), len(first), header=True)
    if len(first) == 4:
        clips, left_out = read_vggsound(path, ("test",))
        return [clip.clip_id for clip in clips], left_out
    if len(first) == 2:
        return _read_names(path, 0, 2, header=False)
    raise DataError(
        f"{path}: neither VGGSound's vggsound.csv or test.csv nor a CSV with a column video_id"
    )


def _read_names(
    path: Path, column: int, columns: int, *, header: bool
) -> tuple[list[str], Counter[str]]:
    tally = RowTally(path, "clips")
    names: dict[str, None] = {}
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows: Iterable[tuple[str, int, list[str]]] = csv_rows(lines)
        for number, (where, count, row) in enumerate(rows):
            if header and not number:
                continue
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                if len(row) != columns:
                    raise BadRowError("another number of columns than the first row")
                name = _checked(row[column].removesuffix(".mp4"))
                if name in names and not header:
                    raise BadRowError("a clip occurs twice")
                names[name] = None
    return list(names), tally.checked(names)


def _checked(name: str) -> str:
    try:
        return check_name(name, "")
    except DataError:
        raise BadRowError("unsafe name") from None
