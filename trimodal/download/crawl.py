"""Fetches many clips from YouTube: workers, a ledger on disk, and a circuit breaker."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from threading import Lock

from trimodal.core.archives import StoredFile
from trimodal.core.files import remove_leftovers
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import MachineConfig, YoutubeAccess
from trimodal.core.machine_errors import ReadFailures, UnreadableError, reading, retried
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.progress import bar, counter, log
from trimodal.core.records import RETRYABLE, Clip, DataError
from trimodal.download.earlier import read_earlier_manifest
from trimodal.download.probe import inspect
from trimodal.download.youtube import FetchError, YoutubeConfig, fetch_clip
from trimodal.media.container import missing_media_tools
from trimodal.parallel.executor import map_in_order

_CLIPS_PER_LEDGER_WRITE = 256


def crawl(
    config: YoutubeConfig, clips: Sequence[Clip], folder: Path, machine: MachineConfig
) -> list[ClipOutcome]:
    """Fetches missing clips into ``folder`` and returns every clip's outcome, in order.

    ``folder/ledger.parquet`` keeps all outcomes across runs. It is written every 256 clips, and
    outcomes since then are in ``since.jsonl``: a clip that was fetched, or is gone for good, is
    never requested again, even after a kill; one with a retryable status is, and one whose file is
    not the one that was fetched.
    Raises DataError, with the ledger written, when the circuit breaker opens; clips not requested
    by then have no outcome yet.
    """
    ledger_path = folder / "ledger.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    crawl_state = {row.clip.clip_id: row for row in read_earlier_manifest(ledger_path)}
    since_path = folder / "since.jsonl"
    crawl_state |= _read_since(since_path, clips)
    finished = _all_finished(clips, crawl_state, folder, machine)
    crawl_state |= finished
    _write_ledger(ledger_path, crawl_state, since_path)
    pending = [clip for clip in clips if clip.clip_id not in finished]
    breaker = CircuitBreaker(machine.youtube.stop_after)
    with counter(task="fetching from YouTube", unit="clips", total=len(pending)) as progress:
        for start in range(0, len(pending), _CLIPS_PER_LEDGER_WRITE):
            batch = pending[start : start + _CLIPS_PER_LEDGER_WRITE]
            try:
                with since_path.open("a", encoding="utf-8") as since:
                    for outcome in _fetch_all(config, batch, crawl_state, folder, breaker, machine):
                        crawl_state[outcome.clip.clip_id] = outcome
                        since.write(json.dumps(asdict(outcome)) + "\n")
                        since.flush()
                        progress.update()
            finally:
                _write_ledger(ledger_path, crawl_state, since_path)
            if breaker.reason:
                raise DataError(f"download: {breaker.reason}")
    return [crawl_state[clip.clip_id] for clip in clips]


def _read_since(path: Path, clips: Sequence[Clip]) -> dict[str, ClipOutcome]:
    """The outcomes since the last write of the ledger; a kill may leave a partial last line."""
    clips_by_id = {clip.clip_id: clip for clip in clips}
    outcomes: dict[str, ClipOutcome] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                row = json.loads(line)
                clip = clips_by_id[row.pop("clip")["clip_id"]]
                outcomes[clip.clip_id] = ClipOutcome(clip=clip, **row)
    return outcomes


def _write_ledger(path: Path, crawl_state: Mapping[str, ClipOutcome], since: Path) -> None:
    write_manifest(path, list(crawl_state.values()))
    since.unlink(missing_ok=True)


def _fetch_all(
    config: YoutubeConfig,
    clips: Sequence[Clip],
    crawl_state: Mapping[str, ClipOutcome],
    folder: Path,
    breaker: "CircuitBreaker",
    machine: MachineConfig,
) -> Iterator[ClipOutcome]:
    """Yields outcomes as they arrive; once the breaker is open, only those of clips in progress."""
    if machine.executor == "ray":
        jobs = [(clip, crawl_state.get(clip.clip_id)) for clip in clips]
        work = partial(_fetch_job, config, machine.youtube, folder)
        for outcome in map_in_order(machine, work, jobs, preflight=missing_media_tools):
            breaker.record(outcome)
            yield outcome
            if breaker.reason:
                return
        return

    def fetch(clip: Clip) -> ClipOutcome | None:
        if breaker.reason:
            return None
        result = _fetch(config, machine.youtube, clip, crawl_state.get(clip.clip_id), folder)
        breaker.record(result)
        return result

    with ThreadPoolExecutor(machine.youtube.workers) as pool:
        for future in as_completed([pool.submit(fetch, clip) for clip in clips]):
            if result := future.result():
                yield result


def _fetch_job(
    config: YoutubeConfig,
    access: YoutubeAccess,
    folder: Path,
    job: tuple[Clip, ClipOutcome | None],
) -> ClipOutcome:
    return _fetch(config, access, *job, folder)


def _all_finished(
    clips: Sequence[Clip],
    crawl_state: Mapping[str, ClipOutcome],
    folder: Path,
    machine: MachineConfig,
) -> dict[str, ClipOutcome]:
    """The outcomes of the clips that need not be requested. Every clip on disk is read, to compare
    it with the ledger; a damaged one is fetched anew.
    """
    finished: dict[str, ClipOutcome] = {}
    failures, damaged = ReadFailures(), []
    with ThreadPoolExecutor(machine.workers) as pool:
        rows = pool.map(partial(_finished, crawl_state, folder), clips)
        checked = zip(clips, rows, strict=True)
        for clip, row in bar(checked, task="checking clips", unit="clips", total=len(clips)):
            failures.record(row.reason if row and row.status == "unreadable" else "")
            if row:
                finished[clip.clip_id] = row
            elif (folder / f"{clip.clip_id}.mp4").exists():
                damaged.append(clip.clip_id)
    if damaged:
        log.info(
            f"download: {folder}: {len(damaged)} clips are damaged and fetched anew, "
            f"e.g. {damaged[0]}"
        )
    return finished


def _finished(
    crawl_state: Mapping[str, ClipOutcome], folder: Path, clip: Clip
) -> ClipOutcome | None:
    """The outcome of a clip that need not be requested; None for another clip."""
    row = crawl_state.get(clip.clip_id)
    path = folder / f"{clip.clip_id}.mp4"
    gone_for_good = row is not None and row.status != "ok" and row.status not in RETRYABLE
    if not path.exists():
        return replace(row, clip=clip) if row and gone_for_good else None
    outcome = _inspected(clip, path, row)
    if outcome.status == "unreadable":
        return outcome
    if row and row.fingerprint not in ("", outcome.fingerprint):  # not the file that was fetched
        return replace(row, clip=clip) if gone_for_good else None
    return None if outcome.status in ("corrupt", "no_video") else outcome


def _content(path: Path) -> tuple[str, int]:
    with reading(path):
        return file_fingerprint(path), int(path.stat().st_mtime)


def _inspected(clip: Clip, path: Path, previous: ClipOutcome | None) -> ClipOutcome:
    """The outcome of a clip on disk; ``previous`` is reused if it is of the same content."""
    attempts = previous.attempts if previous else 1
    try:
        fingerprint, updated_at = retried(partial(_content, path))
    except UnreadableError as error:
        return ClipOutcome(
            clip=clip, path=path.as_posix(), status="unreadable", reason=str(error),
            attempts=attempts, fingerprint=previous.fingerprint if previous else "",
        )  # fmt: skip
    if previous and previous.status == "ok" and previous.fingerprint == fingerprint:
        return replace(previous, clip=clip, updated_at=updated_at)
    outcome = inspect(clip, StoredFile.plain(path), updated_at, attempts=attempts)
    return replace(outcome, fingerprint=fingerprint)


def _fetch(
    config: YoutubeConfig,
    access: YoutubeAccess,
    clip: Clip,
    previous: ClipOutcome | None,
    folder: Path,
) -> ClipOutcome:
    attempts = previous.attempts + 1 if previous else 1
    path = folder / f"{clip.clip_id}.mp4"
    try:
        fetch_clip(config, access, clip, path)
    except FetchError as error:
        return ClipOutcome(
            clip=clip, path="", status=error.status, reason=str(error), attempts=attempts,
            fingerprint=previous.fingerprint if previous else "",
        )  # fmt: skip
    outcome = _inspected(clip, path, None)
    return replace(outcome, attempts=attempts)


class CircuitBreaker:
    """Opens, with a ``reason``, when YouTube blocks this machine or the network is down."""

    def __init__(self, stop_after: int) -> None:
        self.reason = ""
        self._stop_after = stop_after
        self._failures = 0
        self._lock = Lock()

    def record(self, outcome: ClipOutcome) -> None:
        """Counts an outcome. Thread-safe."""
        with self._lock:
            if outcome.status not in RETRYABLE:
                self._failures = 0
            elif (
                outcome.attempts == 1
            ):  # a clip that already failed in an earlier run does not count
                self._failures += 1
            if outcome.status in ("bot_check", "rate_limited"):
                self.reason = (
                    f"YouTube refuses this machine ({outcome.status}: {outcome.reason}). Clips "
                    "fetched so far are kept. Wait some hours, raise "
                    "machine.youtube.pause_seconds, lower machine.youtube.workers or set "
                    "machine.youtube.cookies_file; then run dvc repro again"
                )
            elif self._failures >= self._stop_after and not self.reason:
                self.reason = (
                    f"{self._failures} clips in a row failed (the last: "
                    f"{outcome.reason}). Clips fetched so far are kept; run dvc repro again when "
                    "the connection is back"
                )
