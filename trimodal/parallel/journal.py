"""A journal of finished shards, so that a later run reuses them.

Next to the shards, ``journal/<shard>.json`` records the inputs and the outcome of a shard. A shard
is still valid if its bytes are the recorded ones and all its inputs are unchanged: params, code,
and the input files by name, size and modification time (as with make; on an object store the shard
itself, too, is compared by size and entity tag). So a killed run resumes where it stopped, and
after a change only the affected shards are rebuilt. DVC ignores journals (.dvcignore): they are
specific to this disk.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trimodal.core.files import remove, temporary_folder, write_json
from trimodal.core.fingerprint import file_fingerprint, fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import log
from trimodal.core.shards import ShardResult
from trimodal.core.storage import file_state, is_remote, upload
from trimodal.parallel.executor import map_in_order
from trimodal.parallel.pool import WorkerError

FOLDER = "journal"
_RECORDED_FIELDS = ("rows", "left_out", "examples", "bytes")


class ShardJob(Protocol):
    """The unit of work, a dataclass: it describes the shard ``path``."""

    @property
    def path(self) -> Path: ...

    def inputs(self) -> Any:
        """The shard's inputs besides params and code, as JSON; input files by
        :func:`~trimodal.core.storage.file_state`.
        """


Job = TypeVar("Job", bound=ShardJob)


def make_shards(
    make: Callable[[Job], ShardResult],
    jobs: Sequence[Job],
    out_dir: Path,
    *,
    settings: Any,
    machine: MachineConfig,
    retryable: Collection[str] = (),
    on_crash: Callable[[Job, WorkerError], ShardResult] | None = None,
    preflight: Callable[[], str] | None = None,
) -> Iterator[ShardResult]:
    """Yields the shard of every job in job order: reused from an earlier run, or made by ``make``
    on ``machine``. ``settings`` (JSON) is everything that affects all shards: params and code. Any
    other file in ``out_dir`` is from another run and removed first. A shard from which something
    was left out for a ``retryable`` reason is rebuilt by the next run.

    ``on_crash``, for a job whose worker crashed, and ``preflight`` are those of
    :func:`~trimodal.parallel.executor.map_in_order`.
    """
    _remove_other_files(out_dir, {job.path.name for job in jobs})
    work = partial(_reuse_or_make, make, settings, retryable)
    make_after_crash = (
        partial(_make_after_crash, on_crash, settings, retryable) if on_crash else None
    )
    num_reused = 0
    for result in map_in_order(machine, work, jobs, on_crash=make_after_crash, preflight=preflight):
        num_reused += result.reused
        yield result
    if num_reused:
        log.info(f"{out_dir}: reused {num_reused} of {len(jobs)} shards from an earlier run")


def _reuse_or_make(
    make: Callable[[Job], ShardResult], settings: Any, retryable: Collection[str], job: Job
) -> ShardResult:
    key = _key(settings, job)
    return _recorded(job.path, key) or _make_and_record(make, job, key, retryable)


def _make_after_crash(
    on_crash: Callable[[Job, WorkerError], ShardResult],
    settings: Any,
    retryable: Collection[str],
    job: Job,
    error: WorkerError,
) -> ShardResult:
    make = partial(_with_error, on_crash, error)
    return _make_and_record(make, job, _key(settings, job), retryable)


def _with_error(
    on_crash: Callable[[Job, WorkerError], ShardResult], error: WorkerError, job: Job
) -> ShardResult:
    return on_crash(job, error)


def _key(settings: Any, job: ShardJob) -> str:
    return fingerprint({"settings": settings, "inputs": job.inputs()})


def _record_path(shard: Path) -> Path:
    return shard.parent / FOLDER / f"{shard.stem}.json"


def _make_and_record(
    make: Callable[[Job], ShardResult], job: Job, key: str, retryable: Collection[str]
) -> ShardResult:
    """Makes the shard, for an object store in a local folder first, then records it."""
    if not is_remote(job.path):
        result = make(job)
        state: Any = file_fingerprint(job.path)
    else:
        with temporary_folder() as folder:
            result = make(replace(job, path=folder / job.path.name))  # type: ignore[type-var]
            upload(folder / job.path.name, job.path)
        state = file_state(job.path)
    if result.left_out.keys().isdisjoint(retryable):
        recorded = {name: getattr(result, name) for name in _RECORDED_FIELDS}
        write_json(_record_path(job.path), {"key": key, "shard": state, **recorded})
    return result


def _recorded(shard: Path, key: str) -> ShardResult | None:
    """The recorded result of a shard that is still valid, else None."""
    try:
        record = json.loads(_record_path(shard).read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        state = file_state(shard) if is_remote(shard) else file_fingerprint(shard)
        if record["shard"] != state:
            return None
        fields = {name: record[name] for name in _RECORDED_FIELDS}
        return ShardResult(**(fields | {"left_out": Counter(record["left_out"])}), reused=True)
    except (OSError, ValueError, LookupError, TypeError):  # no record, or not of this version
        return None


def _remove_other_files(out_dir: Path, shards: Iterable[str]) -> None:
    shards = set(shards)
    records = {f"{Path(shard).stem}.json" for shard in shards}
    for path in out_dir.glob("*"):
        if path.name not in {FOLDER, *shards}:
            remove(path)
    for path in (out_dir / FOLDER).glob("*"):
        if path.name not in records:
            remove(path)
