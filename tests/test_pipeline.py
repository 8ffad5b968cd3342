"""The DAG end to end on a tiny world, through DVC as a user runs it, in a repository of its own."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[1]
TINY = {
    "demo": {"clips": 28, "clip_seconds": 4.0, "images_per_clip": 2, "frame_px": 48, "fps": 4},
    "download": {"workers": 1},
    "extract": {"frame_px": 40, "workers": 1},
    "captions": {"image_px": 40, "workers": 1},
    "augment": {"crop_px": 32},
    "model": {"width": 4},
    "train": {"batch_size": 4, "epochs": 2, "steps_per_epoch": 2, "loader_workers": 0},
    # Four steps do not teach a network to tell things apart.
    "evaluate": {"curve_steps": 4, "min_effective_rank": 1.0, "max_mean_cosine": 1.0},
}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A git repository with the project's files and tiny params, reproduced once."""
    folder = tmp_path_factory.mktemp("repository")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost",
        "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / ".site"),
    }  # fmt: skip

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    for name in ("trimodal", "pipeline", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "metrics/comparison.json", ".dvc/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("\n.site/\n")
    run("git", "init", "--quiet")
    run("git", "add", "-A")
    run("git", "commit", "--quiet", "--message", "tiny")
    run("dvc", "repro")
    run("git", "add", "-A")
    run("git", "commit", "--quiet", "--message", "results")
    return folder, run


def stages_run(said: str) -> list[str]:
    """The stages that a `dvc repro` or `dvc exp run` says it runs, or with --dry would begin at."""
    return re.findall(r"Running stage '(\w+)'", said)


def set_param(folder: Path, section: str, key: str, value: Any) -> Any:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    before, params[section][key] = params[section][key], value
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return before


def finite_numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for value in content.values():
            yield from finite_numbers(value)
    else:
        assert isinstance(content, (int, float)), content
        assert math.isfinite(content)
        yield content


def test_every_output_is_there_and_sound(repository: tuple[Path, Run]) -> None:
    folder, _ = repository
    metrics = json.loads((folder / "metrics/retrieval.json").read_text())
    assert len(list(finite_numbers(metrics))) > 50
    modalities = ("text", "image", "audio")
    assert set(metrics["directions"]) == {f"{a}_to_{b}" for a, b in permutations(modalities, 2)}
    audit = json.loads((folder / "metrics/audit.json").read_text())
    assert audit["queries"] == audit["gallery"] == 4
    ranks = pq.read_table(folder / "data/evaluation/ranks.parquet")
    assert len(ranks) == 4
    assert (folder / "metrics/report/report.md").read_text().count("ours:") == 2
    assert not list(folder.rglob("*.tmp"))


def test_a_second_repro_does_nothing(repository: tuple[Path, Run]) -> None:
    _, run = repository
    assert "up to date" in run("dvc", "repro")


@pytest.mark.parametrize(
    ("section", "key", "value", "first"),
    [
        ("loss", "margin", 0.3, ["train"]),
        ("mel", "decibel", "amplitude", ["train"]),
        ("captions", "jpeg_quality", 80, ["captions"]),
        ("extract", "jpeg_quality", 80, ["extract"]),
    ],
)
def test_a_change_begins_at_the_stage_it_concerns(
    repository: tuple[Path, Run], section: str, key: str, value: Any, first: list[str]
) -> None:
    folder, run = repository
    before = set_param(folder, section, key, value)
    try:
        assert stages_run(run("dvc", "repro", "--dry")) == first
    finally:
        set_param(folder, section, key, before)


def test_another_audio_weight_evaluates_again_and_no_more(repository: tuple[Path, Run]) -> None:
    folder, run = repository
    set_param(folder, "evaluate", "audio_weight", 0.5)
    assert stages_run(run("dvc", "repro")) == ["evaluate", "report"]
    assert json.loads((folder / "metrics/audit.json").read_text())["audio_weight"] == 0.5


def test_collapsed_embeddings_stop_the_pipeline_and_leave_an_audit(
    repository: tuple[Path, Run],
) -> None:
    folder, run = repository
    before = set_param(folder, "evaluate", "max_mean_cosine", -1.0)
    with pytest.raises(AssertionError, match=r"image embeddings have collapsed"):
        run("dvc", "repro")
    assert "geometry" in json.loads((folder / "metrics/audit.json").read_text())
    assert not (folder / "metrics/retrieval.json").exists()
    set_param(folder, "evaluate", "max_mean_cosine", before)
    run("dvc", "repro")
    assert (folder / "metrics/retrieval.json").exists()


def test_an_experiment_is_one_command_and_can_be_compared(repository: tuple[Path, Run]) -> None:
    folder, run = repository
    said = run("dvc", "exp", "run", "-S", "loss.margin_mode=variable")
    assert stages_run(said) == ["train", "evaluate", "report"]
    assert json.loads((folder / "metrics/audit.json").read_text())["margin_mode"] == "variable"
    assert "text_to_video.image.R@1" in run("dvc", "metrics", "show", "--md")
    difference = json.loads(run("dvc", "metrics", "diff", "--json"))
    assert any(path.endswith("train/metrics.json") for path in difference)
    assert "variable" in run("dvc", "exp", "show", "--csv")
    run("dvc", "plots", "show")
    page = (folder / "dvc_plots" / "index.html").read_text()
    assert "audio_weight" in page
