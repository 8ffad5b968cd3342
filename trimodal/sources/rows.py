"""Reading rows of annotation files; bad rows are counted by reason instead of being fatal."""

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
    """Counts the rows of the file ``path``, and bad ones by '<source>: <reason>': a BadRowError
    inside ``with tally.row("row 7"):`` skips only that row.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self._path = path
        self._source = source
        self._where = ""
        self._lines = 1
        self._first_problem = ""

    def row(self, where: str, lines: int = 1) -> "RowTally":
        """Context in which one row is read; a row of several lines counts as that many rows."""
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
        self._first_problem = self._first_problem or f"{self._where}: {error}"
        return True

    def checked(self, records: Sized) -> Counter[str]:
        """The bad rows by reason. Raises DataError, naming the file and its first bad row, for more
        than one bad row and more than 1 %; and if ``records``, what was read, is empty.
        """
        bad = self.bad.total()
        if bad > max(1, MAX_BAD_SHARE * self.rows):
            raise DataError(
                f"{self._path}: {bad} of {self.rows} rows cannot be used: {dict(self.bad)}; "
                f"the first: {self._first_problem}"
            )
        if not records:
            raise DataError(f"{self._path}: no usable rows; left out: {dict(self.bad)}")
        return Counter(self.bad)


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    """The non-empty rows of a CSV file: 'row <number of its first line>', its number of lines (an
    unclosed quote swallows the following rows) and its columns.
    """
    reader = csv.reader(lines, skipinitialspace=True)
    last_line = 0
    for row in reader:
        first_line, last_line = last_line + 1, reader.line_num
        if row:
            yield f"row {first_line}", last_line - first_line + 1, row


def list_in(path: Path, content: Any, key: str) -> list[Any]:
    """The list under ``key`` of a JSON file's content; raises DataError if there is none."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise DataError(f"{path}: has no list '{key}'")
    return list(content[key])


def value_of(row: Any, key: str, kind: type) -> Any:
    """``row[key]``, checked to be a ``kind``; raises BadRowError if it is not."""
    value = row.get(key) if isinstance(row, dict) else None
    # JSON can contain half a surrogate pair, which UTF-8 cannot encode; and True is an int.
    half_surrogate = isinstance(value, str) and any(
        "\ud800" <= character <= "\udfff" for character in value
    )
    if not isinstance(value, kind) or isinstance(value, bool) or half_surrogate:
        raise BadRowError(f"no {kind.__name__} '{key}'")
    return value


def coco_number(row: Any, key: str) -> int:
    """``row[key]``, checked to be a COCO image number, at most 12 digits; else BadRowError."""
    number: int = value_of(row, key, int)
    if not 0 <= number < 10**12:
        raise BadRowError(f"'{key}' is no image number")
    return number


def caption_in(row: Any, key: str) -> str:
    """``row[key]``, checked to be a non-empty caption, stripped; else BadRowError."""
    caption: str = value_of(row, key, str).strip()
    if not caption:
        raise BadRowError("empty caption")
    return caption


def plain_file_name(name: str) -> str:
    """``name``, checked to be a plain file name without folders; else BadRowError."""
    try:
        return check_file_name(name, "")
    except DataError:
        raise BadRowError("unsafe file name") from None


def flickr_image_id(file_name: str) -> str:
    """'1000092795.jpg' -> 'flickr_1000092795'; BadRowError for a stem that is not a safe key."""
    try:
        return check_name(f"flickr_{Path(file_name).stem}", "")
    except DataError:
        raise BadRowError("unsafe file name") from None
