"""Start-up time of the commands: ``python -m benchmarks.startup`` (run `make repro` before).

Creates a project in which every stage is up to date: this repository's code, dvc.yaml and params,
and a placeholder for every file that dvc.lock lists after a run of the demo, accepted as the
stages' outputs by ``dvc commit``. Times ``dvc repro`` there, which has nothing to do, against ``dvc
status`` in an empty project with the same settings; ``trimodal --help`` against ``python -c ''``;
and the first query of ``trimodal search``, in an index of some of the demo's videos, against
``import torch``. Prints a Markdown table: median seconds, and medians of the ratios within a round.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks.measuring import (
    ROOT,
    TIMEOUT_SECONDS,
    Timings,
    describe_machine,
    ratio,
    say,
    side_by_side,
)
from trimodal.core.arguments import positive

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
# (command, reference, maximum ratio)
COMPARISONS = (
    ("dvc repro", "dvc status", "2"),
    ("dvc repro, one stage that copies a file", "dvc status", ""),
    ("trimodal --help", "python -c ''", "8"),
    ("trimodal search --text ...", "python -c 'import torch'", "1.5"),
)
VIDEOS = 40  # in the index


def main() -> None:
    """Creates the projects, times the commands in turn, prints the table, deletes the projects."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=11)
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
    say(f"{describe_machine()}; {rounds} rounds; {files:,} files in the finished project\n")
    say("| command | seconds | CPU seconds | reference | ratio | CPU ratio | allowed |")
    say("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for name, reference, allowed in COMPARISONS:
        say(f"{row(reference, timings[reference])} | | | |")
        times = ratio(timings[name].wall_s, timings[reference].wall_s)
        cpu = ratio(timings[name].cpu_s, timings[reference].cpu_s)
        say(f"{row(name, timings[name])} {reference} | {times:.2f} | {cpu:.2f} | {allowed} |")


def row(name: str, timings: Timings) -> str:
    """The first columns of a command's line."""
    return f"| `{name}` | {timings.wall:.3f} | {timings.cpu:.3f} |"


def command(folder: Path, *words: str) -> "Callable[[], subprocess.CompletedProcess[bytes]]":
    """A function that runs a command in ``folder`` and raises CalledProcessError if it fails."""
    return lambda: subprocess.run(
        [*words], cwd=folder, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
    )


def empty_project(folder: Path) -> None:
    """A Git and DVC repository without stages, with this project's DVC settings."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    command(folder, "git", "init", "--quiet")()


def one_stage_project(folder: Path) -> None:
    """The smallest pipeline: one finished stage with one dependency and one output."""
    empty_project(folder)
    (folder / "from.txt").write_text("content")
    stage = {"cmd": "cp from.txt to.txt", "deps": ["from.txt"], "outs": ["to.txt"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}))
    command(folder, str(TOOLS / "dvc"), "repro", "--quiet")()


def index_of_videos(folder: Path) -> None:
    """Indexes some of the demo's videos in ``folder``."""
    (folder / "videos").mkdir()
    for video in sorted((ROOT / "data/clips/demo").glob("video*.mp4"))[:VIDEOS]:
        shutil.copy(video, folder / "videos")
    command(
        ROOT, str(TOOLS / "trimodal"), "index", str(folder / "videos"),
        "--store", str(folder / "store"),
    )()  # fmt: skip


def finished_project(folder: Path) -> int:
    """The project after a run of the demo, with placeholders for its data; returns its number of
    files.
    """
    empty_project(folder)
    for name in CODE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    for path, files in sorted(recorded_data().items(), reverse=True):  # inner paths first
        write_placeholder(folder / path, files)
    command(folder, str(TOOLS / "dvc"), "commit", "--force", "--quiet")()
    result = command(folder, str(TOOLS / "dvc"), "repro")()
    if b"Data and pipelines are up to date." not in result.stdout:
        raise RuntimeError(f"not up to date: {result.stdout.decode()}")
    return sum(path.is_file() for path in folder.glob("[!.]*/**/*"))


def recorded_data() -> dict[str, int | None]:
    """The dependencies and outputs in dvc.lock except code: the number of files of a folder, None
    for a file.
    """
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"].values()
    entries = [entry for stage in stages for kind in ("deps", "outs") for entry in stage[kind]]
    return {
        entry["path"]: entry.get("nfiles")
        for entry in entries
        if not entry["path"].startswith(("trimodal", "pipeline", "params.yaml"))
    }


def write_placeholder(path: Path, files: int | None) -> None:
    """Writes a small file at ``path``; or a folder, filled up to ``files`` files."""
    if files is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
        return
    path.mkdir(parents=True, exist_ok=True)
    existing = sum(file.is_file() for file in path.rglob("*"))
    for number in range(files - existing):
        (path / f"{number:06d}.bin").write_text(f"{path.name} {number}")


if __name__ == "__main__":
    main()
