"""What is handed on: wheel and sdist, the container's files, and the facts that they state."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import yaml
from dependencies import ROOT
from model_fixtures import Tool
from PIL import Image
from training_fixtures import TinyData

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EMBED = """
import json, sys
from trimodal import Trimodal
model = Trimodal.from_pretrained(sys.argv[1], device="cpu")
parts = [model.embed_text(["a grey bird"]), model.embed_audio([sys.argv[2]])]
parts.append(model.embed_images([sys.argv[3]]))
print(json.dumps([part[0].tolist() for part in parts]))
"""


def tracked(*under: str) -> list[Path]:
    """The files of the repository, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *under]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines() if (ROOT / line).is_file()]


def test_package_data_are_complete() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["trimodal"]
    data = [path.relative_to("trimodal") for path in tracked("trimodal") if path.suffix != ".py"]
    assert len(data) > 10
    for path in data:
        assert any(fnmatch(str(path), pattern) for pattern in patterns), path


def test_versions_and_pythons_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    heading = next(x for x in (ROOT / "CHANGELOG.md").read_text().splitlines() if x[:3] == "## ")
    assert heading in (f"## {PROJECT['version']}", f"## Unreleased ({PROJECT['version']})")
    stated = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())
    assert workflow["jobs"]["checks"]["strategy"]["matrix"]["python"] == stated
    first, last = stated[0], int(stated[-1].partition(".")[2])
    assert PROJECT["requires-python"] == f">={first},<3.{last + 1}"


def test_the_workflow_and_the_container_run_what_is_there() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["checks"]["steps"] if "run" in step]
    assert commands == ["bash .ci/run"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    targets = re.findall(r"make (\.\S+)", dockerfile) + re.findall(r'"make", "(\S+)"', dockerfile)
    assert targets == [".venv/.installed", "repro"]
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {".venv", "data", "models"} <= set(ignored)


def run(*command: str | Path, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def venv(tmp_path: Path) -> Iterator[Path]:
    """Removed at the end: pytest keeps the folders of three runs."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    yield tmp_path / "venv"
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.nightly
def test_a_wheel_of_the_sdist_embeds_in_an_empty_environment(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, venv: Path
) -> None:
    """With nothing but the base's packages, which pip fetches (6 GB)."""
    source = tmp_path / "source"
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    build = "import sys; from setuptools import build_meta as b; print(b.{}(sys.argv[1]))"
    run(sys.executable, "-c", build.format("build_sdist"), tmp_path, cwd=source)
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    run(sys.executable, "-c", build.format("build_wheel"), tmp_path, cwd=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {Path(name) for name in ZipFile(wheel).namelist()}
    assert set(tracked("trimodal")) <= packed
    assert {path.parts[0].partition("-")[0] for path in packed} == {"trimodal"}

    python = venv / "bin/python"
    constraints = ("--constraint", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", *constraints, wheel, cwd=tmp_path)
    clip = tiny_data.av_dir.parent / "clips" / "0.mp4"
    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(picture)
    text, audio, image = json.loads(
        run(python, "-c", EMBED, tool.path, clip, picture, cwd=tmp_path)
    )
    np.testing.assert_allclose(text, tool.model.embed_text(["a grey bird"])[0], atol=1e-5)
    np.testing.assert_allclose(audio, tool.model.embed_audio([clip])[0], atol=1e-5)
    np.testing.assert_allclose(image, tool.model.embed_images([picture])[0], atol=1e-5)
    assert "search" in run(venv / "bin/trimodal", "--help", cwd=tmp_path)
    done = subprocess.run(
        [venv / "bin/trimodal", "index", tmp_path, "--model", tool.path],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "trimodal: lancedb is not installed: pip install 'trimodal[search]'\n"
