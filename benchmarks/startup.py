"""How soon the commands are there: ``python -m benchmarks.startup`` (needs `make repro` before).

Makes a project in which every stage is up to date: this repository's code, dvc.yaml and params, and
a stand-in file for every file that dvc.lock counts after a run of the demo, taken as the stages'
results by ``dvc commit``. Then runs ``dvc repro`` there, which has nothing to do, and ``dvc
status`` in an empty project with the same settings; ``trimodal --help`` beside Python that does
nothing; and the first answer of ``trimodal search``, in an index made here of some of the demo's
videos, beside ``import torch``. Prints a Markdown table: median seconds, and medians of the ratios
within a round.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks.measuring import ROOT, TIMEOUT_SECONDS, Timings, machine, ratio, say, side_by_side

CODE = (
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    ".gitignore",
    "pipeline",
    "trimodal",
    ".dvc/config",
)
TOOLS = Path(sys.executable).parent
# (the command, what it is compared with, how many times that it may take)
ALLOWED = (
    ("dvc repro", "dvc status", "2"),
    ("dvc repro, one stage that copies a file", "dvc status", ""),
    ("trimodal --help", "python -c ''", "8"),
    ("trimodal search --text ...", "python -c 'import torch'", "2.5"),
)
VIDEOS = 40  # indexed, to ask for


def main() -> None:
    """Makes both projects, times the commands in turn, prints the table, deletes the projects."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory(prefix="startup-") as name:
        folder = Path(name)
        files = finished_project(folder / "finished")
        empty_project(folder / "empty")
        one_stage_project(folder / "one")
        index_of_videos(folder)
        timings = side_by_side(
            {
                "dvc status": command(folder / "empty", str(TOOLS / "dvc"), "status"),
                "dvc repro": command(folder / "finished", str(TOOLS / "dvc"), "repro"),
                "dvc repro, one stage that copies a file": command(
                    folder / "one", str(TOOLS / "dvc"), "repro"
                ),
                "python -c ''": command(folder, sys.executable, "-c", ""),
                "trimodal --help": command(folder, str(TOOLS / "trimodal"), "--help"),
                "python -c 'import torch'": command(folder, sys.executable, "-c", "import torch"),
                "trimodal search --text ...": command(
                    ROOT,
                    str(TOOLS / "trimodal"),
                    "search",
                    "--store",
                    str(folder / "store"),
                    "--text",
                    "an owl hoots over a clock",
                ),
            },
            rounds,
        )
    say(f"{machine()}; {rounds} rounds; {files:,} files in the finished project\n")
    say("| command | seconds | CPU seconds | beside | times as long | CPU | allowed |")
    say("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for name, other, allowed in ALLOWED:
        say(f"{row(other, timings[other])} | | | |")
        times = ratio(timings[name].wall_s, timings[other].wall_s)
        cpu = ratio(timings[name].cpu_s, timings[other].cpu_s)
        say(f"{row(name, timings[name])} {other} | {times:.2f} | {cpu:.2f} | {allowed} |")


def row(name: str, timings: Timings) -> str:
    """The table's columns of one command alone."""
    return f"| `{name}` | {timings.wall:.3f} | {timings.cpu:.3f} |"


def command(folder: Path, *words: str) -> "Callable[[], subprocess.CompletedProcess[bytes]]":
    """A call that runs the words in ``folder``; it raises CalledProcessError if they fail."""
    return lambda: subprocess.run(
        [*words], cwd=folder, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
    )


def empty_project(folder: Path) -> None:
    """A repository under git and DVC without a stage, with this project's settings."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    command(folder, "git", "init", "--quiet")()


def one_stage_project(folder: Path) -> None:
    """The least that ``dvc repro`` can look at: one stage, one dependency, one output, done."""
    empty_project(folder)
    (folder / "from.txt").write_text("content")
    stage = {"cmd": "cp from.txt to.txt", "deps": ["from.txt"], "outs": ["to.txt"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}))
    command(folder, str(TOOLS / "dvc"), "repro", "--quiet")()


def index_of_videos(folder: Path) -> None:
    """An index of some of the demo's videos in ``folder``."""
    (folder / "videos").mkdir()
    for video in sorted((ROOT / "data/clips/demo").glob("video*.mp4"))[:VIDEOS]:
        shutil.copy(video, folder / "videos")
    command(
        ROOT, str(TOOLS / "trimodal"), "index", str(folder / "videos"),
        "--store", str(folder / "store"),
    )()  # fmt: skip


def finished_project(folder: Path) -> int:
    """The project after a run of the demo, its results but stand-ins; returns how many files."""
    empty_project(folder)
    for name in CODE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    for path, files in sorted(recorded().items(), reverse=True):  # what lies within, first
        stand_in(folder / path, files)
    command(folder, str(TOOLS / "dvc"), "commit", "--force", "--quiet")()
    done = command(folder, str(TOOLS / "dvc"), "repro")()
    if b"Data and pipelines are up to date." not in done.stdout:
        raise RuntimeError(f"dvc repro found something to do: {done.stdout.decode()}")
    return sum(path.is_file() for path in folder.glob("[!.]*/**/*"))


def recorded() -> dict[str, int | None]:
    """The files and folders that stages read and leave by dvc.lock, the code apart: how many files
    a folder has; None for a file.
    """
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"].values()
    entries = [entry for stage in stages for kind in ("deps", "outs") for entry in stage[kind]]
    return {
        entry["path"]: entry.get("nfiles")
        for entry in entries
        if not entry["path"].startswith(("trimodal", "pipeline"))
    }


def stand_in(path: Path, files: int | None) -> None:
    """A small file at ``path``; or a folder in which, with those already in it, are ``files``."""
    if files is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
        return
    path.mkdir(parents=True, exist_ok=True)
    there = sum(file.is_file() for file in path.rglob("*"))
    for number in range(files - there):
        (path / f"{number:06d}.bin").write_text(f"{path.name} {number}")


if __name__ == "__main__":
    main()
