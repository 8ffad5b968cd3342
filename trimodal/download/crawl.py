"""Asking YouTube for many clips: workers, a ledger on disk, and a breaker that stops in time."""

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
from trimodal.core.machine import MachineConfig, YoutubeAccess
from trimodal.core.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.core.progress import counter
from trimodal.core.records import RETRYABLE, Clip, DataError
from trimodal.download.probe import inspect
from trimodal.download.youtube import FetchError, YoutubeConfig, fetch_clip
from trimodal.media.container import missing_media_tools
from trimodal.parallel.executor import map_in_order

_CLIPS_BETWEEN_LEDGERS = 256


def crawl(
    config: YoutubeConfig, clips: Sequence[Clip], folder: Path, machine: MachineConfig
) -> list[ClipOutcome]:
    """Fetches into ``folder`` what is not there yet and returns every clip's outcome, in order.

    ``folder/ledger.parquet`` keeps all outcomes over runs and is written every 256 clips, what came
    since then is in ``since.jsonl`` beside it: a clip that was fetched, or that is gone for good,
    is never asked for again, also if the run is killed; what may heal is.
    Raises DataError, with the ledger written, when the breaker opens: clips that were not asked
    for then have no outcome yet.
    """
    ledger_path = folder / "ledger.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    ledger: dict[str, ClipOutcome] = {}
    if ledger_path.exists():
        ledger = {row.clip.clip_id: row for row in read_manifest(ledger_path)}
    since_path = folder / "since.jsonl"
    ledger |= _since(since_path, clips)
    settled = {clip.clip_id: row for clip in clips if (row := _settled(clip, ledger, folder))}
    ledger |= settled
    _settle(ledger_path, ledger, since_path)
    todo = [clip for clip in clips if clip.clip_id not in settled]
    breaker = _Breaker(machine.youtube.stop_after)
    with counter(task="asking YouTube", unit="clips", total=len(todo)) as progress:
        for start in range(0, len(todo), _CLIPS_BETWEEN_LEDGERS):
            batch = todo[start : start + _CLIPS_BETWEEN_LEDGERS]
            try:
                with since_path.open("a", encoding="utf-8") as since:
                    for outcome in _ask_all(config, batch, ledger, folder, breaker, machine):
                        ledger[outcome.clip.clip_id] = outcome
                        since.write(json.dumps(asdict(outcome)) + "\n")
                        since.flush()
                        progress.update()
            finally:
                _settle(ledger_path, ledger, since_path)
            if breaker.why:
                raise DataError(f"download: {breaker.why}")
    return [ledger[clip.clip_id] for clip in clips]


def _since(path: Path, clips: Sequence[Clip]) -> dict[str, ClipOutcome]:
    """What a killed run had noted; its last line may be cut."""
    wanted = {clip.clip_id: clip for clip in clips}
    found: dict[str, ClipOutcome] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                row = json.loads(line)
                clip = wanted[row.pop("clip")["clip_id"]]
                found[clip.clip_id] = ClipOutcome(clip=clip, **row)
    return found


def _settle(path: Path, ledger: Mapping[str, ClipOutcome], since: Path) -> None:
    write_manifest(path, list(ledger.values()))
    since.unlink(missing_ok=True)


def _ask_all(
    config: YoutubeConfig,
    clips: Sequence[Clip],
    ledger: Mapping[str, ClipOutcome],
    folder: Path,
    breaker: "_Breaker",
    machine: MachineConfig,
) -> Iterator[ClipOutcome]:
    """Outcomes as they come; after the breaker has opened, only of the clips already begun."""
    if machine.executor == "ray":
        askings = [(clip, ledger.get(clip.clip_id)) for clip in clips]
        work = partial(_ask_for, config, machine.youtube, folder)
        for told in map_in_order(machine, work, askings, preflight=missing_media_tools):
            breaker.note(told)
            yield told
            if breaker.why:
                return
        return

    def ask(clip: Clip) -> ClipOutcome | None:
        if breaker.why:
            return None
        outcome = _ask(config, machine.youtube, clip, ledger.get(clip.clip_id), folder)
        breaker.note(outcome)
        return outcome

    with ThreadPoolExecutor(machine.youtube.workers) as pool:
        for future in as_completed([pool.submit(ask, clip) for clip in clips]):
            if outcome := future.result():
                yield outcome


def _ask_for(
    config: YoutubeConfig,
    access: YoutubeAccess,
    folder: Path,
    asking: tuple[Clip, ClipOutcome | None],
) -> ClipOutcome:
    return _ask(config, access, *asking, folder)


def _settled(clip: Clip, ledger: Mapping[str, ClipOutcome], folder: Path) -> ClipOutcome | None:
    """The outcome of a clip that need not be asked for."""
    row = ledger.get(clip.clip_id)
    path = folder / f"{clip.clip_id}.mp4"
    if path.exists():
        state = path.stat()
        if row and (row.status, row.bytes, row.updated_at) == (
            "ok", state.st_size, int(state.st_mtime),
        ):  # fmt: skip
            return replace(row, clip=clip)
        return _inspected(clip, path, row.attempts if row else 1)
    if row and row.status != "ok" and row.status not in RETRYABLE:
        return replace(row, clip=clip)
    return None


def _inspected(clip: Clip, path: Path, attempts: int) -> ClipOutcome:
    updated_at = int(path.stat().st_mtime)
    return inspect(clip, StoredFile.plain(path), updated_at, attempts=attempts)


def _ask(
    config: YoutubeConfig,
    access: YoutubeAccess,
    clip: Clip,
    before: ClipOutcome | None,
    folder: Path,
) -> ClipOutcome:
    attempts = before.attempts + 1 if before else 1
    path = folder / f"{clip.clip_id}.mp4"
    try:
        fetch_clip(config, access, clip, path)
    except FetchError as error:
        return ClipOutcome(
            clip=clip, path="", status=error.status, reason=str(error), attempts=attempts
        )
    return _inspected(clip, path, attempts)


class _Breaker:
    """Says, once ``why`` is not empty, that going on would only make things worse."""

    def __init__(self, stop_after: int) -> None:
        self.why = ""
        self._stop_after = stop_after
        self._failures = 0
        self._lock = Lock()

    def note(self, outcome: ClipOutcome) -> None:
        """Counts an outcome, from any worker."""
        with self._lock:
            if outcome.status not in RETRYABLE:
                self._failures = 0
            elif outcome.attempts == 1:  # one that failed in an earlier run too proves nothing
                self._failures += 1
            if outcome.status in ("bot_check", "rate_limited"):
                self.why = (
                    f"YouTube refuses this machine ({outcome.status}: {outcome.reason}). What "
                    "came so far is kept. Wait some hours, raise machine.youtube.pause_seconds, "
                    "lower machine.youtube.workers or set machine.youtube.cookies_file; then run "
                    "dvc repro again"
                )
            elif self._failures >= self._stop_after and not self.why:
                self.why = (
                    f"{self._failures} clips in a row did not come through the network (the last: "
                    f"{outcome.reason}). What came so far is kept; run dvc repro again when the "
                    "connection is back"
                )
