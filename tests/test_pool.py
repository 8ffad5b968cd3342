"""The process pool: modules are imported once, and workers end with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psutil
import pytest
import torch

from trimodal.media.container import MediaError
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.parallel.watchdog import ending_if_hung

ROOT = Path(__file__).parents[1]
# A module that logs the processes that import it, with jobs of a given length.
JOBS = """
import os, time
from pathlib import Path

with Path({log!r}).open("a") as log:
    log.write(f"{{os.getpid()}}\\n")

def nap(greeting, seconds):
    time.sleep(seconds)
    return os.getpid()
"""
RUN = """
import time
from functools import partial
import jobs
from trimodal.parallel.pool import map_in_order

if __name__ == "__main__":
    for number, worker in enumerate(map_in_order(partial(jobs.nap, "hello"), {seconds}, 2)):
        print(worker, flush=True)
        time.sleep({pause} if number == 1 else 0)
"""


def start(folder: Path, seconds: Sequence[float], pause: float = 0) -> "subprocess.Popen[str]":
    """Starts a process with two workers that prints the process id of each job's worker."""
    (folder / "jobs.py").write_text(JOBS.format(log=str(folder / "log")))
    (folder / "run.py").write_text(RUN.format(seconds=seconds, pause=pause))
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


class ThreadsOfAWorker:
    """Work that finds its worker as a machine of three cores leaves it; returns what is left."""

    def __getstate__(self) -> dict[str, bool]:
        return {"in_worker": True}

    def __setstate__(self, state: dict[str, bool]) -> None:
        torch.set_num_threads(3)
        os.environ["OMP_NUM_THREADS"] = "3"

    def __call__(self, _: int) -> tuple[int, int, str]:
        return os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def test_a_worker_computes_in_one_thread() -> None:
    for worker, *threads in map_in_order(ThreadsOfAWorker(), range(2), 2):
        assert worker != os.getpid()
        assert threads == [1, "1"]


def test_the_module_of_a_partial_is_imported_once(tmp_path: Path) -> None:
    with start(tmp_path, [0.5] * 4) as parent:
        workers = {int(line) for line in parent.communicate(timeout=60)[0].splitlines()}
    loaders = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(workers) == 2
    assert parent.pid in loaders
    assert not workers & set(loaders)


def running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("seconds", "pause", "workers"),
    [([0.1, 0.1, 1000, 1000], 0, 2), ([0.1, 0.1], 1000, 0), ([0.1, 0.1, 3], 1000, 1)],
    ids=["in a long job", "after the last job", "with a result that is never read"],
)
def test_workers_end_with_a_parent_that_is_killed(
    seconds: list[float], pause: float, workers: int, tmp_path: Path
) -> None:
    parent = start(tmp_path, seconds, pause)
    assert parent.stdout is not None
    with parent:
        assert int(parent.stdout.readline()) > 0
        assert int(parent.stdout.readline()) > 0
        descendants = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    try:
        # Besides the workers: the forkserver and the resource tracker.
        assert len(descendants) == workers + 2
        deadline = time.monotonic() + 30
        while running(descendants) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not running(descendants)
    finally:
        for process in running(descendants):
            process.kill()


def square(number: int) -> int:
    return number * number if number else os.getpid()


def test_results_are_in_the_jobs_order() -> None:
    assert list(map_in_order(square, [3, 1, 2], 2)) == [9, 1, 4]


def test_one_worker_is_this_process() -> None:
    assert list(map_in_order(square, [0], 1)) == [os.getpid()]


def test_an_exception_in_a_job_is_raised_here() -> None:
    with pytest.raises(TypeError, match="abs"):
        list(map_in_order(abs, [1, "word", 2], 2))  # type: ignore[list-item]


def test_zero_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="num_workers must be at least 1, not 0"):
        list(map_in_order(square, [0], 0))


def die(how: str) -> str:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hung":
        with ending_if_hung(0.2):
            time.sleep(60)
    elif how == "exit":
        os._exit(7)
    elif how == "bad":
        raise MediaError(Path("a.mp4"), "corrupt", "its detail")
    return how


@pytest.mark.parametrize(
    ("how", "message", "crashed"),
    [
        ("segfault", r"died of signal 11 \(Segmentation fault\)$", True),
        ("hung", "hung$", True),
        ("killed", r"died of signal 9 \(Killed\); it may have run out of memory", False),
        ("exit", "exited with code 7; ", False),
    ],
)
@pytest.mark.parametrize("others", [0, 5])
def test_a_dead_worker_is_an_error_that_says_how_it_died(
    how: str, message: str, crashed: bool, others: int
) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        list(map_in_order(die, ["fine"] * others + [how] + ["fine"] * others, 2))
    assert caught.value.crashed == crashed
    assert not [p for p in psutil.Process().children(recursive=True) if "jobs" in p.name()]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_on_crash_replaces_the_results_of_crashed_jobs(workers: int) -> None:
    jobs = ["a", "segfault", "b", "hung", "c", "segfault"]
    results = map_in_order(die, jobs, workers, on_crash=lambda job, error: f"{job}: {error.how}")
    assert list(results) == [
        "a", "segfault: died of signal 11 (Segmentation fault)", "b", "hung: hung", "c",
        "segfault: died of signal 11 (Segmentation fault)",
    ]  # fmt: skip


def test_on_crash_is_not_called_for_a_killed_worker() -> None:
    with pytest.raises(WorkerError, match="signal 9"):
        list(map_in_order(die, ["killed"], 1, on_crash=lambda *_: "replaced"))


@pytest.mark.parametrize("round_number", range(5))
def test_a_worker_killed_at_any_moment_never_hangs_the_others(round_number: int) -> None:
    """Killed from outside, also before its first job."""
    results = map_in_order(square, count(1), 2)
    assert next(results) == 1
    workers: list[psutil.Process] = []
    while not workers:
        descendants = psutil.Process().children(recursive=True)
        workers = [p for p in descendants if p.ppid() != os.getpid()]
    time.sleep(0.003 * round_number)
    workers[-1].kill()
    with pytest.raises(WorkerError):
        list(results)


def test_the_error_of_a_job_has_its_fields_and_traceback() -> None:
    with pytest.raises(MediaError, match=r"a\.mp4: corrupt: its detail") as caught:
        list(map_in_order(die, ["bad", "fine"], 2))
    assert caught.value.reason == "corrupt"
    assert "in die" in caught.value.__notes__[0]
