"""For argparse: a command line is checked before work of hours begins."""

import os
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """A whole number from 1; for ``add_argument(type=positive)``."""
    return _at_least(1, text)


def seed_number(text: str) -> int:
    """A whole number that every generator of random numbers takes: 0 to 2^32 - 1."""
    number = _at_least(0, text)
    if number >= 2**32:
        raise ArgumentTypeError(f"{text} is not below 2^32")
    return number


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return number


def writable_folder(text: str) -> Path:
    """An existing folder in which files can be made."""
    path = Path(text)
    if not path.is_dir():
        raise ArgumentTypeError(f"{text!r} is not a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ArgumentTypeError(f"{text!r} cannot be written to")
    return path


class Distinct(Action):
    """Refuses a value that is given twice: it would be computed twice and counted as two."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Stores the values, as argparse does by default."""
        if values is not None and len(set(values)) < len(values):
            given = " ".join(map(str, values))
            parser.error(f"argument {option_string}: {given}: one of them is given twice")
        setattr(namespace, self.dest, values)


def missing_packages(*names: str) -> list[str]:
    """Those of these packages that are not installed; imports none."""
    return [name for name in names if find_spec(name) is None]
