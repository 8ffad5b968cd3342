"""Local clips: files, tars and zips in a folder, named by clip id."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from trimodal.core.archives import (
    ArchiveError,
    StoredFile,
    files_and_archives_in,
    is_archive,
    members_of,
)
from trimodal.core.machine import MachineConfig
from trimodal.core.machine_errors import ReadFailures, UnreadableError, reading, retried
from trimodal.core.manifest import ClipOutcome
from trimodal.core.progress import bar, log
from trimodal.core.records import RETRYABLE, Clip, ClipStatus, safe_name
from trimodal.download.probe import inspect
from trimodal.parallel.executor import map_in_order

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
_ScanJob = tuple[Path, Sequence[ClipOutcome]]  # a file or archive, and its earlier outcomes


@dataclass(frozen=True, kw_only=True)
class _ScanResult:
    """The outcomes of a file or archive; an archive's problem; whether this machine, not damage, is
    why more of its members may be unknown.
    """

    outcomes: list[ClipOutcome]
    problem: str = ""
    unreadable: bool = False


def find_local_clips(
    location: Path,
    clips: Sequence[Clip],
    earlier: Sequence[ClipOutcome],
    machine: MachineConfig,
) -> list[ClipOutcome]:
    """The outcome of every clip, in order, each searched for as ``<clip id>.mp4`` (or .mkv, .webm,
    .mov, .avi) in ``location``: a folder, the archives in it, or one archive.

    ``earlier`` outcomes are reused for files and archives that have not changed since, unless a
    retry may help. A broken archive is logged; the members before the damage are used. While an
    archive cannot be read, clips that are found nowhere are ``unreadable``, not ``unavailable``.
    Raises TooManyUnreadableError if this machine cannot read many files in a row.
    """
    clips_by_id = {clip.clip_id: clip for clip in clips}
    earlier_by_path: dict[str, list[ClipOutcome]] = {}
    for outcome in earlier:
        earlier_by_path.setdefault(outcome.path, []).append(outcome)
    outcome_of: dict[str, ClipOutcome] = {}
    repeated: Counter[str] = Counter()
    failures, unreadable = ReadFailures(), ""
    for result in _scan_all(location, clips_by_id, earlier_by_path, machine):
        for outcome in result.outcomes:
            if outcome_of.setdefault(outcome.clip.clip_id, outcome) is not outcome:
                repeated[outcome.clip.clip_id] += 1
            failures.record(outcome.reason if outcome.status == "unreadable" else "")
        if result.problem:
            log.info(f"download: {result.problem}")
        if result.unreadable:
            unreadable = result.problem
            failures.record(result.problem)
    if repeated:
        log.info(
            f"download: {location}: {len(repeated)} clips occur more than once; the first is used"
        )
    return [outcome_of.get(clip.clip_id) or _missing(clip, unreadable) for clip in clips]


def _missing(clip: Clip, unreadable_archive: str) -> ClipOutcome:
    if unreadable_archive:
        reason = f"found in no other file; {unreadable_archive}"
        return ClipOutcome(clip=clip, path="", status="unreadable", reason=reason)
    return ClipOutcome(clip=clip, path="", status="unavailable", reason="no such file")


def _scan_all(
    location: Path,
    clips_by_id: Mapping[str, Clip],
    earlier_by_path: Mapping[str, Sequence[ClipOutcome]],
    machine: MachineConfig,
) -> Iterator[_ScanResult]:
    jobs: dict[bool, list[_ScanJob]] = {False: [], True: []}
    for path in files_and_archives_in(location):
        if is_archive(path) or _clip_name(path.name) in clips_by_id:
            jobs[is_archive(path)].append((path, earlier_by_path.get(path.as_posix(), ())))
    scan = partial(_scan, clips_by_id)
    # An archive is read from start to end, which is worth a process; a file is only probed.
    results = chain(map(scan, jobs[False]), map_in_order(machine, scan, jobs[True]))
    total = len(jobs[False]) + len(jobs[True])
    yield from bar(results, task=f"scanning {location}", unit="files", total=total)


def _clip_name(file_name: str) -> str:
    """The clip id that a media file is named after (DiDeMo's and LSMDC's file names have characters
    that an id cannot have); empty for other files.
    """
    name = PurePosixPath(file_name)
    return safe_name(name.stem) if name.suffix.lower() in VIDEO_ENDINGS else ""


def _scan(clips_by_id: Mapping[str, Clip], job: _ScanJob) -> _ScanResult:
    path, earlier = job
    outcomes: list[ClipOutcome] = []
    try:
        retried(partial(_inspect_all, clips_by_id, path, earlier, outcomes))
    except ArchiveError as error:
        return _ScanResult(outcomes=outcomes, problem=str(error))
    except UnreadableError as error:
        if is_archive(path):
            return _ScanResult(outcomes=outcomes, problem=str(error), unreadable=True)
        clip = clips_by_id[_clip_name(path.name)]
        status: ClipStatus = "unavailable" if error.reason == "missing" else "unreadable"
        outcome = ClipOutcome(clip=clip, path=path.as_posix(), status=status, reason=str(error))
        return _ScanResult(outcomes=[outcome])
    return _ScanResult(outcomes=outcomes)


def _inspect_all(
    clips_by_id: Mapping[str, Clip],
    path: Path,
    earlier: Sequence[ClipOutcome],
    outcomes: list[ClipOutcome],
) -> None:
    """Fills ``outcomes`` with those of the clips in a file or archive; a second call reuses what
    the first one found.
    """
    with reading(path):
        updated_at = int(path.stat().st_mtime)
    reusable = {
        row.clip.clip_id: row
        for row in (*earlier, *outcomes)
        if row.updated_at == updated_at and row.status not in RETRYABLE
    }
    outcomes.clear()
    failures = ReadFailures()
    for file in members_of(path) if is_archive(path) else [StoredFile.plain(path)]:
        clip = clips_by_id.get(_clip_name(file.name))
        if clip is None:
            continue
        row = reusable.get(clip.clip_id)
        if row is None or row.clip != clip or row.file != file:
            row = inspect(clip, file, updated_at)
        outcomes.append(row)
        failures.record(row.reason if row.status == "unreadable" else "")
