"""The files of classes and prompt templates that zero-shot classification rests on.

A file is UTF-8 text: ``# version N`` in the first line, further lines with ``#`` for people, then
an entry a line. An entry of a list of classes is ``label``, or ``label | words`` if prompts should
have other words than the data's label; one of templates is a sentence with one ``{}``, the place
of the words. The package's own are in ``trimodal/evaluation/prompts``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.records import DataError, reading_text
from trimodal.sources.rows import csv_rows

SLOT = "{}"
_FOLDER = Path(__file__).parent / "prompts"
_NAME = re.compile(r"[a-z0-9_]+")
_VERSION = re.compile(r"# version (\d{1,9})")
_AUDIOSET_HEADER = ["index", "mid", "display_name"]


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The labels of a set's classes and the words that prompts have for them, (classes,) each."""

    origin: str
    labels: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Templates:
    """Sentences with a ``{}`` each."""

    origin: str
    sentences: tuple[str, ...]

    def prompts(self, words: str) -> list[str]:
        """A sentence a template."""
        return [sentence.replace(SLOT, words) for sentence in self.sentences]


def read_classes(name: str) -> ClassList:
    """The package's list ``name`` (vggsound, esc50, audioset, demo), or that of the file at this
    path; AudioSet's own ``class_labels_indices.csv`` too, whose labels are ids.

    Raises DataError, naming file and line, for a file in another format, without a class, or with
    a class twice.
    """
    path = _path_of(name, "classes")
    rows = _audioset_rows(path) if path.suffix == ".csv" else _class_rows(path)
    words_of: dict[str, str] = {}
    for where, label, words in rows:
        if not label or not words or SLOT[0] in words or SLOT[1] in words:
            raise DataError(f"{where}: {label!r} is not 'label' or 'label | words'")
        if label in words_of:
            raise DataError(f"{where}: the class {label!r} occurs twice")
        words_of[label] = words
    if not words_of:
        raise DataError(f"{path}: no classes")
    return ClassList(origin=_origin(path), labels=tuple(words_of), words=tuple(words_of.values()))


def read_templates(name: str) -> Templates:
    """The package's templates ``name`` (sound, picture, video, name), or those of the file at this
    path. Raises DataError, naming file and line, for a file in another format, without a template,
    with one twice, or with one that has not exactly one ``{}``.
    """
    path = _path_of(name, "templates")
    sentences: dict[str, None] = {}
    for where, line in _lines(path):
        if line.count(SLOT) != 1 or line.count("{") != 1 or line.count("}") != 1:
            raise DataError(f"{where}: {line!r} has not one {SLOT}, the place of the class's words")
        if line in sentences:
            raise DataError(f"{where}: the template {line!r} occurs twice")
        sentences[line] = None
    if not sentences:
        raise DataError(f"{path}: no templates")
    return Templates(origin=_origin(path), sentences=tuple(sentences))


def _path_of(name: str, kind: str) -> Path:
    if not _NAME.fullmatch(name):
        return Path(name)
    path = _FOLDER / f"{kind}_{name}.txt"
    if not path.is_file():
        known = sorted(p.stem.removeprefix(f"{kind}_") for p in _FOLDER.glob(f"{kind}_*.txt"))
        raise DataError(
            f"no {kind} {name!r}: the package has {', '.join(known)}; a file of your own is given "
            f"by a path with an ending, as {name}.txt"
        )
    return path


def _origin(path: Path) -> str:
    """What a result says about a file: its name, its version and the fingerprint of its bytes."""
    version = "" if path.suffix == ".csv" else f" version {_version(path)}"
    return f"{path.name}{version} ({file_fingerprint(path)})"


def _version(path: Path) -> str:
    with reading_text(path), path.open(encoding="utf-8-sig") as lines:
        match = _VERSION.fullmatch(lines.readline().strip())
    if match is None:
        raise DataError(f"{path}:1: the first line is not '# version N'")
    return match[1]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """'<file>:<line>' and each entry."""
    _version(path)
    with reading_text(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                yield f"{path}:{number}", line.strip()


def _class_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for where, line in _lines(path):
        label, bar, words = (part.strip() for part in line.partition("|"))
        yield where, label, words if bar else label


def _audioset_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv_rows(lines)
        if next(rows, ("", 0, []))[2] != _AUDIOSET_HEADER:
            raise DataError(f"{path}: the first row is not '{','.join(_AUDIOSET_HEADER)}'")
        for where, _, row in rows:
            if len(row) != len(_AUDIOSET_HEADER):
                raise DataError(f"{path}: {where} has not {len(_AUDIOSET_HEADER)} columns")
            yield f"{path}: {where}", row[1], row[2]
