"""Settings of the process: of the C libraries beneath PyTorch, and of Python's garbage collector.
They change no result.

Importing any module of this package makes those of the C libraries (``trimodal/__init__.py``), so
every process that computes has them, whoever starts it.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Iterations that a thread waits at a barrier before it sleeps: some 50 us, about what waking it
# costs. GNU OpenMP's default is 300,000. Beside other processes, the thread that is waited for may
# not be running at all, and all that time is lost, at each of a step's thousands of barriers.
SPIN_COUNT = 1000
_OWN_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def share_cores() -> None:
    """Lets threads of OpenMP that wait for each other leave their core to others after a moment.

    GNU OpenMP, the one in PyTorch's packages for Linux, reads this when it is loaded: where
    ``torch`` was imported before, it holds for this process's children only. Variables of the user
    are left as they are.
    """
    if not any(name in os.environ for name in _OWN_WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep what is freed for the next allocation.

    By default it gives large blocks back to the kernel, which zeroes them, page by page, when the
    next batch needs them. The process's size stays at its peak. Does nothing with another C
    library, or where the user has set malloc's parameters.
    """
    if sys.platform == "linux" and not _has_own_malloc():
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, -1)


def _has_own_malloc() -> bool:
    """Whether the user has set a parameter of malloc (mallopt(3), "Environment variables")."""
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in os.environ
    )


@contextmanager
def uncollected() -> Iterator[None]:
    """Keeps the garbage collector off within the block, and from what the block leaves for ever.

    For imports: the collector would go through all objects of PyTorch again and again, for a fifth
    of the time that importing it and LanceDB takes, and find nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
