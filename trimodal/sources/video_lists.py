"""Official annotation files of video data sets as one list: a CSV of video_id and sentence.

The list is what ``download.msrvtt_csv`` and a test set of kind ``text_video`` read
(:mod:`trimodal.sources.msrvtt`). A video's id is its file's name, without the ending and with '_'
for characters other than letters, digits, '_' and '-'. Forms:

- ``msvd``: ``AllVideoDescriptions.txt`` (name and sentence) or the corpus' CSV, whose English rows
  count; every sentence is a query.
- ``vatex``: ``vatex_validation_v1.0.json`` and the like, a list of ``videoID`` and ``enCap``.
- ``didemo``: ``test_data.json``; a video's descriptions make one paragraph, as is usual.
- ``lsmdc``: ``LSMDC16_challenge_1000_publictect.csv``, six columns between tabs, no header.
- ``msrvtt``: any file that :func:`~trimodal.sources.msrvtt.read_queries` reads.
- ``vggsound``: the test split of ``vggsound.csv``, the label as the sentence: for its clips.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trimodal.core.files import read_json, write_text
from trimodal.core.records import DataError, reading_text, safe_name
from trimodal.sources.msrvtt import LIST_COLUMNS, read_queries
from trimodal.sources.rows import BadRowError, RowTally, caption_in, csv_rows, value_of
from trimodal.sources.vggsound import read_vggsound

Row = tuple[str, str]  # the name of a video, and a sentence
_MSVD_COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
_LSMDC_COLUMNS = 6


def write_video_list(
    form: str, annotations: Path, out: Path, *, videos: Path | None = None
) -> tuple[int, int, Counter[str]]:
    """Adds the sentences of an official file to the list ``out``, which is made if it is missing: a
    list of several data sets serves ``download.msrvtt_csv``. With ``videos``, a text file of a name
    a line (a split), only those. Returns the numbers of videos and sentences, and what was left
    out, by reason.

    Raises DataError, naming the file, for one of another form, more than 1 % bad rows, a video of
    ``videos`` without a sentence, one that is in the list already, and two names that are the same
    with '_' for other characters.
    """
    rows, left_out = _FORMS[form](annotations)
    names = _ids_of(annotations, [name for name, _ in rows])
    if videos is not None:
        chosen = _chosen(videos)
        if missing := sorted(chosen - set(names)):
            raise DataError(
                f"{videos}: {len(missing)} of {len(chosen)} videos have no sentence in "
                f"{annotations}; the first is {missing[0]}"
            )
        left_out["video of no interest"] = len(set(names) - chosen)
        rows = [row for row in rows if row[0] in chosen]
    added = [(names[name], sentence) for name, sentence in rows]
    before: list[Row] = []
    if out.exists():
        before = [(query.video_id, query.sentence) for query in read_queries(out)[0]]
        if shared := {name for name, _ in before} & {name for name, _ in added}:
            raise DataError(f"{out}: has {len(shared)} of these videos already, as {min(shared)}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([LIST_COLUMNS, *before, *added])
    write_text(out, text.getvalue())
    return len({name for name, _ in added}), len(added), +left_out


def _ids_of(path: Path, names: list[str]) -> Mapping[str, str]:
    """The id of each name."""
    ids = {name: safe_name(name) for name in names}
    first: dict[str, str] = {}
    for name, video_id in ids.items():
        if (other := first.setdefault(video_id, name)) != name:
            raise DataError(f"{path}: videos {other} and {name} would both be {video_id}")
    return ids


def _chosen(path: Path) -> set[str]:
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return {line.strip() for line in lines if line.strip()}


def _msvd(path: Path) -> tuple[list[Row], Counter[str]]:
    tally = RowTally(path, "msvd")
    rows = list(_msvd_corpus(path, tally) if path.suffix == ".csv" else _msvd_text(path, tally))
    return rows, tally.checked(rows)


def _msvd_text(path: Path, tally: RowTally) -> Iterator[Row]:
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            with tally.row(f"row {number} ({line!r:.80})"):
                name, _, sentence = line.strip().partition(" ")
                yield name, _sentence(sentence)


def _msvd_corpus(path: Path, tally: RowTally) -> Iterator[Row]:
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv_rows(lines)
        _, _, header = next(rows, ("", 0, []))
        if missing := [name for name in _MSVD_COLUMNS if name not in header]:
            raise DataError(f"{path}: the header lacks {', '.join(missing)}")
        for where, count, row in rows:
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                if len(row) != len(header):
                    raise BadRowError("another number of columns than the header")
                named = dict(zip(header, row, strict=True))
                if named["Language"] == "English":
                    name = f"{named['VideoID']}_{named['Start']}_{named['End']}"
                    yield name, _sentence(named["Description"])


def _vatex(path: Path) -> tuple[list[Row], Counter[str]]:
    tally = RowTally(path, "vatex")
    rows: list[Row] = []
    for number, entry in enumerate(_list_in(path)):
        with tally.row(f"entry {number}"):
            name = value_of(entry, "videoID", str)
            sentences = value_of(entry, "enCap", list)
            rows += [(name, caption_in({"enCap": sentence}, "enCap")) for sentence in sentences]
    return rows, tally.checked(rows)


def _didemo(path: Path) -> tuple[list[Row], Counter[str]]:
    tally = RowTally(path, "didemo")
    descriptions: dict[str, list[str]] = {}
    for number, entry in enumerate(_list_in(path)):
        with tally.row(f"entry {number}"):
            name = Path(value_of(entry, "video", str)).stem
            descriptions.setdefault(name, []).append(caption_in(entry, "description"))
    rows = [(name, " ".join(parts)) for name, parts in descriptions.items()]
    return rows, tally.checked(rows)


def _lsmdc(path: Path) -> tuple[list[Row], Counter[str]]:
    tally = RowTally(path, "lsmdc")
    rows: list[Row] = []
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with tally.row(f"row {number} ({line!r:.80})"):
                columns = line.split("\t")
                if len(columns) != _LSMDC_COLUMNS:
                    raise BadRowError("row has not 6 columns between tabs")
                rows.append((columns[0].strip(), _sentence(columns[-1])))
    return rows, tally.checked(rows)


def _msrvtt(path: Path) -> tuple[list[Row], Counter[str]]:
    queries, bad_rows = read_queries(path)
    return [(query.video_id, query.sentence) for query in queries], bad_rows


def _vggsound(path: Path) -> tuple[list[Row], Counter[str]]:
    clips, left_out = read_vggsound(path, ("test",))
    return [(clip.clip_id, clip.label) for clip in clips], left_out


def _list_in(path: Path) -> list[Any]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: not a JSON list of videos")
    return content


def _sentence(text: str) -> str:
    if not text.strip():
        raise BadRowError("empty sentence")
    return text.strip()


_FORMS: Mapping[str, Callable[[Path], tuple[list[Row], Counter[str]]]] = {
    "msrvtt": _msrvtt,
    "msvd": _msvd,
    "vatex": _vatex,
    "didemo": _didemo,
    "lsmdc": _lsmdc,
    "vggsound": _vggsound,
}
FORMS = tuple(_FORMS)
