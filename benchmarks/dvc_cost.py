"""What DVC itself costs by the number and the size of shards: ``python -m benchmarks.dvc_cost``.

Runs add, status, push to a remote on the same disk, and checkout on folders of random bytes, the
same number of bytes in few or in many files; then one file is rewritten, added and pushed. Seconds
per command, per file and per GB are fitted to all runs, and from them the costs of VGGSound are
computed for several sizes of a shard.
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

from benchmarks.measuring import TIMEOUT_SECONDS, describe_machine, say
from trimodal.core.arguments import Distinct, positive

COMMANDS = ("add", "status", "push", "checkout", "add again", "push again")
CLIPS = 190_000  # of VGGSound
CLIP_MB = 0.297  # what extraction writes per clip, from benchmarks.extraction
CLIP_CPU_S = 0.130  # CPU time of extraction per clip, from benchmarks.extraction
CLIPS_PER_SHARD = (10, 50, 100, 500, 2000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder's files and MB, and the seconds of each of :data:`COMMANDS`."""

    files: int
    mb: int
    seconds: tuple[float, ...]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--mb", type=positive, default=1024)
    parser.add_argument(
        "--files", type=positive, nargs="+", action=Distinct, default=[8, 64, 512, 4096]
    )
    args = parser.parse_args()
    say(f"{describe_machine()}\n")
    say(f"| files | MB | {' | '.join(f'{name}, s' for name in COMMANDS)} |")
    say(f"| ---: | ---: |{' ---: |' * len(COMMANDS)}")
    sizes = [(files, args.mb) for files in args.files] + [(args.files[1], args.mb // 4)]
    folders = []
    for files, mb in sizes:
        with TemporaryDirectory(prefix="dvc-cost-") as name:
            folders.append(folder := timed(Path(name), files, mb))
        say(f"| {files:,} | {mb:,} | {_row(folder.seconds)} |")
    per_command, per_file, per_gb = fitted(folders)
    say(f"| a command alone | | {_row(per_command)} |")
    say(f"| 1,000 more files | | {_row(1000 * per_file)} |")
    say(f"| | 1,000 MB more | {_row(per_gb)} |\n")
    say(
        f"{CLIPS:,} clips of {CLIP_MB} MB, from these figures:\n\n| clips per shard | shards | "
        "MB per shard | add, s | status, s | push, s | checkout, s | "
        "MB to push if one clip changed | extraction of a shard on one core, s |"
    )
    say(f"| ---: |{' ---: |' * 8}")
    for clips in CLIPS_PER_SHARD:
        shards = -(-CLIPS // clips)
        seconds = per_command + shards * per_file + CLIPS * CLIP_MB / 1000 * per_gb
        say(
            f"| {clips:,} | {shards:,} | {clips * CLIP_MB:,.0f} | "
            f"{' | '.join(f'{s:,.0f}' for s in seconds[:4])} | {clips * CLIP_MB:,.0f} | "
            f"{clips * CLIP_CPU_S:,.1f} |"
        )


def timed(work: Path, files: int, mb: int) -> Folder:
    """Runs the commands in an empty DVC project in ``work``."""
    dvc(work, "init", "--no-scm")
    dvc(work, "config", "core.analytics", "false")
    dvc(work, "config", "core.site_cache_dir", str(work / "site"))
    dvc(work, "remote", "add", "--default", "store", str(work / "store"))
    data = work / "data"
    data.mkdir()
    rng = random.Random(files)  # noqa: S311 - not a secret
    for number in range(files):
        (data / f"{number:06d}.tar").write_bytes(rng.randbytes(mb * 1_000_000 // files))
    seconds = [dvc(work, *command) for command in (("add", "data"), ("status",), ("push",))]
    shutil.rmtree(data)
    seconds.append(dvc(work, "checkout"))
    (data / "000000.tar").write_bytes(rng.randbytes(mb * 1_000_000 // files))
    seconds += [dvc(work, "add", "data"), dvc(work, "push")]
    return Folder(files=files, mb=mb, seconds=tuple(seconds))


def dvc(work: Path, *args: str) -> float:
    """Wall seconds of a command; raises CalledProcessError if it fails."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "dvc", *args, "--quiet"],
        cwd=work, timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    return time.perf_counter() - began


def fitted(folders: list[Folder]) -> tuple[npt.NDArray[np.float64], ...]:
    """Least squares, each (commands,): seconds per command, per file and per GB, none negative."""
    sizes = np.array([[1.0, folder.files, folder.mb / 1000] for folder in folders])
    solution, *_ = np.linalg.lstsq(
        sizes, np.array([folder.seconds for folder in folders]), rcond=None
    )
    return tuple(np.maximum(solution, 0.0))


def _row(seconds: npt.ArrayLike) -> str:
    return " | ".join(f"{s:.2f}" for s in np.asarray(seconds))


if __name__ == "__main__":
    main()
