"""Shared by the benchmarks: timing side by side, fresh processes, lines of tables."""

import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ffmpeg

from trimodal.core.console import show
from trimodal.media.container import ffmpeg_executable
from trimodal.overlay import apply_overlay

ROOT = Path(__file__).parents[1]
SCALES = ("demo", *sorted(path.stem for path in (ROOT / "params").glob("*.yaml")))
TIMEOUT_SECONDS = 1800  # for a command that a benchmark runs

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Wall and CPU seconds of one candidate in every round."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def wall(self) -> float:
        """Median wall seconds of a round."""
        return statistics.median(self.wall_s)

    @property
    def cpu(self) -> float:
        """Median CPU seconds of a round, including its child processes that have ended."""
        return statistics.median(self.cpu_s)


def side_by_side(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timings]:
    """Runs every candidate once per round, after one warm-up round; the order rotates from round to
    round. So a machine that slows down slows all of them.
    """
    names = list(candidates)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began, cpu_began = time.perf_counter(), cpu_seconds()
            candidates[name]()
            if turn >= 0:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(cpu_seconds() - cpu_began)
    return {name: Timings(wall_s=tuple(wall[name]), cpu_s=tuple(cpu[name])) for name in names}


def ratio(times: tuple[float, ...], reference: tuple[float, ...]) -> float:
    """The median over rounds of ``times`` divided by the ``reference`` of the same round."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_bytes() -> int:
    """This process's peak resident size."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at the parent's size
        line = next(li for li in status.read_text().splitlines() if li.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_child(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Calls ``work`` in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args, **kwargs).result()


def drop_from_cache(path: Path) -> None:
    """Asks Linux to drop the file from the page cache, so that the next read is from disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def params_at(scale: str, folder: Path) -> Path:
    """Writes the params of a scale, ``demo`` or the name of an overlay, into ``folder``."""
    path = Path(shutil.copy(ROOT / "params.yaml", folder / f"{scale}.yaml"))
    if scale != "demo":
        apply_overlay(path, ROOT / "params" / f"{scale}.yaml")
    return path


def run_ffmpeg(output: Any) -> None:
    """Runs what ffmpeg-python composed and waits; existing files are overwritten."""
    command = ffmpeg.compile(output, cmd=ffmpeg_executable(), overwrite_output=True)
    command[1:1] = ["-nostdin", "-loglevel", "error"]
    subprocess.run(command, timeout=TIMEOUT_SECONDS, check=True)


def describe_machine() -> str:
    """Cores, architecture and Python version, for a table's caption."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores ({platform.machine()}), Python {platform.python_version()}"


def say(line: str) -> None:
    """Prints a line, escaped, and flushes it."""
    show(line)
