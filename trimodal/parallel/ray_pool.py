"""Work on a Ray cluster, results in order. Imported only where ``machine.executor`` is ray.

A job is one task on one core. What a lost node was doing is done elsewhere; a job whose worker
crashes goes to ``on_crash``, as with the workers of one machine. This package travels to the nodes
with the work, so all run the same code; the packages it needs must be installed there.
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

_ATTEMPTS = 3  # of a job whose nodes or workers die
_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 120.0  # for a node's look at itself: its first import of a package takes long
_NEWS_SECONDS = 5.0  # without a result before the nodes are counted again
_TASKS_A_CORE = 2  # so that no core waits for its next job


def map_on_ray(
    address: str,
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    shared_folder: bool,
    on_crash: Callable[[Job, WorkerError], Result] | None = None,
    preflight: Callable[[], str] | None = None,
) -> Iterator[Result]:
    """:func:`trimodal.parallel.pool.map_in_order` on the cluster: at most two tasks a core at a
    time, results in job order. Raises ExecutorError for a cluster that is not there, has a node
    without what the work needs, or loses its last node.
    """
    with _connected(address):
        folder = str(Path.cwd()) if shared_folder else ""
        _check_nodes(folder, preflight)
        begin = partial(ray.remote(num_cpus=1, max_retries=0)(_in_folder).remote, folder, work)
        waiting = enumerate(jobs)
        running: dict[Any, _Task[Job, Result]] = {}
        results: dict[int, Result] = {}
        next_due = 0
        try:
            while True:
                room = max(1, _TASKS_A_CORE * _cores()) - len(running)
                for number, job in islice(waiting, max(0, room)):
                    running[begin(job)] = _Task(number, job)
                if not running:
                    return
                for reference in _ready(list(running)):
                    task = running.pop(reference)
                    if task.settled(reference, on_crash):
                        results[task.number] = task.result
                    else:
                        running[begin(task.job)] = task
                while next_due in results:
                    yield results.pop(next_due)
                    next_due += 1
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


class _Task(Generic[Job, Result]):
    """A job under way, and how often it has been lost."""

    result: Result

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.job = number, job
        self._lost = 0

    def settled(
        self, reference: Any, on_crash: Callable[[Job, WorkerError], Result] | None
    ) -> bool:
        """Sets ``result``; False if the job was lost and must be done again. Raises the job's own
        exception, and WorkerError if it is lost for good.
        """
        try:
            self.result = ray.get(reference)
        except RayTaskError as error:
            raise _own_error(error) from None
        except WorkerCrashedError:
            loss = WorkerError.unseen_crash()
            if on_crash:
                self.result = on_crash(self.job, loss)
                return True
        except (NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
            loss = WorkerError(None)
            loss.add_note(str(error))
        else:
            return True
        self._lost += 1
        if self._lost == _ATTEMPTS:
            raise loss
        return False


def _ready(references: list[Any]) -> list[Any]:
    """The tasks that have ended; waits for one."""
    while True:
        done, _ = ray.wait(references, timeout=_NEWS_SECONDS)
        if done:
            return done
        if not _cores():
            raise ExecutorError("the Ray cluster has no node left; run dvc repro again when it has")


def _own_error(error: RayTaskError) -> Exception:
    cause = error.cause
    if not isinstance(cause, Exception):
        return error
    cause.add_note(f"On a node of the cluster:\n{error}")
    return cause


def _in_folder(folder: str, work: Callable[[Any], Any], job: Any) -> Any:
    """What a task does: the work, where the paths of this repository mean what they mean here."""
    if folder:
        os.chdir(folder)
    return work(job)


def _cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 0))


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connected to the cluster while the block lasts; raises ExecutorError if it is not there."""
    where = f"the Ray cluster at machine.ray_address {address}" if address else "a Ray cluster"
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
            f"{where} cannot be reached: {error}; start it (ray start --head) or set "
            "machine.executor to local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_nodes(folder: str, preflight: Callable[[], str] | None) -> None:
    """Lets every node look whether it has what the work needs; raises ExecutorError, naming those
    that have not.
    """
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node for node in known if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise ExecutorError("the Ray cluster has no node with a core to work on")
    with NamedTemporaryFile(prefix=".", suffix=".tmp", dir=folder or None) as mark:
        name = mark.name if folder else ""
        looks = {
            node["NodeManagerAddress"] + " " + node["NodeID"][:8]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(name, preflight)
            for node in nodes
        }
        answers = {node: _answer(reference) for node, reference in looks.items()}
    if told := [f"node {node}: {problem}" for node, problem in answers.items() if problem]:
        raise ExecutorError(f"the Ray cluster cannot do this work: {'; '.join(told)}")
    if all(answer is None for answer in answers.values()):
        raise ExecutorError(f"all {len(answers)} nodes of the Ray cluster have just died")


def _answer(reference: Any) -> str | None:
    """What a node lacks, in words; None if it is no more, and so will get no work."""
    try:
        problem: str = ray.get(reference, timeout=_LOOK_SECONDS)
    except GetTimeoutError:
        return f"has not answered in {_LOOK_SECONDS:.0f} s"
    except RayTaskError as error:
        return str(_own_error(error))
    except (NodeDiedError, TaskUnschedulableError):
        return None
    except RayError as error:
        return str(error).splitlines()[0]
    return problem


def _look(mark: str, preflight: Callable[[], str] | None) -> str:
    """What a node lacks, or nothing."""
    if mark and not Path(mark).exists():
        return (
            f"does not see {Path(mark).parent}: put the repository where all nodes see it, or set "
            "machine.shared_folder to false and use URLs"
        )
    return preflight() if preflight else ""
