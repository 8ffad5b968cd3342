"""Work in parallel, results in order. The unit of work is one shard: whoever makes it, and however
often, it comes out the same.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

Job = TypeVar("Job")
Result = TypeVar("Result")

_HUNG = 1  # the exit code that faulthandler gives
# What a program dies of by its own fault; all other signals come from outside.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)


class WorkerError(RuntimeError):
    """A worker process ended in the middle of a job; ``crashed`` if by its own fault (it crashed or
    hung), not if it was killed.
    """

    def __init__(self, exit_code: int) -> None:
        self.crashed = exit_code == _HUNG or -exit_code in _CRASHES
        if exit_code == _HUNG:
            self.how = "hung"
        elif exit_code < 0:
            self.how = f"died of signal {-exit_code} ({signal.strsignal(-exit_code)})"
        else:
            self.how = f"left with exit code {exit_code}"
        advice = "" if self.crashed else (
            "; that is also how the system ends what takes too much memory: if it comes back, use "
            "fewer workers"
        )  # fmt: skip
        super().__init__(f"a worker process {self.how}{advice}")


@contextmanager
def ending_if_hung(seconds: float) -> Iterator[None]:
    """Ends this process if the block takes longer, even where it hangs in a library's C code; what
    it hung in is told on standard error.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def map_in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    rescue: Callable[[Job, WorkerError], Result] | None = None,
) -> Iterator[Result]:
    """Applies a picklable function to jobs in ``workers`` processes; yields results in job order.

    With one worker and no ``rescue`` everything happens in this process. An exception in a job ends
    the iteration and is raised here; jobs not yet begun are dropped. So does WorkerError for a
    worker that died; for one that crashed, ``rescue`` (called here) may have a result instead.
    Workers end with this process, however it ends. What the function's module imports is loaded
    once and shared by all workers.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if workers == 1 and rescue is None:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_module_of(work)])
    with ProcessPool(workers, initializer=_end_with_parent, context=context) as pool:
        try:
            running = [(job, pool.schedule(work, (job,))) for job in jobs]
            for job, future in running:
                try:
                    result = future.result()
                except (ProcessExpired, BrokenProcessPool) as expired:
                    error = WorkerError(getattr(expired, "exitcode", None) or 0)
                    if rescue is None or not error.crashed:
                        raise error from expired
                    result = rescue(job, error)
                yield result
        finally:
            pool.stop()  # type: ignore[no-untyped-call]


def _module_of(work: Callable[..., object]) -> str:
    while isinstance(work, partial):
        work = work.func
    return work.__module__


def _end_with_parent() -> None:
    """Without it, the workers of a killed process wait for jobs forever: each of them holds the
    writing end of the queue that it reads.
    """

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
