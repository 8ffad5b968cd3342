"""Ends a process that hangs in C code, which no exception and no timeout can interrupt."""

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HUNG = "hung"  # how a process that hung has ended


@contextmanager
def ending_if_hung(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer, even if it hangs in a library's C code; prints
    the stack on standard error.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
