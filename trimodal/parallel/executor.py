"""Where the work on media is done: on this machine or on a Ray cluster (section ``engine``)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from trimodal.parallel import pool as workers
from trimodal.parallel.pool import EngineError, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Section ``engine``: who makes the parts of download, extract and captions; their results do
    not depend on it. ``address`` is that of a Ray cluster's head (``host:port``), or empty for the
    cluster that this machine is part of. With ``shared_folder`` its nodes see this repository where
    this machine does; without, all media and shards must be at URLs (:mod:`trimodal.core.storage`).
    """

    kind: Literal["local", "ray"]
    address: str
    shared_folder: bool


LOCAL = EngineConfig(kind="local", address="", shared_folder=True)


def map_in_order(
    engine: EngineConfig,
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers_here: int,
    *,
    rescue: Callable[[Job, WorkerError], Result] | None = None,
    lacking: Callable[[], str] | None = None,
) -> Iterator[Result]:
    """:func:`trimodal.parallel.pool.map_in_order` in ``workers_here`` processes of this machine, or
    on all cores of the Ray cluster. There a job may be done twice (a node died), so it must be
    idempotent; ``lacking`` is called on each node first and says what the work would miss there.

    Raises EngineError for a cluster that cannot be used.
    """
    if engine.kind == "local":
        yield from workers.map_in_order(work, jobs, workers_here, rescue=rescue)
        return
    try:
        from trimodal.parallel.ray_pool import map_on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise EngineError(
            "engine.kind is ray, but Ray is not installed here: pip install 'trimodal[ray]'"
        ) from error
    yield from map_on_ray(
        engine.address,
        work,
        jobs,
        shared_folder=engine.shared_folder,
        rescue=rescue,
        lacking=lacking,
    )
