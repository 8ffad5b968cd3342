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
_CAUTION = 0.7  # a stage may be quicker than it was when it was timed


@dataclass
class Report:
    """What the kills did: how many by stage and by target; of how many finished clips and shards
    which were made again later; the training steps from which saved runs resumed.
    """

    kills: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    made_again: list[str] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class Pace:
    """The seconds that a stage's process takes to come to its work, and the seconds of work that
    are left (all of it again for a stage that keeps nothing).
    """

    start: float
    work: float
    keeps: bool

    def moment(self, kills_left: int, rng: random.Random) -> float:
        """When to kill next, in seconds of the process: so that the work lasts for all kills, and
        now and then before it begins.
        """
        if rng.random() < 0.15:
            return rng.uniform(0.0, self.start)
        share = 2.0 / (kills_left + 1) if self.keeps else 1.0
        return _CAUTION * (self.start + rng.uniform(0.0, share) * self.work)

    def worked(self, seconds: float) -> None:
        """Takes off what a killed process has done."""
        if self.keeps:
            self.work -= max(0.0, seconds - self.start)
        self.work = max(self.work, 0.05)


def paces(first: Mapping[str, float], again: Mapping[str, float]) -> dict[str, Pace]:
    """From the durations of an undisturbed run, and of one more with everything done."""
    return {
        name: Pace(
            start=min(again[name], first[name]) if name != "evaluate" else 0.0,
            work=max(first[name] - again[name], 0.05) if name != "evaluate" else first[name],
            keeps=name != "evaluate",
        )
        for name in STAGES
    }


def durations(repository: Repository, *command: str) -> dict[str, float]:
    """The seconds that each stage's process takes in a command of DVC."""
    seconds: dict[str, float] = {}
    found = None
    with _running(repository, *command) as repro:
        while repro.poll() is None:
            if found := _stage_process(repro, found):
                seconds[found[0]] = time.time() - found[1].create_time()
            time.sleep(0.02)
    assert repro.returncode == 0, _said(repository)
    return seconds


def kill_until_done(
    repository: Repository, kills: Mapping[str, int], pace: Mapping[str, Pace], seed: int
) -> Report:
    """Kills each stage the given number of times, and lets the pipeline end. What a stage was too
    quick for is left to the next one, and what the last one was too quick for to a forced run.
    """
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    report, left = Report(), Counter(kills)
    seen: dict[Path, int] = {}
    command = ["repro"]
    while True:
        with _running(repository, *command) as repro:
            killed = _kill_one(repro, left, pace, rng, report)
        said = _said(repository)
        report.resumed_at += map(int, re.findall(r"resumes after step (\d+)", said))
        finished = _finished(repository.folder)
        report.made_again += [
            str(path) for path, made in seen.items() if finished.get(path, made) != made
        ]
        seen |= finished
        command = ["repro"]
        if not killed:
            assert repro.returncode == 0, said
            if not left.total():
                report.finished = len(seen)
                return report
            command = ["repro", "--force"]


def _kill_one(
    repro: "subprocess.Popen[bytes]", left: Counter[str], pace: Mapping[str, Pace],
    rng: random.Random, report: Report,
) -> bool:  # fmt: skip
    """Kills once; False if the pipeline ended before."""
    passed: set[str] = set()
    found = None
    while repro.poll() is None:
        found = _stage_process(repro, found)
        if found is None or found[0] in passed:
            time.sleep(0.02)
            continue
        name, stage = found
        for earlier in STAGES[: STAGES.index(name)]:
            left[name] += left.pop(earlier, 0)
        if not left[name]:
            passed.add(name)
            continue
        moment = pace[name].moment(left[name], rng)
        begun = stage.create_time()
        while time.time() < begun + moment and stage.is_running() and repro.poll() is None:
            time.sleep(0.005)
        target = TARGETS[report.kills.total() % len(TARGETS)]
        if not _kill(repro, stage, target, rng):
            passed.add(name)
            continue
        pace[name].worked(moment)
        left[name] -= 1
        report.kills[name] += 1
        report.targets[target] += 1
        passed.add(name)  # if the worker had nothing left to do, the pipeline goes on
        if _ends(repro, stage):
            return True
    return False


def _ends(repro: "subprocess.Popen[bytes]", stage: psutil.Process) -> bool:
    """Whether the pipeline goes down with the stage that was hit."""
    psutil.wait_procs([stage], _PATIENCE_SECONDS)
    try:
        return repro.wait(5) != 0
    except subprocess.TimeoutExpired:
        return False


def _kill(
    repro: "subprocess.Popen[bytes]", stage: psutil.Process, target: str, rng: random.Random
) -> bool:
    """Sends SIGKILL; False if the stage was over already. All that was below it ends, too."""
    try:
        if stage.status() == psutil.STATUS_ZOMBIE:
            return False
        below = stage.children(recursive=True)
        workers = [p for p in below if not _serves(p, stage)]
        if target == "all":
            os.killpg(repro.pid, signal.SIGKILL)
        elif target == "worker" and workers:
            rng.choice(workers).send_signal(signal.SIGKILL)
        else:
            stage.send_signal(signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    _, alive = psutil.wait_procs(below, 60)
    assert not alive, f"processes outlive their stage: {alive}"
    return True


def _serves(process: psutil.Process, stage: psutil.Process) -> bool:
    """Whether it is one of multiprocessing's own, which start workers and tidy up."""
    return process.ppid() == stage.pid and "multiprocessing" in " ".join(process.cmdline())


@contextmanager
def _running(repository: Repository, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of DVC in a session of its own, whose end is waited for."""
    with (
        (repository.temporary / "said").open("wb") as said,
        subprocess.Popen(
            ["dvc", *command], cwd=repository.folder, env=repository.environment,
            stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        ) as repro,
    ):  # fmt: skip
        try:
            yield repro
            repro.wait(_PATIENCE_SECONDS)
        finally:
            if repro.poll() is None:
                os.killpg(repro.pid, signal.SIGKILL)


def _said(repository: Repository) -> str:
    return (repository.temporary / "said").read_text(errors="replace")


def _stage_process(
    repro: "subprocess.Popen[bytes]", before: tuple[str, psutil.Process] | None
) -> tuple[str, psutil.Process] | None:
    """The stage that runs now; it is not looked for while the one before still runs, as a search
    reads all processes of the machine.
    """
    try:
        if before and before[1].status() != psutil.STATUS_ZOMBIE:
            return before
    except psutil.NoSuchProcess:
        pass
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
