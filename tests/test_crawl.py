"""Many clips from a server: the ledger across runs, and the circuit breaker."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import video_server as serve
from configs import MACHINE, config_for_tests
from data_fixtures import write_clip
from video_server import VideoServer

from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import read_manifest
from trimodal.core.records import Clip, DataError
from trimodal.download import crawl as module
from trimodal.download.crawl import crawl
from trimodal.download.youtube import YoutubeConfig

NAMES = [f"video{number:06d}" for number in range(6)]
CLIPS = [
    Clip(clip_id=f"{name}_000001", source="vggsound", split="train", label="a dog")
    for name in NAMES
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    first, *others = (folder / f"{name}.mp4" for name in NAMES)
    write_clip(first, seconds=12.0)
    for other in others:
        other.hardlink_to(first)
    return folder


@pytest.fixture
def server(served: Path) -> Iterator[VideoServer]:
    with serve.running(served) as running:
        yield running


@pytest.fixture
def config(server: VideoServer) -> YoutubeConfig:
    return config_for_tests(YoutubeConfig, page=server.page)


def machine_with(**changes: Any) -> MachineConfig:
    """YouTube access with one worker, no pauses and no retries, except for these changes."""
    access = {
        "workers": 1, "pause_seconds": 0.0, "retries": 0, "backoff_seconds": 0.0,
        "stall_seconds": 1.0, "clip_timeout_seconds": 30.0, "stop_after": 3,
    }  # fmt: skip
    return replace(MACHINE, youtube=replace(MACHINE.youtube, **(access | changes)))


ONE_WORKER = machine_with()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clips" / "youtube"


def test_every_clip_has_an_outcome_in_the_requested_order(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses[NAMES[1]] = serve.status(404)
    server.responses[NAMES[3]] = serve.status(500)
    outcomes = crawl(config, CLIPS, folder, machine_with(workers=3))
    assert [outcome.clip for outcome in outcomes] == CLIPS
    statuses = [outcome.status for outcome in outcomes]
    assert statuses == ["ok", "unavailable", "ok", "network", "ok", "ok"]
    assert outcomes[0].path == (folder / f"{CLIPS[0].clip_id}.mp4").as_posix()
    assert outcomes[0].duration_s == pytest.approx(10.0, abs=0.3)
    assert outcomes[0].has_audio
    assert "404" in outcomes[1].reason


def test_a_second_run_requests_only_what_is_retryable(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses[NAMES[1]] = serve.status(404)
    server.responses[NAMES[3]] = serve.status(500)
    server.responses[NAMES[4]] = serve.html_as_mp4
    crawl(config, CLIPS, folder, ONE_WORKER)
    server.requests.clear()
    server.responses.clear()  # all succeed now, also the one that was gone for good
    outcomes = crawl(config, CLIPS, folder, ONE_WORKER)
    assert set(server.requests) == {NAMES[3], NAMES[4]}
    assert [o.status for o in outcomes] == ["ok", "unavailable", "ok", "ok", "ok", "ok"]
    assert [o.attempts for o in outcomes] == [1, 1, 1, 2, 2, 1]


def test_a_run_with_nothing_left_to_do_leaves_the_same_ledger(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    first = crawl(config, CLIPS, folder, ONE_WORKER)
    before = (folder / "ledger.parquet").read_bytes()
    server.requests.clear()
    assert crawl(config, CLIPS, folder, ONE_WORKER) == first
    assert (folder / "ledger.parquet").read_bytes() == before
    assert not server.requests


def test_clips_on_disk_without_a_ledger_are_not_fetched_again(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    first = crawl(config, CLIPS, folder, ONE_WORKER)
    (folder / "ledger.parquet").unlink()
    server.requests.clear()
    assert crawl(config, CLIPS, folder, ONE_WORKER) == first
    assert read_manifest(folder / "ledger.parquet") == first
    assert not server.requests


def test_the_ledger_keeps_clips_that_another_run_requested(
    config: YoutubeConfig, folder: Path, server: VideoServer
) -> None:
    server.responses[NAMES[0]] = serve.status(404)
    crawl(config, CLIPS[:2], folder, ONE_WORKER)
    crawl(config, CLIPS[2:4], folder, ONE_WORKER)
    server.requests.clear()
    outcomes = crawl(config, CLIPS[:4], folder, ONE_WORKER)
    assert [o.status for o in outcomes] == ["unavailable", "ok", "ok", "ok"]
    assert not server.requests


@pytest.mark.parametrize(("code", "words"), [(429, "refuses this machine")])
def test_a_rate_limit_stops_the_stage_and_marks_no_clip_as_gone(
    code: int, words: str, server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses |= {name: serve.status(code) for name in NAMES[2:]}
    with pytest.raises(DataError, match=words):
        crawl(config, CLIPS, folder, ONE_WORKER)
    ledger = {row.clip.clip_id: row.status for row in read_manifest(folder / "ledger.parquet")}
    assert list(ledger.values()) == ["ok", "ok", "rate_limited"]
    assert set(server.requests) == set(NAMES[:3])
    server.responses.clear()
    assert all(outcome.status == "ok" for outcome in crawl(config, CLIPS, folder, ONE_WORKER))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:,x"])
def test_a_redirect_to_what_is_not_http_has_a_row_in_the_ledger(
    target: str, server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses[NAMES[0]] = serve.redirect(target)
    outcomes = crawl(config, CLIPS[:2], folder, ONE_WORKER)
    assert [row.status for row in outcomes] == ["network", "ok"]
    assert read_manifest(folder / "ledger.parquet") == outcomes


def test_a_bot_check_stops_the_stage(
    server: VideoServer, config: YoutubeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise module.FetchError("bot_check", "Sign in to confirm you're not a bot")

    monkeypatch.setattr(module, "fetch_clip", refuse)
    with pytest.raises(DataError, match="bot_check"):
        crawl(config, CLIPS, folder, ONE_WORKER)
    ledger = read_manifest(folder / "ledger.parquet")
    assert [row.status for row in ledger] == ["bot_check"]
    assert not server.requests


def test_a_lost_network_stops_the_stage_after_some_failures_in_a_row(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses |= {name: serve.status(500) for name in NAMES if name != NAMES[2]}
    with pytest.raises(DataError, match="3 clips in a row"):
        crawl(config, CLIPS, folder, ONE_WORKER)
    assert len(read_manifest(folder / "ledger.parquet")) == 6


def test_clips_that_fail_again_in_a_later_run_do_not_stop_it(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses |= {name: serve.status(500) for name in NAMES if name != NAMES[2]}
    with pytest.raises(DataError):
        crawl(config, CLIPS, folder, ONE_WORKER)
    outcomes = crawl(config, CLIPS, folder, ONE_WORKER)
    assert [row.status for row in outcomes].count("network") == 5
    assert [row.attempts for row in outcomes] == [2, 2, 1, 2, 2, 2]


def test_clips_in_progress_when_the_breaker_opens_are_kept(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses[NAMES[0]] = serve.status(429)
    server.responses[NAMES[1]] = serve.slow_start(0.5)
    with pytest.raises(DataError):
        crawl(config, CLIPS, folder, machine_with(workers=2, stall_seconds=10.0))
    ledger = {row.clip.clip_id: row.status for row in read_manifest(folder / "ledger.parquet")}
    assert ledger == {CLIPS[0].clip_id: "rate_limited", CLIPS[1].clip_id: "ok"}


def test_the_ledger_is_written_during_the_run(
    config: YoutubeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLIPS_PER_LEDGER_WRITE", 2)
    calls = 0
    fetch = module.fetch_clip

    def die_at_the_fourth(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        fetch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fetch_clip", die_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        crawl(config, CLIPS, folder, ONE_WORKER)
    assert len(read_manifest(folder / "ledger.parquet")) >= 2


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit, with the size and the time that the file had."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("damage", [emptied, halved, flipped])
def test_a_damaged_clip_is_fetched_anew(
    damage: Callable[[Path], None], server: VideoServer, config: YoutubeConfig, folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "trimodal")
    before = crawl(config, CLIPS[:3], folder, ONE_WORKER)
    path = folder / f"{CLIPS[1].clip_id}.mp4"
    content = path.read_bytes()
    damage(path)
    server.requests.clear()
    outcomes = crawl(config, CLIPS[:3], folder, ONE_WORKER)
    assert set(server.requests) == {NAMES[1]}
    assert path.read_bytes() == content
    assert [row.fingerprint for row in outcomes] == [row.fingerprint for row in before]
    assert [row.attempts for row in outcomes] == [1, 2, 1]
    assert any(
        f"1 clips are damaged and fetched anew, e.g. {path.stem}" in m for m in caplog.messages
    )


def test_a_damaged_clip_that_is_gone_for_good_is_not_used(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    crawl(config, CLIPS[:1], folder, ONE_WORKER)
    flipped(folder / f"{CLIPS[0].clip_id}.mp4")
    server.responses[NAMES[0]] = serve.status(404)
    assert crawl(config, CLIPS[:1], folder, ONE_WORKER)[0].status == "unavailable"
    server.requests.clear()
    assert crawl(config, CLIPS[:1], folder, ONE_WORKER)[0].status == "unavailable"
    assert not server.requests


def test_a_touched_clip_is_not_fetched_again(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    (before,) = crawl(config, CLIPS[:1], folder, ONE_WORKER)
    os.utime(folder / f"{CLIPS[0].clip_id}.mp4", (1, 1))
    server.requests.clear()
    assert crawl(config, CLIPS[:1], folder, ONE_WORKER) == [replace(before, updated_at=1)]
    assert not server.requests


def test_an_unreadable_clip_is_kept_and_looked_at_by_the_next_run(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    (before,) = crawl(config, CLIPS[:1], folder, ONE_WORKER)
    path = folder / f"{CLIPS[0].clip_id}.mp4"
    good = path.rename(path.with_name("good"))
    path.symlink_to("/proc/self/mem")  # reading it is a true EIO
    server.requests.clear()
    (row,) = crawl(config, CLIPS[:1], folder, ONE_WORKER)
    assert (row.status, row.fingerprint) == ("unreadable", before.fingerprint)
    good.rename(path)
    assert crawl(config, CLIPS[:1], folder, ONE_WORKER) == [before]
    assert not server.requests


def test_a_damaged_ledger_costs_no_clip_on_disk(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    server.responses[NAMES[1]] = serve.status(404)
    before = crawl(config, CLIPS[:3], folder, ONE_WORKER)
    (folder / "ledger.parquet").write_bytes(b"")
    server.requests.clear()
    assert crawl(config, CLIPS[:3], folder, ONE_WORKER) == before
    assert set(server.requests) == {NAMES[1]}


def test_a_ledger_without_fingerprints_keeps_its_outcomes(
    server: VideoServer, config: YoutubeConfig, folder: Path
) -> None:
    """Days of requests are in it."""
    server.responses[NAMES[1]] = serve.status(404)
    before = crawl(config, CLIPS[:3], folder, ONE_WORKER)
    ledger = pq.read_table(folder / "ledger.parquet")
    pq.write_table(ledger.drop_columns(["fingerprint"]), folder / "ledger.parquet")
    server.requests.clear()
    assert crawl(config, CLIPS[:3], folder, ONE_WORKER) == before
    assert not server.requests


def test_a_killed_run_requests_nothing_twice(
    server: VideoServer, config: YoutubeConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not for clips that failed for good since the last write of the ledger."""
    server.responses[NAMES[1]] = serve.status(404)
    undisturbed = crawl(config, CLIPS, folder.parent / "undisturbed", ONE_WORKER)
    first_requests = Counter(server.requests)
    server.requests.clear()
    write_ledger = module._write_ledger

    class Killed(BaseException): ...

    def killed(*_: object) -> None:
        raise Killed

    fetch = module._fetch

    def fetch_three_times(*arguments: object) -> object:
        if CLIPS[3] in arguments:
            monkeypatch.setattr(module, "_write_ledger", killed)
            raise Killed
        return fetch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_fetch", fetch_three_times)
    with pytest.raises(Killed):
        crawl(config, CLIPS, folder, ONE_WORKER)
    with (folder / "since.jsonl").open("a") as lines:
        lines.write('{"clip": {"clip_id": "vid')  # cut by the kill
    (folder / f".{CLIPS[3].clip_id}.mp4.tmp").touch()
    monkeypatch.setattr(module, "_write_ledger", write_ledger)
    monkeypatch.setattr(module, "_fetch", fetch)
    resumed = crawl(config, CLIPS, folder, ONE_WORKER)
    assert server.requests.keys() == first_requests.keys() == set(NAMES)
    assert server.requests[NAMES[1]] == first_requests[NAMES[1]] == 1
    attempts = {row.clip.clip_id: row.attempts for row in resumed}
    assert attempts == {row.clip.clip_id: row.attempts for row in undisturbed}
    assert [row.status for row in resumed] == [row.status for row in undisturbed]
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        ["ledger.parquet", *(f"{c.clip_id}.mp4" for c in CLIPS if c != CLIPS[1])]
    )
