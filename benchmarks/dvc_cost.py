"""What DVC itself costs by the number and the size of shards: ``python -m benchmarks.dvc_cost``.

Folders of random bytes, as many bytes in few or in many files: add, status, push to a remote on
the same disk, checkout; then one file is written anew, added and pushed. Seconds for a start, a
file and a GB are fitted to all of them, and from those come the rows for shards of so many VGGSound
clips.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import TIMEOUT_SECONDS, machine, say

COMMANDS = ("add", "status", "push", "checkout", "add again", "push again")
CLIPS = 190_000  # VGGSound's
CLIP_MB = 0.297  # and what extraction leaves of one: benchmarks.extraction
CLIP_CPU_S = 0.130  # and its processor time: the same
CLIPS_PER_SHARD = (10, 50, 100, 500, 2000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """So many files and MB, and the seconds of each of :data:`COMMANDS`."""

    files: int
    mb: int
    seconds: tuple[float, ...]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--files", type=int, nargs="+", default=[8, 64, 512, 4096])
    given = parser.parse_args()
    say(f"{machine()}\n")
    say(f"| files | MB | {' | '.join(f'{name}, s' for name in COMMANDS)} |")
    say(f"| ---: | ---: |{' ---: |' * len(COMMANDS)}")
    sizes = [(files, given.mb) for files in given.files] + [(given.files[1], given.mb // 4)]
    folders = []
    for files, mb in sizes:
        with TemporaryDirectory(prefix="dvc-cost-") as name:
            folders.append(folder := timed(Path(name), files, mb))
        say(f"| {files:,} | {mb:,} | {_row(folder.seconds)} |")
    start, a_file, a_gb = fitted(folders)
    say(f"| a start | | {_row(start)} |")
    say(f"| 1,000 files more | | {_row(1000 * a_file)} |")
    say(f"| | 1,000 more | {_row(a_gb)} |\n")
    say(
        f"{CLIPS:,} clips of {CLIP_MB} MB, by these figures:\n\n| clips a shard | shards | "
        "MB a shard | add, s | status, s | push, s | checkout, s | one clip changed: MB to push | "
        "a core's work on a shard, s |"
    )
    say(f"| ---: |{' ---: |' * 8}")
    for clips in CLIPS_PER_SHARD:
        shards = -(-CLIPS // clips)
        seconds = start + shards * a_file + CLIPS * CLIP_MB / 1000 * a_gb
        say(
            f"| {clips:,} | {shards:,} | {clips * CLIP_MB:,.0f} | "
            f"{' | '.join(f'{s:,.0f}' for s in seconds[:4])} | {clips * CLIP_MB:,.0f} | "
            f"{clips * CLIP_CPU_S:,.1f} |"
        )


def timed(work: Path, files: int, mb: int) -> Folder:
    """Runs the commands in an empty project."""
    dvc(work, "init", "--no-scm")
    dvc(work, "config", "core.analytics", "false")
    dvc(work, "config", "core.site_cache_dir", str(work / "site"))
    dvc(work, "remote", "add", "--default", "store", str(work / "store"))
    data = work / "data"
    data.mkdir()
    rng = random.Random(files)  # noqa: S311
    for number in range(files):
        (data / f"{number:06d}.tar").write_bytes(rng.randbytes(mb * 1_000_000 // files))
    seconds = [dvc(work, *command) for command in (("add", "data"), ("status",), ("push",))]
    shutil.rmtree(data)
    seconds.append(dvc(work, "checkout"))
    (data / "000000.tar").write_bytes(rng.randbytes(mb * 1_000_000 // files))
    seconds += [dvc(work, "add", "data"), dvc(work, "push")]
    return Folder(files=files, mb=mb, seconds=tuple(seconds))


def dvc(work: Path, *arguments: str) -> float:
    """Wall seconds of a command, which must succeed."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments, "--quiet"],
        cwd=work, timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    return time.perf_counter() - began


def fitted(folders: list[Folder]) -> tuple[npt.NDArray[np.float64], ...]:
    """Least squares: (commands,) seconds of a start, of a file and of a GB, none below zero."""
    known = np.array([[1.0, folder.files, folder.mb / 1000] for folder in folders])
    found, *_ = np.linalg.lstsq(known, np.array([folder.seconds for folder in folders]), rcond=None)
    return tuple(np.maximum(found, 0.0))


def _row(seconds: npt.ArrayLike) -> str:
    return " | ".join(f"{s:.2f}" for s in np.asarray(seconds))


if __name__ == "__main__":
    main()
