"""Tells errors of the machine from errors of a file's content.

No permission, a bad sector, a network folder that is gone, no memory, too many open files: none of
these says anything about the file, so none may become a verdict on it that later runs keep.
"""

import errno
import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from trimodal.core.errors import UserError

Result = TypeVar("Result")

# Decoders and archive readers report these, or no number at all, for damaged content.
_OF_CONTENT = frozenset({
    None, errno.EINVAL, errno.EILSEQ, errno.ERANGE, errno.EDOM, errno.EOVERFLOW, errno.EAGAIN,
})  # fmt: skip
_OF_MACHINE = (
    MemoryError, TimeoutError, ConnectionError, PermissionError, FileNotFoundError,
    NotADirectoryError,
)  # fmt: skip
# What is refused now may be granted a moment later: reading the file again would prove nothing.
_RESOURCES = frozenset({
    errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT,
})  # fmt: skip
_WAITS_SECONDS = (0.1, 1.0)
_BLOCK_BYTES = 2**20
_PROBE_BYTES = 2**26  # more than a picture of 8K takes
_STOP_AFTER = 10
UNREADABLE = ("unreadable", "missing")  # the reasons of UnreadableError


class UnreadableError(UserError):
    """This machine could not read a file; ``reason`` is ``missing`` if it does not exist."""

    def __init__(self, path: Path, reason: Literal["unreadable", "missing"], detail: str) -> None:
        super().__init__(f"{path}: {reason}: {detail}")
        self.path = path
        self.reason: Literal["unreadable", "missing"] = reason
        self.detail = detail

    @classmethod
    def of(cls, path: Path, cause: BaseException) -> Self:
        """The error for ``path``, caused by an error of the machine."""
        gone = isinstance(cause, FileNotFoundError | NotADirectoryError)
        return cls(path, "missing" if gone else "unreadable", str(cause) or "out of memory")

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes it picklable, so that a worker can raise it."""
        return type(self), (self.path, self.reason, self.detail), vars(self)


class TooManyUnreadableError(UserError):
    """So many files in a row are unreadable that the disk or the network folder must be gone."""


def is_machine_error(error: BaseException) -> bool:
    """Whether an error, or the one that caused it, is of this machine: memory, permissions, disks,
    network folders, open files; and not of the content of what is read. FFmpeg has EIO also for a
    file that ends early (:func:`refuse_unreadable`).
    """
    return _machine_cause(error) is not None


def _machine_cause(error: BaseException | None) -> BaseException | None:
    while error is not None:
        if isinstance(error, _OF_MACHINE) or (
            isinstance(error, OSError)
            and (error.errno not in _OF_CONTENT or str(error).startswith("out of memory"))  # Pillow
        ):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an error of the machine, also one that a reader has wrapped, into UnreadableError."""
    try:
        yield
    except UnreadableError:
        raise
    except Exception as error:
        cause = _machine_cause(error)
        if cause is None:
            raise
        raise UnreadableError.of(path, cause) from error


def refuse_memory_shortage(error: Exception) -> None:
    """Raises ``error``, or MemoryError, if memory was refused when it came up. Decoders report that
    as damaged content: H.264's as invalid data, JPEG's as a broken stream.
    """
    if isinstance(error, MemoryError):
        raise error
    try:
        mmap.mmap(-1, _PROBE_BYTES).close()  # reserved, not used
    except OSError as refused:
        raise MemoryError(f"out of memory: {error}") from refused


def refuse_unreadable(path: Path, error: Exception) -> None:
    """Raises UnreadableError if ``error``, which came up while ``path`` was decoded, says nothing
    about its content: memory or another resource was refused, or the file cannot be read to its
    end. Reads the file, because FFmpeg reports a failing disk as it does a file that ends early.
    """
    cause = _machine_cause(error)
    if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _RESOURCES:
        raise UnreadableError.of(path, cause or error) from error
    with reading(path):
        refuse_memory_shortage(error)
        with path.open("rb") as file:
            while file.read(_BLOCK_BYTES):
                pass


def retried(read: Callable[[], Result]) -> Result:
    """What ``read`` returns. After an error of the machine it is called again, up to two times and
    after a short wait; a missing file is not waited for.
    """
    for wait_seconds in _WAITS_SECONDS:
        try:
            return read()
        except UserError as error:
            unreadable = isinstance(error, UnreadableError)
            if not is_machine_error(error) or getattr(error, "reason", "") == "missing":
                raise
        if unreadable:
            time.sleep(wait_seconds)
    return read()


class ReadFailures:
    """Counts unreadable and missing files in a row: one is left out, many stop the run."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def record(self, problem: str) -> None:
        """Counts a file; ``problem`` is empty if it could be read. Raises TooManyUnreadableError at
        the tenth in a row.
        """
        self._in_a_row = self._in_a_row + 1 if problem else 0
        if self._in_a_row >= _STOP_AFTER:
            raise TooManyUnreadableError(
                f"{self._in_a_row} files in a row cannot be read (the last: {problem}). Nothing is "
                "recorded about them: run dvc repro again when the disk or the folder is back; if "
                "they are gone for good, run dvc repro --force download"
            )
