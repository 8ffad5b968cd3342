"""Commands and workers import no heavy packages that they do not need."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
LOADED_BY_A_COMMAND = """
import runpy, sys
before = set(sys.modules)
sys.argv = ["a command", *sys.argv[1:]]
try:
    runpy.run_module({module!r}, run_name="__main__")
finally:
    loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
    print("loaded:", *sorted(loaded - sys.stdlib_module_names))
"""


def python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs code in a fresh Python in this repository's root."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [("--help",), (), ("--no-such-option",)])
@pytest.mark.parametrize("module", [f"pipeline.{stage}" for stage in STAGES])
def test_help_and_a_wrong_command_line_import_nothing(
    module: str, arguments: tuple[str, ...]
) -> None:
    done = python(LOADED_BY_A_COMMAND.format(module=module), *arguments)
    assert "usage: " in (done.stdout if arguments == ("--help",) else done.stderr)
    assert done.returncode == (0 if arguments == ("--help",) else 2)
    assert done.stdout.splitlines()[-1] == f"loaded: {module.split('.')[0]}"


@pytest.mark.parametrize(("arguments", "code"), [(("--help",), 0), ((), 2), (("serch",), 2)])
def test_the_command_imports_only_its_parser(arguments: tuple[str, ...], code: int) -> None:
    done = python(LOADED_BY_A_COMMAND.format(module="trimodal"), *arguments)
    assert "Usage: trimodal" in (done.stdout if code == 0 else done.stderr)
    assert done.returncode == code
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert loaded >= {"trimodal", "typer", "shellingham", "annotated_doc"}
    assert len(loaded) == 4 or arguments == ("serch",)
    assert not loaded & {"torch", "numpy", "pyarrow", "rich", "tqdm", "dvc"}


# Workers import the modules of their jobs; these must stay small.
@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("trimodal.core.shards", {"torch", "webdataset", "nltk", "scipy"}),
        ("trimodal.preprocess.image_shards", {"nltk", "scipy", "torchaudio"}),
        ("trimodal.preprocess.captions", {"nltk", "scipy", "torchaudio"}),
        ("trimodal.download.local", {"torch", "webdataset", "nltk"}),
        ("trimodal.download.demo_clips", {"torch", "webdataset", "nltk"}),
        ("trimodal.preprocess.extract", {"torchvision", "librosa", "numba", "scipy", "nltk"}),
    ],
)
def test_workers_stay_small(module: str, unwanted: set[str]) -> None:
    done = python(f"import {module}, sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert module in done.stdout.split()
    assert not unwanted & set(done.stdout.split())
