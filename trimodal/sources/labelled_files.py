"""Media files with the names of what is in them, in the forms of classification data sets.

Files are found by their bare name among those of one folder and the archives in it (or of one
archive), so that no name in a table can point elsewhere. What cannot be used is counted by reason.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trimodal.core.archives import StoredFile, files_by_name
from trimodal.core.display import printable
from trimodal.core.progress import log
from trimodal.core.records import DataError, Split, is_youtube_id, reading_text
from trimodal.core.storage import files_in
from trimodal.sources.rows import BadRowError, RowTally, csv_rows
from trimodal.sources.vggsound import read_vggsound

MISSING = "file missing"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff")
VIDEO_SUFFIXES = (
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
SOUND_SUFFIXES = (
    ".aac", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma",
    *VIDEO_SUFFIXES,
)  # fmt: skip
_SEPARATOR = ";"  # between the labels of a file; VGGSound's labels have commas
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """A media file, the name its table has for it (in folders ``<class>/<file>``), its one or
    several labels, and its fold; empty where there are none.
    """

    name: str
    file: StoredFile
    labels: tuple[str, ...]
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelledFiles:
    """The files in the order of their table; counts of what is left out, by reason, and the first
    example of each; and counts of what is passed over because it is no item.
    """

    files: list[LabelledFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str, example: str) -> None:
        """Counts a file that is not used."""
        self.left_out[reason] += 1
        self.examples.setdefault(reason, printable(example))


def read_class_folders(folder: Path, suffixes: Sequence[str]) -> LabelledFiles:
    """The files of a folder's subfolders, each named like its class, sorted by path. Left out
    are files beside the subfolders, folders below them, and subfolders without a file; files
    without one of ``suffixes`` and hidden ones are passed over.

    Raises DataError if there is no file in any subfolder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder of classes")
    found = LabelledFiles()
    for path in _visible(files_in(folder), found):
        if path.name.lower().endswith(tuple(suffixes)):
            found.leave_out("file outside the folders of classes", str(path))
        else:
            found.passed_over["another kind of file"] += 1
    for subfolder in _visible((path for path in folder.iterdir() if path.is_dir()), found):
        _read_class_folder(subfolder, tuple(suffixes), found)
    if not found.files:
        raise DataError(
            f"{folder}: no files in folders of classes; looked for {' '.join(suffixes)}"
        )
    return found


def _read_class_folder(subfolder: Path, suffixes: tuple[str, ...], found: LabelledFiles) -> None:
    before = len(found.files) + found.left_out.total()
    for deeper in _visible((path for path in subfolder.iterdir() if path.is_dir()), found):
        found.leave_out("folder inside a class", str(deeper))
    for path in _visible(files_in(subfolder), found):
        if not path.name.lower().endswith(suffixes):
            found.passed_over["another kind of file"] += 1
        elif not str(path).isprintable():
            found.leave_out("name that is not printable", str(path))
        else:
            name, file = f"{subfolder.name}/{path.name}", StoredFile.plain(path)
            found.files.append(LabelledFile(name=name, file=file, labels=(subfolder.name,)))
    if len(found.files) + found.left_out.total() == before:
        found.leave_out("class without a file", str(subfolder))


def _visible(paths: Iterable[Path], found: LabelledFiles) -> list[Path]:
    """The paths in order, without hidden ones, which are counted."""
    visible = []
    for path in paths:
        if path.name.startswith("."):
            found.passed_over["hidden"] += 1
        else:
            visible.append(path)
    return sorted(visible)


def read_label_table(path: Path, media: Path, suffixes: Sequence[str]) -> LabelledFiles:
    """The rows of a CSV with the columns ``file`` and ``label``, or ``labels`` with ';' between
    them, and perhaps ``fold``; in its order. Bad rows are counted: another number of columns, an
    empty file, label or fold, a file twice.

    Raises DataError, naming the file, for other columns, more than 1 % bad rows or no usable row.
    """

    def parse(row: Mapping[str, str]) -> _Row:
        labels = _split(row["labels"], _SEPARATOR) if "labels" in row else (row["label"],)
        return _Row(row["file"], labels, row.get("fold"))

    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines, skipinitialspace=True), [])
    wanted = ("file", "labels" if "labels" in header else "label")
    return _located(_named_rows(path, wanted, parse), media, suffixes)


def read_esc50(folder: Path) -> LabelledFiles:
    """ESC-50: ``meta/esc50.csv`` with filename, fold, target and category, files in ``audio``.
    Bad rows as :func:`read_label_table`, and a category whose target is another than before.
    """
    target_of: dict[str, str] = {}

    def parse(row: Mapping[str, str]) -> _Row:
        if target_of.setdefault(row["category"], row["target"]) != row["target"]:
            raise BadRowError("a category with two targets")
        return _Row(row["filename"], (row["category"],), row["fold"])

    path = folder / "meta" / "esc50.csv"
    rows = _named_rows(path, ("filename", "fold", "target", "category"), parse)
    return _located(rows, folder / "audio", SOUND_SUFFIXES)


def read_vggsound_files(
    path: Path, media: Path, suffixes: Sequence[str], split: Split
) -> LabelledFiles:
    """VGGSound's ``vggsound.csv``: the clips of a split, whose files are named
    ``<youtube id>_<start second, 6 digits>``. Raises DataError as
    :func:`~trimodal.sources.vggsound.read_vggsound`.
    """
    clips, left_out = read_vggsound(path, (split,))
    # Clips of another split are not asked for, so none of them is left out.
    bad = Counter({reason: n for reason, n in left_out.items() if " clip of the " not in reason})
    rows = [_Row(clip.clip_id, (clip.label,), None) for clip in clips]
    return _located(_Rows(rows, bad), media, suffixes, by_stem=lambda name: (name,))


def read_audioset_files(path: Path, media: Path, suffixes: Sequence[str]) -> LabelledFiles:
    """AudioSet's ``*_segments.csv``: YouTube id, start and end second, the ids of the positive
    labels. A file is named by its YouTube id, with or without a ``Y`` before it and the start
    behind it, as the known downloaders do: ``_30``, ``_000030``, ``_30.000`` or ``_30000`` (ms).

    Bad rows as :func:`read_label_table`. Raises DataError, naming the file, for more than 1 % of
    them or no usable row.
    """
    rows: dict[str, _Row] = {}
    tally = RowTally(path, "audioset")
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        for where, count, row in csv_rows(lines):
            if row[0].startswith("#"):
                continue
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                parsed = _audioset_row(row)
                if parsed.name in rows:
                    raise BadRowError("a file occurs twice")
                rows[parsed.name] = parsed
    bad = tally.checked(rows)
    return _located(_Rows(list(rows.values()), bad), media, suffixes, by_stem=_audioset_stems)


def _split(labels: str, separator: str) -> tuple[str, ...]:
    return tuple(map(str.strip, labels.split(separator)))


def _audioset_row(row: list[str]) -> "_Row":
    if len(row) != 4:
        raise BadRowError("row has not 4 columns")
    youtube_id, start, _, labels = row
    if not is_youtube_id(youtube_id):
        raise BadRowError("no YouTube id")
    if not _SECONDS.fullmatch(start):
        raise BadRowError("start second is no number")
    return _Row(f"{youtube_id} {float(start):.3f}", _split(labels, ","), None).checked()


def _audioset_stems(name: str) -> tuple[str, ...]:
    """The stems that a segment's file can have, the most specific first."""
    youtube_id, start = name.split(" ")
    seconds = float(start)
    ends = (
        f"_{start}",
        f"_{round(seconds * 1000)}",
        f"_{int(seconds):06d}",
        f"_{int(seconds)}",
        "",
    )
    return tuple(f"{before}{youtube_id}{end}" for end in ends for before in ("", "Y"))


@dataclass(frozen=True)
class _Row:
    """A file's name as its table has it, its labels, and its fold; None for a table without."""

    name: str
    labels: tuple[str, ...]
    fold: str | None

    def checked(self) -> "_Row":
        """Itself, labels each once; raises BadRowError for an empty file name, label or fold."""
        if not self.name.strip():
            raise BadRowError("no file")
        if not all(self.labels):
            raise BadRowError("an empty label")
        if self.fold is not None and not self.fold.strip():
            raise BadRowError("no fold")
        return _Row(self.name.strip(), tuple(dict.fromkeys(self.labels)), self.fold)


@dataclass(frozen=True)
class _Rows:
    rows: list[_Row]
    bad: Counter[str]


def _named_rows(
    path: Path, wanted: Sequence[str], parse: Callable[[Mapping[str, str]], _Row]
) -> _Rows:
    """The rows of a CSV whose header has the columns ``wanted``."""
    rows: dict[str, _Row] = {}
    tally = RowTally(path, "labels")
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        table = csv_rows(lines)
        _, _, header = next(table, ("", 0, []))
        if missing := [name for name in wanted if name not in header]:
            raise DataError(f"{path}: the header lacks {', '.join(missing)}")
        for where, count, columns in table:
            with tally.row(f"{where} ({columns!r:.80})", lines=count):
                if len(columns) != len(header):
                    raise BadRowError("another number of columns than the header")
                row = parse(dict(zip(header, map(str.strip, columns), strict=True))).checked()
                if row.name in rows:
                    raise BadRowError("a file occurs twice")
                rows[row.name] = row
    return _Rows(list(rows.values()), tally.checked(rows))


def _located(
    table: _Rows,
    media: Path,
    suffixes: Sequence[str],
    by_stem: Callable[[str], Sequence[str]] | None = None,
) -> LabelledFiles:
    """The rows with their files among those of ``media`` that have one of ``suffixes``, found by
    name; with ``by_stem`` by the first of these stems of a name that there is.
    """
    stored, warnings = files_by_name(media, suffixes)
    for warning in warnings:
        log.info(f"evaluate: {warning}")
    found = LabelledFiles(left_out=Counter(table.bad))
    by_key = stored
    if by_stem:
        by_key = {}
        for name, stored_file in stored.items():
            by_key.setdefault(Path(name).stem, stored_file)
    for row in table.rows:
        keys = by_stem(row.name) if by_stem else (row.name,)
        file = next((by_key[key] for key in keys if key in by_key), None)
        if file is None:
            found.leave_out(MISSING, row.name)
        else:
            fold = row.fold or ""
            found.files.append(LabelledFile(name=row.name, file=file, labels=row.labels, fold=fold))
    return found
