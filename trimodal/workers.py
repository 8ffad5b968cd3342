"""Work in parallel, results in order. The unit of work is one shard: whoever makes it, and however
often, it comes out the same.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[Result]:
    """Applies a picklable function to jobs in ``workers`` processes; yields results in job order.

    With one worker everything happens in this process. An exception in a job ends the iteration
    and is raised here; jobs not yet begun are dropped. Workers end with this process, however it
    ends. What the function's module imports is loaded once and shared by all workers.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_module_of(work)])
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(work, jobs)
        finally:
            pool.shutdown(cancel_futures=True)


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
