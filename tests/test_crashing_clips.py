"""A clip that crashes its decoder costs only itself."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from configs import MACHINE
from data_fixtures import contents, write_clip
from test_extract import CONFIG, MEL, TRAIN, index, outcome, stats

from trimodal.core.manifest import write_manifest
from trimodal.core.records import DataError
from trimodal.core.shards import ShardResult
from trimodal.parallel.pool import WorkerError
from trimodal.parallel.watchdog import ending_if_hung
from trimodal.preprocess import extract as module
from trimodal.preprocess.clip_shards import ClipShard, extract_shard
from trimodal.preprocess.extract import extract

decode_alone = module._decode_alone
POISON = "clip3"


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang() -> None:
    with ending_if_hung(0.2):
        time.sleep(60)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def poisoned_shard(
    die: Callable[[], None], config: Any, mel: Any, timeout_seconds: float, job: ClipShard
) -> ShardResult:
    """Simulates a decoder that crashes on one clip."""
    if any(o.clip.clip_id == POISON for o in job.clips) and POISON not in job.crashing:
        die()
    return extract_shard(config, mel, timeout_seconds, job)


def poisoned_decode(
    die: Callable[[], None], config: Any, mel: Any, timeout_seconds: float, single: ClipShard
) -> str:
    if single.clips[0].clip.clip_id == POISON:
        die()
    return decode_alone(config, mel, timeout_seconds, single)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    clips = [write_clip(tmp_path / f"{name}.mp4") for name in [*TRAIN, "test0", "test1"]]
    path = tmp_path / "manifest.parquet"
    write_manifest(path, [outcome(clip.stem, clip) for clip in clips])
    return path


def poison(monkeypatch: pytest.MonkeyPatch, die: Callable[[], None]) -> None:
    monkeypatch.setattr(module, "extract_shard", partial(poisoned_shard, die))
    monkeypatch.setattr(module, "_decode_alone", partial(poisoned_decode, die))


@pytest.mark.parametrize(("die", "workers"), [(crash, 2), (hang, 1)])
def test_only_the_clip_that_crashes_is_lost(
    die: Callable[[], None], workers: int, manifest: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    poison(monkeypatch, die)
    caplog.set_level("INFO", "trimodal")
    out, machine = tmp_path / "av", replace(MACHINE, workers=workers)
    extract(manifest, out, CONFIG, MEL, machine)
    assert set(index(out)) == {*TRAIN, "test0", "test1"} - {POISON}
    reason, reused = ("corrupt", 4) if die is crash else ("too_slow", 3)  # a hang is tried again
    assert stats(out)["left_out"] == {reason: 1}
    how = "died of signal 11 (Segmentation fault)" if die is crash else "hung"
    assert any(f"{{'{POISON}': '{how}'}}" in text for text in caplog.messages)
    before = contents(out)
    extract(manifest, out, CONFIG, MEL, machine)
    assert caplog.messages[-2].endswith(f"reused {reused} of 4 shards from an earlier run")
    assert contents(out) == before


def test_the_coverage_gate_counts_a_crash(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, crash)
    with pytest.raises(DataError, match=r"87\.5 % of the 8 downloaded clips") as caught:
        extract(manifest, tmp_path / "av", replace(CONFIG, min_coverage=0.9), MEL, MACHINE)
    assert f"corrupt        1  e.g. {POISON}: " in str(caught.value)
    assert "the process that decoded it died of signal 11" in str(caught.value)


def test_a_killed_worker_is_blamed_on_no_clip(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, be_killed)
    with pytest.raises(WorkerError, match=r"signal 9 \(Killed\)"):
        extract(manifest, tmp_path / "av", CONFIG, MEL, MACHINE)
    assert not (tmp_path / "av" / "index.parquet").exists()
