"""Shards that are made once: what an earlier run has finished is found again.

Beside the shards, ``journal/<shard>.json`` says what a shard was made of and what came of it. It
holds if the shard's bytes are those that it names and all it was made of is as it was: params,
code, and the input files by name, size and time (as make knows them; so is a shard on an object
store). So a run that was killed goes
on where it stopped, and after a change only the shards that it touches are made again. DVC ignores
journals (.dvcignore): they are of this disk.
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


_NOTED = ("rows", "left_out", "examples", "bytes")


class ShardJob(Protocol):
    """The unit of work, a dataclass: what becomes the shard ``path``."""

    @property
    def path(self) -> Path: ...

    def made_of(self) -> Any:
        """What the shard is made of besides params and code, as JSON; the input files by
        :func:`file_state`.
        """


Job = TypeVar("Job", bound=ShardJob)


def make_shards(
    make: Callable[[Job], ShardResult],
    jobs: Sequence[Job],
    out_dir: Path,
    *,
    form: Any,
    machine: MachineConfig,
    retryable: Collection[str] = (),
    on_crash: Callable[[Job, WorkerError], ShardResult] | None = None,
    preflight: Callable[[], str] | None = None,
) -> Iterator[ShardResult]:
    """Every job's shard in ``out_dir``, in the jobs' order: found finished, or made now by ``make``
    on ``machine``. ``form`` (JSON) is all that shapes a shard
    besides its own files: params and code. Whatever else lies in ``out_dir`` is of another run and
    removed first. A shard that lacks something for a reason that ``retryable`` is made again by the
    next run.

    ``on_crash``, for a job whose worker crashed, and ``preflight`` are
    :func:`~trimodal.parallel.executor.map_in_order`'s.
    """
    _clear(out_dir, {job.path.name for job in jobs})
    work = partial(_find_or_make, make, form, retryable)
    mend = partial(_after_crash, on_crash, form, retryable) if on_crash else None
    found = 0
    for done in map_in_order(machine, work, jobs, on_crash=mend, preflight=preflight):
        found += done.found
        yield done
    if found:
        log.info(f"{out_dir}: {found} of {len(jobs)} shards were finished by an earlier run")


def _find_or_make(
    make: Callable[[Job], ShardResult], form: Any, retryable: Collection[str], job: Job
) -> ShardResult:
    key = _key(form, job)
    return _found(job.path, key) or _made(make, job, key, retryable)


def _after_crash(
    on_crash: Callable[[Job, WorkerError], ShardResult],
    form: Any,
    retryable: Collection[str],
    job: Job,
    error: WorkerError,
) -> ShardResult:
    return _made(partial(_called_with, on_crash, error), job, _key(form, job), retryable)


def _key(form: Any, job: ShardJob) -> str:
    return fingerprint({"form": form, "made_of": job.made_of()})


def _note_path(shard: Path) -> Path:
    return shard.parent / FOLDER / f"{shard.stem}.json"


def _called_with(
    on_crash: Callable[[Job, WorkerError], ShardResult], error: WorkerError, job: Job
) -> ShardResult:
    return on_crash(job, error)


def _made(
    make: Callable[[Job], ShardResult], job: Job, key: str, retryable: Collection[str]
) -> ShardResult:
    """Makes the shard and notes it, the note last; for an object store, here first."""
    if not is_remote(job.path):
        done = make(job)
        state: Any = file_fingerprint(job.path)
    else:
        with temporary_folder() as folder:
            done = make(replace(job, path=folder / job.path.name))  # type: ignore[type-var]
            upload(folder / job.path.name, job.path)
        state = file_state(job.path)
    if done.left_out.keys().isdisjoint(retryable):
        facts = {name: getattr(done, name) for name in _NOTED}
        write_json(_note_path(job.path), {"key": key, "shard": state, **facts})
    return done


def _found(shard: Path, key: str) -> ShardResult | None:
    try:
        note = json.loads(_note_path(shard).read_text(encoding="utf-8"))
        if note["key"] != key:
            return None
        state = file_state(shard) if is_remote(shard) else file_fingerprint(shard)
        if note["shard"] != state:
            return None
        facts = {name: note[name] for name in _NOTED}
        return ShardResult(**(facts | {"left_out": Counter(note["left_out"])}), found=True)
    except (OSError, ValueError, LookupError, TypeError):  # no note, or none of this version
        return None


def _clear(out_dir: Path, shards: Iterable[str]) -> None:
    shards = set(shards)
    notes = {f"{Path(shard).stem}.json" for shard in shards}
    for path in out_dir.glob("*"):
        if path.name not in {FOLDER, *shards}:
            remove(path)
    for path in (out_dir / FOLDER).glob("*"):
        if path.name not in notes:
            remove(path)
