"""What a busy machine costs: ``python -m benchmarks.contention`` (run `make repro` before).

Runs each of :data:`WORKLOADS` in fresh processes: alone, beside processes that keep half of the
cores busy, and twice at once; with the settings of trimodal/core/runtime.py and with the C
libraries' own, in turn. Prints Markdown rows: wall and CPU seconds and what of these the kernel
took, peak memory, and ratios to the same work alone with the same setting, medians over rounds. Of
two at once, the slower.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from shutil import copy, copytree
from tempfile import TemporaryDirectory

import psutil

from benchmarks.measuring import describe_machine, in_child, peak_bytes, say
from benchmarks.spread import DATA, set_environment
from trimodal.core.arguments import Distinct, positive
from trimodal.core.runtime import SPIN_COUNT

_PARAMS = Path("params.yaml")
_MODEL = Path("models/trimodal")
_VIDEOS = 40  # of the demo, indexed
_PICTURES, _BATCHES, _PX = 32, 12, 224  # of features
# GNU OpenMP's default spin count; a parameter of malloc at its default, so that no other is set.
_LIBRARIES_OWN = {"GOMP_SPINCOUNT": "300000", "GLIBC_TUNABLES": "glibc.malloc.perturb=0"}
ALONE, BESIDE, TWICE = "alone", "beside busy cores", "two at once"
# (condition, maximum ratio of wall time, maximum ratio of CPU time) of the project's settings
ALLOWED = {ALONE: ("", ""), BESIDE: ("1.8", "1.2"), TWICE: ("2.5", "")}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process and those it started took."""

    wall_s: float
    user_s: float
    system_s: float
    peak_bytes: int

    @property
    def cpu_s(self) -> float:
        """All CPU seconds."""
        return self.user_s + self.system_s


def main() -> None:
    """Runs everything in turn, prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--spin-counts", type=positive, nargs="+", action=Distinct, default=[SPIN_COUNT],
        help="GOMP_SPINCOUNT of the project's settings; default: %(default)s",
    )  # fmt: skip
    args = parser.parse_args()
    missing = [f"data/{name}" for name in DATA if not (Path("data") / name).is_dir()]
    if missing or not _MODEL.exists():
        parser.error(f"{', '.join(missing) or _MODEL} is missing: run `make repro` first")
    settings = {"libraries' own": _LIBRARIES_OWN} | {
        f"spin count {count:,}": {"GOMP_SPINCOUNT": str(count)} for count in args.spin_counts
    }
    say(f"{describe_machine()}; {args.rounds} rounds\n")
    say("| work | setting | | wall s | CPU s | system s | peak MB | wall / alone | allowed | "
        "CPU / alone | allowed |")  # fmt: skip
    say(f"| --- | --- | --- |{' ---: |' * 8}")
    for workload in args.workloads:
        usages = in_turn(workload, settings, args.rounds)
        for (setting, condition), rounds in usages.items():
            own = setting == "libraries' own"
            allowed = ("", "") if own else ALLOWED[condition]
            say(row((workload, setting, condition), rounds, usages[setting, ALONE], allowed))


def in_turn(
    workload: str, settings: dict[str, dict[str, str]], rounds: int
) -> dict[tuple[str, str], list[Usage]]:
    """The usage in every round, by setting and condition."""
    conditions = [ALONE, BESIDE, *([TWICE] if workload == "train" else [])]
    usages: dict[tuple[str, str], list[Usage]] = {
        (setting, condition): [] for setting in settings for condition in conditions
    }
    for _ in range(rounds):
        for condition in conditions:
            for setting, environment in settings.items():
                with (
                    set_environment(environment),
                    busy_cores() if condition == BESIDE else nullcontext(),
                ):
                    usage = at_once(workload, 2 if condition == TWICE else 1)
                usages[setting, condition].append(usage)
    return usages


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keeps half of the cores, at least one, busy within the block."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [psutil.Popen(command) for _ in range(max(1, (os.cpu_count() or 1) // 2))]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def at_once(workload: str, copies: int) -> Usage:
    """Runs a workload in so many processes at once; the usage of the slowest."""
    with TemporaryDirectory(prefix="contention-") as name, ThreadPoolExecutor(copies) as pool:
        folders = [Path(name) / str(number) for number in range(copies)]
        usages = pool.map(lambda folder: in_child(measured, workload, folder), folders)
        return max(usages, key=lambda usage: usage.wall_s)


def measured(workload: str, folder: Path) -> Usage:
    """Runs a workload in this process, imports included."""
    folder.mkdir()
    before, began = _cpu_seconds(), time.perf_counter()
    WORKLOADS[workload](folder)
    wall_s = time.perf_counter() - began
    # Waits for the fork server: the CPU time of its workers counts with its own.
    _forkserver._stop()  # type: ignore[attr-defined]
    user_s, system_s = (after - at for after, at in zip(_cpu_seconds(), before, strict=True))
    return Usage(wall_s=wall_s, user_s=user_s, system_s=system_s, peak_bytes=peak_bytes())


def _cpu_seconds() -> tuple[float, float]:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime for usage in usages), sum(usage.ru_stime for usage in usages)


def row(
    labels: tuple[str, str, str], rounds: list[Usage], alone: list[Usage], allowed: tuple[str, str]
) -> str:
    """A line of the table."""
    seconds = [
        f"{statistics.median(values):.1f}"
        for values in zip(*((u.wall_s, u.cpu_s, u.system_s) for u in rounds), strict=True)
    ]
    megabytes = f"{statistics.median(usage.peak_bytes for usage in rounds) / 1e6:,.0f}"
    pairs = list(zip(rounds, alone, strict=True))
    wall = statistics.median(usage.wall_s / reference.wall_s for usage, reference in pairs)
    cpu = statistics.median(usage.cpu_s / reference.cpu_s for usage, reference in pairs)
    ratios = [f"{wall:.2f}", allowed[0], f"{cpu:.2f}", allowed[1]]
    return f"| {' | '.join([*labels, *seconds, megabytes, *ratios])} |"


def _train(folder: Path) -> None:
    from benchmarks.trained import train_into
    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.progress import silence
    from trimodal.losses.config import LossConfig
    from trimodal.training.config import TrainConfig

    silence()
    train_into(
        folder,
        replace(load_section(_PARAMS, "train", TrainConfig), epochs=2),
        load_section(_PARAMS, "loss", LossConfig),
        machine=replace(load_section(_PARAMS, "machine", MachineConfig), device="cpu"),
    )


def _evaluate(folder: Path) -> None:
    from benchmarks.trained import evaluate_in
    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.progress import silence
    from trimodal.evaluation.config import EvaluateConfig

    silence()
    copytree(_MODEL, folder / "model")
    evaluate_in(
        folder,
        load_section(_PARAMS, "evaluate", EvaluateConfig),
        replace(load_section(_PARAMS, "machine", MachineConfig), device="cpu"),
    )


def _features(_: Path) -> None:
    import torch

    from trimodal.models.backbones import build_image_backbone

    backbone = build_image_backbone("efficientnet_lite0", 64, "imagenet").eval()
    pictures = torch.rand(_PICTURES, 3, _PX, _PX)
    with torch.inference_mode():
        for _batch in range(_BATCHES):
            backbone(pictures)


def _index(folder: Path) -> None:
    from trimodal.core.progress import silence
    from trimodal.search.api import Trimodal

    silence()
    videos = folder / "videos"
    videos.mkdir()
    for video in sorted(Path("data/clips/demo").glob("video*.mp4"))[:_VIDEOS]:
        copy(video, videos)
    model = Trimodal.from_pretrained(_MODEL)
    model.index(videos, str(folder / "store"))


# What a process of its own runs, in an empty folder.
WORKLOADS: dict[str, Callable[[Path], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "features": _features,
    "index": _index,
}

if __name__ == "__main__":
    main()
