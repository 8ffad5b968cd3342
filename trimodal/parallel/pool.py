"""Work in parallel, results in order. The unit of work is one shard: whoever makes it, and however
often, it comes out the same.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Generic, Self, TypeVar

from trimodal.core.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

_PATIENCE_SECONDS = 5.0
_HUNG_UP = (BrokenPipeError, ConnectionResetError)  # nobody is at the pipe's other end
_HUNG = 1  # the exit code that faulthandler gives
# What a program dies of by its own fault; all other signals come from outside.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)


class WorkerError(UserError, RuntimeError):
    """A worker process ended in the middle of a job; ``crashed`` if by its own fault (it crashed or
    hung), not if it was killed. ``exit_code`` is negative for a signal, None where nobody knows.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.crashed = exit_code is not None and (exit_code == _HUNG or -exit_code in _CRASHES)
        if exit_code is None:
            self.how = "died"
        elif exit_code == _HUNG:
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

    @classmethod
    def at_start(cls, exit_code: int | None) -> Self:
        """Of a worker that ended before it could take a job."""
        error = cls(exit_code)
        error.crashed = False
        if exit_code == 1:  # an exception, where nothing of ours runs yet
            error.args = (
                "a worker process could not begin; a script that starts workers does so under "
                '`if __name__ == "__main__":`',
            )
        return error

    @classmethod
    def unseen_crash(cls) -> Self:
        """Of a worker elsewhere, of which nobody knows more than that it crashed or was killed."""
        error = cls(_HUNG)
        error.how = "crashed"
        error.args = ("a worker process crashed or was killed",)
        return error


class ExecutorError(UserError, RuntimeError):
    """A cluster that is not there or lacks what the work needs."""


def map_in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    on_crash: Callable[[Job, WorkerError], Result] | None = None,
) -> Iterator[Result]:
    """Applies a picklable function to jobs in ``workers`` processes; yields results in job order.

    With one worker and no ``on_crash`` everything happens in this process. An exception in a job
    ends the iteration and is raised here; jobs under way are ended, those not yet begun are
    dropped. So does WorkerError for a worker that died; for one that crashed, ``on_crash`` (called
    here) may have a result instead. Workers end with this process, however it ends. What the
    function's module imports is loaded once and shared by all workers.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if workers == 1 and on_crash is None:
        yield from map(work, jobs)
        return
    waiting = enumerate(jobs)
    results: dict[int, Result] = {}
    next_due = 0
    crew: list[_Worker[Job, Result]] = []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(modules_of(work))
    try:
        for number, job in islice(waiting, workers):
            crew.append(_Worker(context, work))
            crew[-1].begin(number, job)
        while crew:
            for worker in _ready(crew):
                try:
                    results[worker.number] = worker.result()
                except WorkerError as error:
                    if on_crash is None or not error.crashed:
                        raise
                    results[worker.number] = on_crash(worker.job, error)
                    crew.remove(worker)
                    worker.end()
                    worker = _Worker(context, work)
                    crew.append(worker)
                if following := next(waiting, None):
                    worker.begin(*following)
                else:
                    crew.remove(worker)
                    worker.end()
            while next_due in results:
                yield results.pop(next_due)
                next_due += 1
    finally:
        for worker in crew:
            worker.end()


def _ready(crew: "list[_Worker[Job, Result]]") -> "list[_Worker[Job, Result]]":
    """Those that have a result or have died at a job; waits for one."""
    while True:
        told = wait([worker.pipe for worker in crew])
        if done := [w for w in crew if w.pipe in told and not w.has_just_started()]:
            return done


class _Worker(Generic[Job, Result]):
    """A process with a pipe of its own, so that nobody else suffers when it dies."""

    def __init__(self, context: ForkServerContext, work: Callable[[Job], Result]) -> None:
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._process.start()
        self._started = False
        theirs.close()

    def begin(self, number: int, job: Job) -> None:
        """Hands over a job."""
        self.number, self.job = number, job
        with suppress(*_HUNG_UP):  # then it has died, and result() says so
            self.pipe.send(job)

    def has_just_started(self) -> bool:
        """Whether what its pipe holds is its first word; raises WorkerError if it never spoke."""
        if self._started:
            return False
        try:
            self.pipe.recv()
        except (EOFError, *_HUNG_UP):
            self._process.join(_PATIENCE_SECONDS)
            raise WorkerError.at_start(self._process.exitcode) from None
        self._started = True
        return True

    def result(self) -> Result:
        """What came of the job; raises the job's exception, or WorkerError if the worker died."""
        try:
            done, outcome = self.pipe.recv()
        except (EOFError, *_HUNG_UP):
            self._process.join(_PATIENCE_SECONDS)
            raise WorkerError(self._process.exitcode) from None
        if not done:
            raise outcome
        result: Result = outcome
        return result

    def end(self) -> None:
        """Ends the process; what it was writing is removed."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, work: Callable[[Job], Result]) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _end_with_parent()
    with suppress(*_HUNG_UP):
        pipe.send("here")
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        outcome: tuple[bool, object]
        try:
            outcome = True, work(job)
        except Exception as error:  # noqa: BLE001 - it is raised again where the results go
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            outcome = False, error
        with suppress(*_HUNG_UP):
            pipe.send(outcome)


def modules_of(work: Callable[..., object]) -> list[str]:
    """The modules of a function and, for partials, of the functions among its arguments."""
    if not isinstance(work, partial):
        return [work.__module__]
    parts = [work.func, *work.args, *work.keywords.values()]
    found = [modules_of(part) for part in parts if callable(part) and not isinstance(part, type)]
    return list(dict.fromkeys(module for modules in found for module in modules))


def _end_with_parent() -> None:
    """Without it, the workers of a killed process wait for jobs forever: each of them holds the
    writing end of the queue that it reads.
    """

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
