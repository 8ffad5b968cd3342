"""The only way to print: names come from archives and file systems, and no terminal or log must
obey their control characters.
"""

import sys
import traceback
from types import TracebackType

from trimodal.core.display import printable


def printable_lines(text: str) -> str:
    """:func:`~trimodal.core.display.printable` for text of several lines. A line break within a
    name stays one; callers whose lines stand for an item each escape the names themselves.
    """
    return "\n".join(map(printable, text.split("\n")))


def show(text: str = "", *, error: bool = False) -> None:
    """Writes text, escaped, and a line end to standard output or standard error."""
    stream = sys.stderr if error else sys.stdout
    stream.write(f"{printable_lines(text)}\n")
    stream.flush()


def show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A ``sys.excepthook``: prints the traceback of a bug as Python does, but escaped."""
    show("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), error=True)
