"""Parallel work in local processes, with results in job order."""

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
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import _forkserver
from typing import Generic, Self, TypeVar

from trimodal.core.errors import UserError
from trimodal.parallel.watchdog import HUNG

Job = TypeVar("Job")
Result = TypeVar("Result")

_EXIT_TIMEOUT_SECONDS = 5.0
_PIPE_CLOSED = (BrokenPipeError, ConnectionResetError)  # the other process is gone
_HUNG_EXIT_CODE = 1  # that of faulthandler, see watchdog.py
# Signals that a program causes itself; all others come from outside.
_CRASH_SIGNALS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}
)


class WorkerError(UserError, RuntimeError):
    """A worker process ended during a job; ``crashed`` is true if it crashed or hung, false if it
    was killed. ``exit_code`` is negative for a signal, None if unknown.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.crashed = exit_code is not None and (
            exit_code == _HUNG_EXIT_CODE or -exit_code in _CRASH_SIGNALS
        )
        if exit_code is None:
            self.how = "died"
        elif exit_code == _HUNG_EXIT_CODE:
            self.how = HUNG
        elif exit_code < 0:
            self.how = f"died of signal {-exit_code} ({signal.strsignal(-exit_code)})"
        else:
            self.how = f"exited with code {exit_code}"
        advice = "" if self.crashed else (
            "; it may have run out of memory: if this happens again, use fewer workers"
        )  # fmt: skip
        super().__init__(f"a worker process {self.how}{advice}")

    @classmethod
    def at_start(cls, exit_code: int | None) -> Self:
        """The error of a worker that ended before it could take a job."""
        error = cls(exit_code)
        error.crashed = False
        if exit_code == 1:  # an exception before any job runs
            error.args = (
                "a worker process could not start; a script must start workers under "
                '`if __name__ == "__main__":`',
            )
        return error

    @classmethod
    def on_other_machine(cls) -> Self:
        """The error of a worker on another machine, which crashed or was killed."""
        error = cls(_HUNG_EXIT_CODE)
        error.how = "crashed"
        error.args = ("a worker process crashed or was killed",)
        return error


class ExecutorError(UserError, RuntimeError):
    """A cluster cannot be reached or lacks something that the jobs need."""


def map_in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    num_workers: int,
    *,
    on_crash: Callable[[Job, WorkerError], Result] | None = None,
) -> Iterator[Result]:
    """Applies a picklable function to jobs in ``num_workers`` processes; yields results in job
    order.

    With one worker and no ``on_crash`` the jobs run in this process. An exception in a job is
    raised here and ends the iteration: running jobs are ended, waiting ones dropped. So is
    WorkerError for a worker that died; for one that crashed, ``on_crash`` (called here) can return
    a result instead. Workers end with this process, however it ends. The modules of the function
    (:func:`modules_of`) are imported once and shared by all workers.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, not {num_workers}")
    if num_workers == 1 and on_crash is None:
        yield from map(work, jobs)
        return
    waiting = enumerate(jobs)
    results: dict[int, Result] = {}
    next_number = 0
    workers: list[_Worker[Job, Result]] = []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(modules_of(work))
    _start_fork_server()
    try:
        for number, job in islice(waiting, num_workers):
            workers.append(_Worker(context, work))
            workers[-1].start_job(number, job)
        while workers:
            for worker in _ready(workers):
                try:
                    results[worker.number] = worker.result()
                except WorkerError as error:
                    if on_crash is None or not error.crashed:
                        raise
                    results[worker.number] = on_crash(worker.job, error)
                    workers.remove(worker)
                    worker.end()
                    worker = _Worker(context, work)
                    workers.append(worker)
                if numbered_job := next(waiting, None):
                    worker.start_job(*numbered_job)
                else:
                    workers.remove(worker)
                    worker.end()
            while next_number in results:
                yield results.pop(next_number)
                next_number += 1
    finally:
        for worker in workers:
            worker.end()


def _ready(workers: "list[_Worker[Job, Result]]") -> "list[_Worker[Job, Result]]":
    """Waits for workers that have a result or died during a job."""
    while True:
        readable = wait([worker.pipe for worker in workers])
        if ready := [w for w in workers if w.pipe in readable and not w.has_just_started()]:
            return ready


class _Worker(Generic[Job, Result]):
    """A process with a pipe of its own, so that its death does not affect the others."""

    def __init__(self, context: ForkServerContext, work: Callable[[Job], Result]) -> None:
        self.pipe, worker_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(worker_end, work), daemon=True)
        self._process.start()
        self._started = False
        worker_end.close()

    def start_job(self, number: int, job: Job) -> None:
        """Sends a job to the process."""
        self.number, self.job = number, job
        with suppress(*_PIPE_CLOSED):  # the process died; result() raises
            self.pipe.send(job)

    def has_just_started(self) -> bool:
        """Whether the waiting message is the process's start signal; raises WorkerError if it died
        before sending that.
        """
        if self._started:
            return False
        try:
            self.pipe.recv()
        except (EOFError, *_PIPE_CLOSED):
            self._process.join(_EXIT_TIMEOUT_SECONDS)
            raise WorkerError.at_start(self._process.exitcode) from None
        self._started = True
        return True

    def result(self) -> Result:
        """The job's result; raises the job's exception, or WorkerError if the worker died."""
        try:
            succeeded, outcome = self.pipe.recv()
        except (EOFError, *_PIPE_CLOSED):
            self._process.join(_EXIT_TIMEOUT_SECONDS)
            raise WorkerError(self._process.exitcode) from None
        if not succeeded:
            raise outcome
        result: Result = outcome
        return result

    def end(self) -> None:
        """Ends the process; the files it was writing are removed."""
        self.pipe.close()
        self._process.terminate()
        self._process.join(_EXIT_TIMEOUT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _start_fork_server() -> None:
    """Starts the process that workers are forked from, if it is not running, so that neither gets
    Ctrl-C, not even before its first line: a terminal sends it to all processes, and this one ends
    its workers.
    """
    resource_tracker.ensure_running()  # the fork server would, and unblock the signal
    if not hasattr(signal, "pthread_sigmask"):
        _forkserver.ensure_running()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        _forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, work: Callable[[Job], Result]) -> None:
    """The main loop of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _end_with_parent()
    _use_one_thread()
    with suppress(*_PIPE_CLOSED):
        pipe.send("started")
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        outcome: tuple[bool, object]
        try:
            outcome = True, work(job)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
            outcome = False, error
        with suppress(*_PIPE_CLOSED):
            pipe.send(outcome)


def _use_one_thread() -> None:
    """Keeps PyTorch and other libraries with OpenMP, imported already or later, from starting a
    thread a core in every worker.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def modules_of(work: Callable[..., object]) -> list[str]:
    """Names of the modules of a function and, in partials, of the functions among its arguments."""
    if not isinstance(work, partial):
        return [work.__module__]
    parts = [work.func, *work.args, *work.keywords.values()]
    functions = [part for part in parts if callable(part) and not isinstance(part, type)]
    return list(dict.fromkeys(name for function in functions for name in modules_of(function)))


def _end_with_parent() -> None:
    """Ends this process as soon as its parent has ended, even in a long job."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
