"""Workers: what they need is loaded once, and they end with the process that started them."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from trimodal.workers import map_in_order

ROOT = Path(__file__).parents[1]
# A module that notes who imports it, with jobs of so many seconds.
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
from trimodal.workers import map_in_order

if __name__ == "__main__":
    for number, worker in enumerate(map_in_order(partial(jobs.nap, "hello"), {seconds}, 2)):
        print(worker, flush=True)
        time.sleep({pause} if number == 1 else 0)
"""


def start(folder: Path, seconds: Sequence[float], pause: float = 0) -> "subprocess.Popen[str]":
    """A process of its own with two workers, which prints the number of each job's process."""
    (folder / "jobs.py").write_text(JOBS.format(log=str(folder / "log")))
    (folder / "run.py").write_text(RUN.format(seconds=seconds, pause=pause))
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


def test_what_a_partial_s_module_imports_is_loaded_once(tmp_path: Path) -> None:
    with start(tmp_path, [0.5] * 4) as parent:
        workers = {int(line) for line in parent.communicate(timeout=60)[0].splitlines()}
    loaders = [int(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(workers) == 2
    assert parent.pid in loaders
    assert not workers & set(loaders)


def running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [([0.1, 0.1, 1000, 1000], 0), ([0.1, 0.1], 1000)],
    ids=["in a long job", "waiting for jobs"],
)
def test_workers_end_with_a_parent_that_is_killed(
    seconds: list[float], pause: float, tmp_path: Path
) -> None:
    parent = start(tmp_path, seconds, pause)
    assert parent.stdout is not None
    with parent:
        assert int(parent.stdout.readline()) > 0
        assert int(parent.stdout.readline()) > 0
        below = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    try:
        assert len(below) == 4  # the workers, who starts them, and who tidies up behind them
        deadline = time.monotonic() + 30
        while running(below) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not running(below)
    finally:
        for process in running(below):
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


def test_no_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        list(map_in_order(square, [0], 0))
