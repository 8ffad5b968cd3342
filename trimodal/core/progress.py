"""What a person sees while a stage runs: one bar with rate and time left, one closing line."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from trimodal.core.errors import UserError
from trimodal.core.files import remove_temporary_folders_of_the_dead
from trimodal.core.storage import is_store_error

Item = TypeVar("Item")
log = logging.getLogger("trimodal")


_hushed = False


def silence() -> None:
    """No bars and no log lines from here on: another process of the same run shows them."""
    global _hushed
    _hushed = True
    log.setLevel(logging.WARNING)


def start_logging() -> None:
    """Sends the project's log lines to standard output as they are."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage's whole run. What a user can mend (a UserError, or an error of the machine: no space,
    no memory, a folder without write permission, a store that does not answer) ends the process
    with exit code 1 and one message on standard error; any other exception is a bug and shows its
    traceback.
    """
    start_logging()
    remove_temporary_folders_of_the_dead()
    try:
        yield
    except UserError as error:
        sys.exit(_last_words(name, error))
    except (OSError, MemoryError) as error:
        message = str(error) or "out of memory"
        sys.exit(_last_words(name, f"{message}; what was finished stays: run dvc repro again"))
    except Exception as error:
        if not is_store_error(error):
            raise
        sys.exit(_last_words(name, f"{error}; what was finished stays: run dvc repro again"))


def _last_words(name: str, error: object) -> str:
    message = str(error)
    return message if message.startswith(f"{name}:") else f"{name}: {message}"


def bar(items: Iterable[Item], *, task: str, unit: str, total: int | None = None) -> "tqdm[Item]":
    """Wraps an iterable in a progress bar; silent where standard error is no terminal."""
    return tqdm(items, desc=task, unit=f" {unit}", total=total, disable=_hushed or None)


def counter(*, task: str, unit: str, total: int) -> "tqdm[NoReturn]":
    """A progress bar that the caller moves on with ``update``."""
    return tqdm(desc=task, unit=f" {unit}", total=total, disable=_hushed or None)


def summary_line(made: str, left_out: Mapping[Any, int]) -> str:
    """'made; left out 3: 2 corrupt, 1 too_short' or 'made; nothing left out'."""
    reasons = Counter(left_out)
    if not reasons.total():
        return f"{made}; nothing left out"
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common() if count)
    return f"{made}; left out {reasons.total()}: {listed}"


def quantity(number: float) -> str:
    """3_600_000_000 -> '3.60G'."""
    return tqdm.format_sizeof(number)


def clock(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    return tqdm.format_interval(seconds)
