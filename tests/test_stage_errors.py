"""A failure of the machine gives one clear message and a non-zero exit code, and finished work is
kept.
"""

import ctypes
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import pytest
import yaml
from forked import Forked
from repository import ROOT, TINY

from trimodal.core import progress
from trimodal.media import container as media

CAP_DAC_OVERRIDE, CAPABILITY_VERSION = 1, 0x20080522  # linux/capability.h


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which all data stages have run."""
    folder = tmp_path_factory.mktemp("world")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    params["extract"]["clips_per_shard"] = 4
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage in ("download", "extract", "captions"):
        assert run_stage(folder, stage).returncode == 0
    return folder


ARGUMENTS = {
    "download": ("--clips", "data/clips", "--world", "data/world"),
    "extract": ("--clips", "data/clips", "--out", "data/av"),
    "captions": ("--captions", "data/captions", "--images", "data/images"),
    "train": (
        "--av", "data/av", "--captions", "data/captions", "--images", "data/images",
        "--features", "data/features", "--model", "models/trimodal",
        "--resume", "models/run.safetensors", "--curves", "metrics/train",
    ),
}  # fmt: skip


def start_stage(folder: Path, stage: str, **others: Any) -> Forked:
    command = (f"pipeline.{stage}", "--params", "params.yaml", *ARGUMENTS[stage])
    return Forked(*command, cwd=folder, **others)


def run_stage(folder: Path, stage: str, **others: Any) -> "subprocess.CompletedProcess[str]":
    with start_stage(folder, stage, **others) as process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """One message with these words, no traceback, and a failure."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """A copy of the world, hard-linked until files are rewritten."""
    subprocess.run(["cp", "-al", f"{world}/.", str(tmp_path)], check=True, timeout=60)
    return tmp_path


def set_params(folder: Path, **sections: dict[str, Any]) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        params[name] |= values
    path.unlink()
    path.write_text(yaml.safe_dump(params))


def files_of_at_most(limit_bytes: int) -> Callable[[], None]:
    """Simulates a full disk: files cannot grow beyond the limit."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def finished_shards(folder: Path) -> dict[str, int]:
    return {
        note.stem: (folder / "data/av" / f"{note.stem}.tar").stat().st_mtime_ns
        for note in folder.glob("data/av/journal/*.json")
    }


def test_a_full_disk_in_extract_keeps_the_finished_shards(copy: Path) -> None:
    before = finished_shards(copy)
    lost = copy / "data/av/train-000003.tar"
    lost.unlink()
    set_params(copy, machine={"workers": 2})
    refused(
        run_stage(copy, "extract", preexec_fn=files_of_at_most(50_000)),
        f"extract: [Errno 27] File too large: 'data/av/{lost.name}'", "finished work is kept",
    )  # fmt: skip
    assert not list(copy.glob("data/av/.*"))
    assert not lost.exists()
    assert not (copy / "data/av/index.parquet").exists()
    assert run_stage(copy, "extract").returncode == 0
    after = finished_shards(copy)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == [lost.stem]


def test_a_full_disk_in_captions(copy: Path) -> None:
    subprocess.run(["rm", "-r", str(copy / "data/captions")], check=True, timeout=60)
    refused(
        run_stage(copy, "captions", preexec_fn=files_of_at_most(4096)),
        "captions: ", "File too large", "data/", "finished work is kept",
    )  # fmt: skip
    assert not list(copy.glob("data/captions/.*"))


def test_a_full_disk_in_train(copy: Path) -> None:
    refused(
        run_stage(copy, "train", preexec_fn=files_of_at_most(2**16)),
        "train: ", "too large", "models/run.safetensors", "finished work is kept",
    )  # fmt: skip
    assert not list(copy.glob("models/.*"))


def test_a_full_disk_in_download(copy: Path) -> None:
    """Here ffmpeg cannot write."""
    clips = sorted(copy.glob("data/clips/demo/*.mp4"))
    clips[0].unlink()
    refused(
        run_stage(copy, "download", preexec_fn=files_of_at_most(2048)), "download: ", clips[0].name
    )
    assert not list(copy.glob("data/clips/demo/.*"))
    assert all(clip.exists() for clip in clips[1:])


def without_rights_of_root() -> None:
    """File modes apply to this process, even if it runs as root."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        words = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low, then high
        failed = library.capget(header, words)
        words[0] &= ~(1 << CAP_DAC_OVERRIDE)
        if failed or library.capset(header, words):
            raise OSError(ctypes.get_errno(), "cannot drop the right to write everywhere")


@pytest.mark.parametrize(
    ("stage", "folder"), [("extract", "data/av"), ("captions", "data/images"), ("train", ".")]
)
def test_a_folder_without_write_permission(stage: str, folder: str, copy: Path) -> None:
    if stage != "train":
        set_params(copy, extract={"jpeg_quality": 50}, captions={"jpeg_quality": 50})
    path = copy / folder
    mode = path.stat().st_mode
    path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        done = run_stage(copy, stage, preexec_fn=without_rights_of_root)
    finally:
        path.chmod(mode)
    refused(done, f"{stage}: ", "Permission denied", "finished work is kept")


def run_extract_that_raises(folder: Path, error: Exception) -> "subprocess.CompletedProcess[str]":
    """Runs the stage; reading the manifest raises ``error``."""

    def raising(*_: Any, **__: Any) -> NoReturn:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.preprocess.extract.read_manifest", raising)
        return run_stage(folder, "extract")


def test_too_little_memory(copy: Path) -> None:
    refused(
        run_extract_that_raises(copy, MemoryError()),
        "extract: out of memory; finished work is kept: run dvc repro again",
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            OSError("AF_UNIX path too long"),
            r"set TMPDIR, now /\S+, to a path of at most 70 letters",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"),
            "set TMPDIR to a folder with room that can be written",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"with more room; free: \S+B in /\S+, \S+B in /dev/shm",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a.tar"), "a.tar'.*kept: run dvc repro"),
    ],
)
def test_the_advice_names_what_to_change(
    error: OSError, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running again cannot help while TMPDIR or /dev/shm is as it is."""
    monkeypatch.setattr(progress, "start_logging", lambda: None)
    with pytest.raises(SystemExit, match=advice), progress.stage("extract"):
        raise error


def test_no_usable_temporary_folder_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']")

    monkeypatch.setattr(progress, "start_logging", lambda: None)
    monkeypatch.setattr(progress, "remove_stale_temporary_folders", unusable)
    with pytest.raises(SystemExit, match=r"extract: .*set TMPDIR"), progress.stage("extract"):
        raise AssertionError("unreachable")


def test_a_bug_shows_a_traceback(copy: Path) -> None:
    done = run_extract_that_raises(copy, ValueError("a bug"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def killed_worker(stage: Forked, named: str) -> None:
    """Sends SIGKILL, as the out-of-memory killer does, to the first worker that appears."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and stage.poll() is None:
        for process in psutil.Process(stage.pid).children(recursive=True):
            if process.ppid() != stage.pid or named == "loader":
                process.send_signal(signal.SIGKILL)
                return
        time.sleep(0.01)
    raise AssertionError(f"no worker of {stage.args} was seen")


def test_a_killed_extraction_worker(copy: Path) -> None:
    set_params(copy, extract={"jpeg_quality": 51}, machine={"workers": 2})
    with start_stage(copy, "extract") as stage:
        killed_worker(stage, "extraction")
        _, err = stage.communicate(timeout=120)
    refused(
        subprocess.CompletedProcess("", stage.returncode, "", err),
        "extract: a worker process died of signal 9 (Killed)", "fewer workers",
    )  # fmt: skip


def test_a_killed_loader(copy: Path) -> None:
    machine = {"loader_workers": 1, "checkpoint_every_steps": 2}
    set_params(copy, train={"epochs": 500}, machine=machine)
    with start_stage(copy, "train") as stage:
        deadline = time.monotonic() + 60
        while not (copy / "models/run.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        killed_worker(stage, "loader")
        _, err = stage.communicate(timeout=120)
    refused(
        subprocess.CompletedProcess("", stage.returncode, "", err),
        "train: DataLoader worker", "resume from the last checkpoint", "machine.loader_workers",
    )  # fmt: skip
    assert (copy / "models/run.safetensors").exists()


def train_with_a_loader(folder: Path, *prefix: str, **environment: str) -> tuple[str, bytes]:
    """Runs the train stage with a loader, as a program of its own; its log and the weights."""
    set_params(folder, machine={"loader_workers": 1}, train={"batch_size": 16})
    (folder / "models/run.safetensors").unlink(missing_ok=True)
    command = [*prefix, sys.executable, "-m", "pipeline.train", "--params", "params.yaml"]
    done = subprocess.run(
        [*command, *ARGUMENTS["train"]], cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, (folder / "models/trimodal/model.safetensors").read_bytes()


@pytest.mark.nightly
def test_loaders_need_no_large_shared_memory_and_no_short_temporary_folder(copy: Path) -> None:
    """A container of Docker's has 64 MB of shared memory, less than a paper batch. The weights are
    the same.
    """
    _, weights = train_with_a_loader(copy)
    (long := copy / ("x" * 90)).mkdir()
    log, same = train_with_a_loader(copy, TMPDIR=str(long))
    assert "AF_UNIX path too long" in log
    assert same == weights
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small /dev/shm")
    mounted = 'mount -t tmpfs -o size=200k tmpfs /dev/shm && exec "$@"'
    log, same = train_with_a_loader(copy, "unshare", "-m", "bash", "-c", mounted, "-")
    assert "shm has" in log
    assert "batches are copied through pipes instead" in log
    assert same == weights


def test_an_ffmpeg_that_hangs_is_ended(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of a clip; no file and no process is left."""
    hanging = copy / "ffmpeg"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(media, "ffmpeg_executable", lambda: str(hanging))
    monkeypatch.setattr(media, "_TIMEOUT_SECONDS", 0.5)
    frames = [np.zeros((16, 16, 3), np.uint8)]
    began = time.monotonic()
    with pytest.raises(media.MediaError, match="ffmpeg took over 0"):
        media.encode_video(copy / "a.mp4", frames, fps=1, audio=None, audio_rate_hz=8000)
    assert time.monotonic() - began < 30
    assert not list(copy.glob("*a.mp4*"))
    descendants = psutil.Process().children(recursive=True)
    assert not [
        p for p in descendants if p.status() != psutil.STATUS_ZOMBIE and "sleep" in p.name()
    ]
