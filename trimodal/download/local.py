"""Local clips: files, tars and zips in a folder, named by clip id."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from trimodal.core.manifest import ClipOutcome
from trimodal.core.progress import bar, log
from trimodal.core.records import Clip
from trimodal.download.probe import inspect
from trimodal.parallel.executor import map_in_order

_VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
_ScanJob = tuple[Path, Sequence[ClipOutcome]]  # a file or archive, and its earlier outcomes
_ScanResult = tuple[list[ClipOutcome], str]  # its outcomes, and its problem if it has one


def find_local_clips(
    location: Path,
    clips: Sequence[Clip],
    earlier: Sequence[ClipOutcome],
    machine: MachineConfig,
) -> list[ClipOutcome]:
    """The outcome of every clip, in order, each searched for as ``<clip id>.mp4`` (or .mkv, .webm,
    .mov, .avi) in ``location``: a folder, the archives in it, or one archive.

    ``earlier`` outcomes are reused for files and archives that have not changed since. A broken
    archive is logged; the members before the damage are used.
    """
    clips_by_id = {clip.clip_id: clip for clip in clips}
    earlier_by_path: dict[str, list[ClipOutcome]] = {}
    for outcome in earlier:
        earlier_by_path.setdefault(outcome.path, []).append(outcome)
    outcome_of: dict[str, ClipOutcome] = {}
    repeated: Counter[str] = Counter()
    for outcomes, problem in _scan_all(location, clips_by_id, earlier_by_path, machine):
        for outcome in outcomes:
            if outcome_of.setdefault(outcome.clip.clip_id, outcome) is not outcome:
                repeated[outcome.clip.clip_id] += 1
        if problem:
            log.info(f"download: {problem}")
    if repeated:
        log.info(
            f"download: {location}: {len(repeated)} clips occur more than once; the first is used"
        )
    return [outcome_of.get(clip.clip_id) or _missing(clip) for clip in clips]


def _missing(clip: Clip) -> ClipOutcome:
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
    """The clip id that a media file is named after; empty for other files."""
    name = PurePosixPath(file_name)
    return name.stem if name.suffix.lower() in _VIDEO_ENDINGS else ""


def _scan(clips_by_id: Mapping[str, Clip], job: _ScanJob) -> _ScanResult:
    path, earlier = job
    updated_at = int(path.stat().st_mtime)
    reusable = {row.clip.clip_id: row for row in earlier if row.updated_at == updated_at}
    outcomes: list[ClipOutcome] = []
    try:
        for file in members_of(path) if is_archive(path) else [StoredFile.plain(path)]:
            clip = clips_by_id.get(_clip_name(file.name))
            if clip is None:
                continue
            row = reusable.get(clip.clip_id)
            if row is not None and row.clip == clip and row.file == file:
                outcomes.append(row)
            else:
                outcomes.append(inspect(clip, file, updated_at))
    except ArchiveError as error:
        return outcomes, str(error)
    return outcomes, ""
