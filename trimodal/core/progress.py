"""What a user sees while a stage runs: a progress bar and one summary line."""

import errno
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import Any, NoReturn, TypeVar

from tqdm.auto import tqdm  # in notebooks their own bars, if ipywidgets is there

from trimodal.core.console import printable_lines, show_traceback
from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.files import remove_stale_temporary_folders
from trimodal.core.storage import is_store_error

Item = TypeVar("Item")
log = logging.getLogger("trimodal")

_silenced = False


def silence() -> None:
    """Turns progress bars and log lines off: another process of the same run shows them."""
    global _silenced
    _silenced = True
    log.setLevel(logging.WARNING)


class _Escaped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def start_logging() -> None:
    """Sends the project's log lines to standard output, unformatted but escaped."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Escaped("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    sys.excepthook = show_traceback


@contextmanager
def stage(name: str, *, removed: Path | None = None) -> Iterator[None]:
    """Wraps a stage's run. An error that a user can fix (a UserError, or an error of the machine:
    no disk space, memory or write permission, an object store that does not answer) ends the
    process with exit code 1 and one message on standard error; any other exception is a bug and
    shows its traceback. ``removed`` is an output that DVC removes before the stage begins: the
    message of a UserError says how to get the last run's back, if there was one.
    """
    start_logging()
    try:
        remove_stale_temporary_folders()
        yield
    except UserError as error:
        sys.exit(_final_message(name, f"{error}{_way_back(removed)}"))
    except (OSError, MemoryError) as error:
        message = str(error) or "out of memory"
        sys.exit(_final_message(name, f"{message}; finished work is kept: {advice(error)}"))
    except Exception as error:
        if not is_store_error(error):
            raise
        sys.exit(_final_message(name, f"{error}; finished work is kept: run dvc repro again"))


def _way_back(removed: Path | None) -> str:
    """How to get an output of the last run, which dvc.lock names, back from DVC's cache."""
    lock = Path("dvc.lock")
    if removed is None or removed.exists() or not lock.is_file():
        return ""
    if f"path: {removed.as_posix()}\n" not in lock.read_text(encoding="utf-8"):
        return ""
    return f" (dvc checkout {removed} brings back that of the last run)"


def advice(error: OSError | MemoryError, again: str = "run dvc repro again") -> str:
    """What to do before the stage, or a command, is run again."""
    if "AF_UNIX path too long" in str(error):
        return f"set TMPDIR, now {gettempdir()}, to a path of at most 70 letters and {again}"
    if "No usable temporary directory" in str(error):
        return f"set TMPDIR to a folder with room that can be written and {again}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
        room = [f"{quantity(disk_usage(path).free)}B in {path}" for path in _scratch_folders()]
        return f"{again} with more room; free: {', '.join(room)}"
    return again


def _scratch_folders() -> list[str]:
    """Where temporary files and the shared memory of processes are."""
    folders = [gettempdir(), "/dev/shm"]  # noqa: S108
    return [folder for folder in folders if Path(folder).is_dir()]


def _final_message(name: str, error: object) -> str:
    message = printable_lines(str(error))
    return message if message.startswith(f"{name}:") else f"{name}: {message}"


def bar(items: Iterable[Item], *, task: str, unit: str, total: int | None = None) -> "tqdm[Item]":
    """Wraps an iterable in a progress bar; silent if standard error is neither a terminal nor a
    notebook's.
    """
    return tqdm(items, desc=printable(task), unit=f" {unit}", total=total, disable=_hidden())


def counter(*, task: str, unit: str, total: int) -> "tqdm[NoReturn]":
    """A progress bar that the caller advances with ``update``."""
    return tqdm(desc=printable(task), unit=f" {unit}", total=total, disable=_hidden())


def _hidden() -> bool | None:
    """tqdm's ``disable``; None leaves it to whether there is a terminal, which notebooks lack."""
    if _silenced:
        return True
    return False if "ipykernel.zmqshell" in sys.modules else None


def summary_line(summary: str, left_out: Mapping[Any, int]) -> str:
    """'<summary>; left out 3: 2 corrupt, 1 too_short' or '<summary>; nothing left out'."""
    reasons = Counter(left_out)
    if not reasons.total():
        return f"{summary}; nothing left out"
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common() if count)
    return f"{summary}; left out {reasons.total()}: {listed}"


def quantity(number: float) -> str:
    """3_600_000_000 -> '3.60G'."""
    return tqdm.format_sizeof(number)


def clock(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    return tqdm.format_interval(seconds)
