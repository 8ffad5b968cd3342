"""The rows of annotation files: their fields, and bad ones counted by reason instead of fatal."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from types import TracebackType
from typing import Any

from trimodal.core.records import DataError, check_file_name, check_name

MAX_BAD_SHARE = 0.01


class BadRowError(ValueError):
    """A row that cannot be used; the message is the reason under which it is counted."""


class RowTally:
    """Counts the rows of the file ``path``, and the bad ones by '<source>: <reason>': a BadRowError
    inside ``with tally.row("row 7"):`` ends that row alone.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self._path = path
        self._source = source
        self._where = ""
        self._lines = 1
        self._first = ""

    def row(self, where: str, lines: int = 1) -> "RowTally":
        """The block that reads one row; it counts as many rows as it has lines of the file."""
        self._where, self._lines = where, lines
        self.rows += lines
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, BadRowError):
            return False
        self.bad[f"{self._source}: {error}"] += self._lines
        self._first = self._first or f"{self._where}: {error}"
        return True

    def checked(self, records: Sized) -> Counter[str]:
        """The bad rows by reason. Raises DataError, naming the file and its first bad row, if they
        are more than 1 % of the rows, and more than one; and if the file holds none of the
        ``records`` that it was read for.
        """
        bad = self.bad.total()
        if bad > max(1, MAX_BAD_SHARE * self.rows):
            raise DataError(
                f"{self._path}: {bad} of {self.rows} rows cannot be used: {dict(self.bad)}; "
                f"the first: {self._first}"
            )
        if not records:
            raise DataError(f"{self._path}: nothing in it to use; left out: {dict(self.bad)}")
        return Counter(self.bad)


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    """The rows of a CSV file that are not empty: 'row <number of its first line>', its lines of the
    file (a quote that is never closed swallows the rows behind it) and its columns.
    """
    reader = csv.reader(lines, skipinitialspace=True)
    before = 0
    for row in reader:
        first, before = before + 1, reader.line_num
        if row:
            yield f"row {first}", before - first + 1, row


def list_in(path: Path, content: Any, key: str) -> list[Any]:
    """The list under ``key`` of a JSON file's content; raises DataError if there is none."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise DataError(f"{path}: has no list '{key}'")
    return list(content[key])


def value_of(row: Any, key: str, kind: type) -> Any:
    """``row[key]``, which is a ``kind``; raises BadRowError if it is not."""
    value = row.get(key) if isinstance(row, dict) else None
    # JSON can spell half of a surrogate pair, which no file can hold; and True is an int.
    half = isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
    if not isinstance(value, kind) or isinstance(value, bool) or half:
        raise BadRowError(f"no {kind.__name__} '{key}'")
    return value


def coco_number(row: Any, key: str) -> int:
    """``row[key]``, which is a COCO image's number, 12 digits at most; else BadRowError."""
    number: int = value_of(row, key, int)
    if not 0 <= number < 10**12:
        raise BadRowError(f"'{key}' is no image number")
    return number


def caption_in(row: Any, key: str) -> str:
    """``row[key]``, which is a caption, without the blanks around it; else BadRowError."""
    caption: str = value_of(row, key, str).strip()
    if not caption:
        raise BadRowError("empty caption")
    return caption


def plain_file_name(name: str) -> str:
    """``name``, which names a file inside a folder and nothing outside; else BadRowError."""
    try:
        return check_file_name(name, "")
    except DataError:
        raise BadRowError("unsafe file name") from None


def flickr_image_id(file_name: str) -> str:
    """'1000092795.jpg' -> 'flickr_1000092795'; BadRowError for a stem that is no safe key."""
    try:
        return check_name(f"flickr_{Path(file_name).stem}", "")
    except DataError:
        raise BadRowError("unsafe file name") from None
