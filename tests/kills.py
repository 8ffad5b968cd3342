"""Kills the pipeline at random moments and restarts it by ``dvc repro`` until it is done.

The stages are the real ones, the signal is SIGKILL. A kill hits, in turn, everything at once (as a
power cut does), the stage alone, or one of its worker processes.
"""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from repository import Repository

STAGES = ("download", "extract", "captions", "train", "evaluate")
TARGETS = ("all", "stage", "worker")
_PATIENCE_SECONDS = 300.0


@dataclass
class Report:
    """What the kills did: how many by stage and by target; the clips and shards that were finished
    at a kill and made again later, and of how many; the training steps that saved runs went on
    from.
    """

    kills: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    finished: int = 0
    made_again: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def durations(repository: Repository) -> dict[str, float]:
    """Runs the pipeline undisturbed; the seconds that each stage's process took."""
    seconds: dict[str, float] = {}
    with _running(repository) as repro:
        while repro.poll() is None:
            if found := _stage_process(repro):
                seconds[found[0]] = time.time() - found[1].create_time()
            time.sleep(0.02)
    assert repro.returncode == 0, _said(repository)
    return seconds


def kill_until_done(
    repository: Repository, kills: Mapping[str, int], seconds: Mapping[str, float], seed: int
) -> Report:
    """Kills each stage so many times, each at a random moment of the ``seconds`` that it takes
    undisturbed, and lets the pipeline end.
    """
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    report, left = Report(), Counter(kills)
    seen: dict[Path, int] = {}
    while True:
        with _running(repository) as repro:
            killed = _kill_one(repro, left, seconds, rng, report)
            if not killed:
                repro.wait(_PATIENCE_SECONDS)
        report.messages.append(_said(repository))
        report.resumed_at += map(int, re.findall(r"goes on behind step (\d+)", _said(repository)))
        finished = _finished(repository.folder)
        report.made_again += [
            str(path) for path, made in seen.items() if finished.get(path, made) != made
        ]
        seen |= finished
        if not killed:
            report.finished = len(seen)
            assert repro.returncode == 0, _said(repository)
            return report


def _kill_one(
    repro: "subprocess.Popen[bytes]", left: Counter[str], seconds: Mapping[str, float],
    rng: random.Random, report: Report,
) -> bool:  # fmt: skip
    """Kills once, in the first stage that is still to be killed; False if the pipeline ended."""
    while repro.poll() is None:
        found = _stage_process(repro)
        if found is None or not left[found[0]]:
            time.sleep(0.02)
            continue
        name, stage = found
        moment = stage.create_time() + rng.uniform(0.1, 1.0) * seconds[name]
        while time.time() < moment and stage.is_running() and repro.poll() is None:
            time.sleep(0.005)
        target = TARGETS[report.kills.total() % len(TARGETS)]
        if not _kill(repro, stage, target, rng):
            report.missed += 1  # it was over before; the next run begins at the next stage
            left[name] -= report.missed > 3 * len(STAGES)
            return True
        left[name] -= 1
        report.kills[name] += 1
        report.targets[target] += 1
        return True
    return False


def _kill(
    repro: "subprocess.Popen[bytes]", stage: psutil.Process, target: str, rng: random.Random
) -> bool:
    """Sends SIGKILL and waits until the pipeline is down; False if the stage was over already."""
    try:
        below = stage.children(recursive=True)
        if stage.status() == psutil.STATUS_ZOMBIE:
            return False
        if target == "all":
            os.killpg(repro.pid, signal.SIGKILL)
        elif target == "worker" and below:
            rng.choice(below).send_signal(signal.SIGKILL)
        else:
            stage.send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    finally:
        repro.wait(_PATIENCE_SECONDS)
    _, alive = psutil.wait_procs(below, 30)
    assert not alive, f"processes outlive their stage: {alive}"
    return True


@contextmanager
def _running(repository: Repository) -> Iterator["subprocess.Popen[bytes]"]:
    """``dvc repro`` in a session of its own, which ends with the block."""
    with (
        (repository.temporary / "said").open("wb") as said,
        subprocess.Popen(
            ["dvc", "repro"], cwd=repository.folder, env=repository.environment,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        ) as repro,
    ):  # fmt: skip
        try:
            yield repro
        finally:
            if repro.poll() is None:
                os.killpg(repro.pid, signal.SIGKILL)


def _said(repository: Repository) -> str:
    return (repository.temporary / "said").read_text(errors="replace")


def _stage_process(repro: "subprocess.Popen[bytes]") -> tuple[str, psutil.Process] | None:
    """The stage that runs now."""
    try:
        for process in psutil.Process(repro.pid).children(recursive=True):
            command = process.cmdline()
            if len(command) > 2 and command[1] == "-m" and command[2].startswith("pipeline."):
                name = command[2].removeprefix("pipeline.")
                if name in STAGES:
                    return name, process
    except psutil.Error:
        return None
    return None


def _finished(folder: Path) -> dict[Path, int]:
    """The clips that are there and the shards that the journals know, with the time of each."""
    clips = set(folder.glob("data/clips/demo/[!.]*.mp4"))
    notes = folder.glob("data/*/journal/[!.]*.json")
    shards = {note.parent.parent / f"{note.stem}.tar" for note in notes}
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in clips | shards if p.exists()}


def products(folder: Path) -> dict[str, bytes]:
    """All that the pipeline leaves: data, model, run, metrics, lock; journals but for the keys that
    tell of this disk.
    """
    found = {}
    for top in ("data", "models", "metrics", "dvc.lock"):
        place = folder / top
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            if path.parent.name == "journal":
                content = json.dumps(json.loads(content) | {"key": ""}).encode()
            found[path.relative_to(folder).as_posix()] = content
    return found


def leftovers(repository: Repository) -> list[str]:
    """Temporary files, in the pipeline's folders and in the folder for such files; but for
    Python's sockets of killed processes (pymp-*) and PyTorch's cache.
    """
    folder = repository.folder
    here = [*folder.glob("data/**/.*"), *folder.glob("models/.*"), *folder.glob("metrics/**/.*")]
    return [
        str(path)
        for path in (*here, *repository.temporary.glob("*"))
        if not path.name.startswith((".gitignore", "pymp-", "said", "torchinductor_"))
    ]
