"""Clips that one has: a folder of files, tars and zips, named as the annotation files name them."""

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
_Job = tuple[Path, Sequence[ClipOutcome]]
_Found = tuple[list[ClipOutcome], str]


def find_local_clips(
    place: Path,
    clips: Sequence[Clip],
    earlier: Sequence[ClipOutcome],
    machine: MachineConfig,
) -> list[ClipOutcome]:
    """The outcome of every clip, in their order, each looked for as ``<clip id>.mp4`` (or .mkv,
    .webm, .mov, .avi) in ``place``: a folder, the archives in it, or one archive.

    ``earlier`` outcomes hold for files and archives that have not changed since. A broken archive
    is named in the log; what it holds before its break is used.
    """
    wanted = {clip.clip_id: clip for clip in clips}
    known: dict[str, list[ClipOutcome]] = {}
    for outcome in earlier:
        known.setdefault(outcome.path, []).append(outcome)
    found: dict[str, ClipOutcome] = {}
    repeated: Counter[str] = Counter()
    for outcomes, problem in _looks(place, wanted, known, machine):
        for outcome in outcomes:
            if found.setdefault(outcome.clip.clip_id, outcome) is not outcome:
                repeated[outcome.clip.clip_id] += 1
        if problem:
            log.info(f"download: {problem}")
    if repeated:
        log.info(f"download: {place}: {len(repeated)} clips are there twice; the first is used")
    return [found.get(clip.clip_id) or _missing(clip) for clip in clips]


def _missing(clip: Clip) -> ClipOutcome:
    return ClipOutcome(clip=clip, path="", status="unavailable", reason="no such file")


def _looks(
    place: Path,
    wanted: Mapping[str, Clip],
    known: Mapping[str, Sequence[ClipOutcome]],
    machine: MachineConfig,
) -> Iterator[_Found]:
    jobs: dict[bool, list[_Job]] = {False: [], True: []}
    for path in files_and_archives_in(place):
        if is_archive(path) or _clip_name(path.name) in wanted:
            jobs[is_archive(path)].append((path, known.get(path.as_posix(), ())))
    look = partial(_look_into, wanted)
    # An archive is read from front to back and worth a process; a file is one glance.
    looks = chain(map(look, jobs[False]), map_in_order(machine, look, jobs[True]))
    total = len(jobs[False]) + len(jobs[True])
    yield from bar(looks, task=f"looking through {place}", unit="files", total=total)


def _clip_name(file_name: str) -> str:
    """The clip that a media file is named after; empty for another file."""
    name = PurePosixPath(file_name)
    return name.stem if name.suffix.lower() in _VIDEO_ENDINGS else ""


def _look_into(wanted: Mapping[str, Clip], job: _Job) -> _Found:
    path, known = job
    updated_at = int(path.stat().st_mtime)
    before = {row.clip.clip_id: row for row in known if row.updated_at == updated_at}
    outcomes: list[ClipOutcome] = []
    try:
        for file in members_of(path) if is_archive(path) else [StoredFile.plain(path)]:
            clip = wanted.get(_clip_name(file.name))
            if clip is None:
                continue
            row = before.get(clip.clip_id)
            if row is not None and row.clip == clip and row.file == file:
                outcomes.append(row)
            else:
                outcomes.append(inspect(clip, file, updated_at))
    except ArchiveError as error:
        return outcomes, str(error)
    return outcomes, ""
