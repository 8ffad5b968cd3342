"""Runs jobs on this machine or on a Ray cluster (section ``machine``)."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from trimodal.core.machine import MachineConfig
from trimodal.parallel import pool
from trimodal.parallel.pool import ExecutorError, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_order(
    machine: MachineConfig,
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    on_crash: Callable[[Job, WorkerError], Result] | None = None,
    preflight: Callable[[], str] | None = None,
) -> Iterator[Result]:
    """Applies a picklable function to jobs on ``machine``; yields results in job order.

    Locally it is :func:`trimodal.parallel.pool.map_in_order`. On a Ray cluster a job may run twice
    (if a node dies), so it must be idempotent; ``preflight`` is called on each node first and
    returns what is missing there, or an empty string.

    Raises ExecutorError if the cluster cannot be used.
    """
    if machine.executor == "local":
        yield from pool.map_in_order(work, jobs, machine.workers, on_crash=on_crash)
        return
    try:
        from trimodal.parallel.ray_pool import map_on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ExecutorError(
            "machine.executor is ray, but Ray is not installed here: pip install 'trimodal[ray]'"
        ) from error
    yield from map_on_ray(
        machine.ray_address,
        work,
        jobs,
        shared_folder=machine.shared_folder,
        on_crash=on_crash,
        preflight=preflight,
    )
