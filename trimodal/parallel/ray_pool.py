"""Parallel work on a Ray cluster. Imported only if ``machine.executor`` is ray.

A job is one task on one core. The jobs of a lost node are rescheduled; a job whose worker crashes
goes to ``on_crash``, as on a single machine. This package is sent to the nodes with the work, so
all run the same code; its dependencies must be installed there.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trimodal.parallel.pool import ExecutorError, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")

_MAX_ATTEMPTS = 3  # for a job whose nodes or workers die
_CONNECT_SECONDS = 10.0
_CHECK_TIMEOUT_SECONDS = 120.0  # the first import of a package on a node is slow
_POLL_SECONDS = 5.0  # without a result, then the nodes are counted again
_TASKS_PER_CORE = 2  # so that no core waits for its next job


def map_on_ray(
    address: str,
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    shared_folder: bool,
    on_crash: Callable[[Job, WorkerError], Result] | None = None,
    preflight: Callable[[], str] | None = None,
) -> Iterator[Result]:
    """:func:`trimodal.parallel.pool.map_in_order` on the cluster: at most two tasks per core
    at a time, results in job order. Raises ExecutorError if the cluster cannot be reached, has a
    node that fails the ``preflight``, or loses its last node.
    """
    with _connected(address):
        folder = str(Path.cwd()) if shared_folder else ""
        _check_nodes(folder, preflight)
        submit = partial(ray.remote(num_cpus=1, max_retries=0)(_run_in_folder).remote, folder, work)
        waiting = enumerate(jobs)
        running: dict[Any, _Task[Job, Result]] = {}
        results: dict[int, Result] = {}
        next_number = 0
        try:
            while True:
                free_slots = max(1, _TASKS_PER_CORE * _num_cores()) - len(running)
                for number, job in islice(waiting, max(0, free_slots)):
                    running[submit(job)] = _Task(number, job)
                if not running:
                    return
                for reference in _finished(list(running)):
                    task = running.pop(reference)
                    if task.collect(reference, on_crash):
                        results[task.number] = task.result
                    else:
                        running[submit(task.job)] = task
                while next_number in results:
                    yield results.pop(next_number)
                    next_number += 1
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


class _Task(Generic[Job, Result]):
    """A running job, and how often it has been lost."""

    result: Result

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.job = number, job
        self._lost = 0

    def collect(
        self, reference: Any, on_crash: Callable[[Job, WorkerError], Result] | None
    ) -> bool:
        """Sets ``result``; False if the job was lost and must be resubmitted. Raises the job's own
        exception, or WorkerError if it was lost too often.
        """
        try:
            self.result = ray.get(reference)
        except RayTaskError as error:
            raise _job_error(error) from None
        except WorkerCrashedError:
            loss = WorkerError.on_other_machine()
            if on_crash:
                self.result = on_crash(self.job, loss)
                return True
        except (NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
            loss = WorkerError(None)
            loss.add_note(str(error))
        else:
            return True
        self._lost += 1
        if self._lost == _MAX_ATTEMPTS:
            raise loss
        return False


def _finished(references: list[Any]) -> list[Any]:
    """Waits for tasks that have ended."""
    while True:
        done, _ = ray.wait(references, timeout=_POLL_SECONDS)
        if done:
            return done
        if not _num_cores():
            raise ExecutorError(
                "the Ray cluster has no nodes left; add nodes and run dvc repro again"
            )


def _job_error(error: RayTaskError) -> Exception:
    cause = error.cause
    if not isinstance(cause, Exception):
        return error
    cause.add_note(f"On a node of the cluster:\n{error}")
    return cause


def _run_in_folder(folder: str, work: Callable[[Any], Any], job: Any) -> Any:
    """Runs a job in the repository's folder, so that relative paths are valid there."""
    if folder:
        os.chdir(folder)
    return work(job)


def _num_cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 0))


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connects to the cluster for the block; raises ExecutorError if it cannot be reached."""
    cluster = f"the Ray cluster at machine.ray_address {address}" if address else "a Ray cluster"
    try:
        if address:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address=address or "auto",
            runtime_env={"py_modules": [str(Path(__file__).parents[1])]},
            log_to_driver=False,
            configure_logging=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ExecutorError(
            f"{cluster} cannot be reached: {error}; start it (ray start --head) or set "
            "machine.executor to local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_nodes(folder: str, preflight: Callable[[], str] | None) -> None:
    """Runs ``preflight`` on every node; raises ExecutorError, naming the nodes with a problem."""
    check = ray.remote(num_cpus=0, max_retries=0)(_check_node)
    all_nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node for node in all_nodes if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise ExecutorError("the Ray cluster has no node with a CPU core")
    with NamedTemporaryFile(prefix=".", suffix=".tmp", dir=folder or None) as marker:
        marker_path = marker.name if folder else ""
        checks = {
            node["NodeManagerAddress"] + " " + node["NodeID"][:8]: check.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(marker_path, preflight)
            for node in nodes
        }
        problems = {node: _problem_on_node(reference) for node, reference in checks.items()}
    if messages := [f"node {node}: {problem}" for node, problem in problems.items() if problem]:
        raise ExecutorError(f"the Ray cluster cannot do this work: {'; '.join(messages)}")
    if all(problem is None for problem in problems.values()):
        raise ExecutorError(f"all {len(problems)} nodes of the Ray cluster have just died")


def _problem_on_node(reference: Any) -> str | None:
    """The message of a node's check, empty if it passed; None if the node has died."""
    try:
        problem: str = ray.get(reference, timeout=_CHECK_TIMEOUT_SECONDS)
    except GetTimeoutError:
        return f"no answer within {_CHECK_TIMEOUT_SECONDS:.0f} s"
    except RayTaskError as error:
        return str(_job_error(error))
    except (NodeDiedError, TaskUnschedulableError):
        return None
    except RayError as error:
        return str(error).splitlines()[0]
    return problem


def _check_node(marker_path: str, preflight: Callable[[], str] | None) -> str:
    """Runs on a node: says what is missing there, or returns an empty string."""
    if marker_path and not Path(marker_path).exists():
        return (
            f"does not see {Path(marker_path).parent}: put the repository where all nodes see it, "
            "or set machine.shared_folder to false and use URLs"
        )
    return preflight() if preflight else ""
