"""Indexing a folder of videos: ``python -m benchmarks.indexing``.

Indexes the first videos of the demo (``data/clips``, ``models/trimodal``) into a temporary store,
in a fresh process each time. With ``--against`` the checkout of another version takes turns with
this one. CPU seconds, of all processes together, are reliable on a busy machine, too. Memory is
that of the largest process.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.captions_stage import measured_usage
from benchmarks.measuring import ROOT, TIMEOUT_SECONDS, ratio, say
from trimodal.core.arguments import positive

_TRIMODAL = "from trimodal.cli import main; main()"  # the command, of any version


@dataclass(frozen=True, kw_only=True)
class Run:
    """One indexing, with the start of Python and the imports."""

    moments: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> None:
    """Reads the command line, indexes, prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--videos", type=positive, default=1400)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--clips", type=Path, default=ROOT / "data" / "clips" / "demo")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "trimodal")
    args = parser.parse_args()
    checkouts = {"this version": ROOT} | ({"the other": args.against} if args.against else {})
    with tempfile.TemporaryDirectory(prefix="indexing-") as temporary:
        folder = Path(temporary)
        videos = folder / "videos"
        videos.mkdir()
        for path in sorted(args.clips.resolve().rglob("*.mp4"))[: args.videos]:
            (videos / path.name).symlink_to(path)
        runs: dict[str, list[Run]] = {name: [] for name in checkouts}
        for turn in range(args.rounds):
            order = list(checkouts) if turn % 2 else list(reversed(checkouts))
            for name in order:
                store = folder / f"{name} {turn}"
                command = [
                    "index", str(videos), "--model", str(args.model.resolve()),
                    "--store", str(store), "--workers", str(args.workers),
                ]  # fmt: skip
                runs[name].append(run_by(checkouts[name], command))
        say("| version | videos | moments | seconds | CPU s | ratio | CPU ratio | peak memory |")
        say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        of = list(runs)[-1]
        for name in runs:
            say(row(name, len(list(videos.iterdir())), runs[name], runs[of]))


def run_by(checkout: Path, arguments: list[str]) -> Run:
    """Runs a checkout's command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    began = time.perf_counter()
    with measured_usage() as usage:
        done = subprocess.run(
            [sys.executable, "-c", _TRIMODAL, *arguments], env=environment, cwd=checkout,
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Run(
        moments=int(done.stdout.split(" moments")[0].split()[-1]),
        wall_seconds=time.perf_counter() - began,
        cpu_seconds=usage.cpu_seconds,
        peak_bytes=usage.peak_bytes,
    )


def row(name: str, videos: int, runs: list[Run], others: list[Run]) -> str:
    """A line of the table: medians, and medians of the ratios of the same round."""
    walls, other_walls = (tuple(run.wall_seconds for run in of) for of in (runs, others))
    cpus, other_cpus = (tuple(run.cpu_seconds for run in of) for of in (runs, others))
    return (
        f"| {name} | {videos:,} | {runs[0].moments:,} | {statistics.median(walls):.1f} | "
        f"{statistics.median(cpus):.1f} | {ratio(walls, other_walls):.2f} | "
        f"{ratio(cpus, other_cpus):.2f} | {max(run.peak_bytes for run in runs) / 1e6:,.0f} MB |"
    )


if __name__ == "__main__":
    main()
