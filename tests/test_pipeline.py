"""The DAG end to end on a tiny world, through DVC, in a repository of its own. (tests/test_kills.py
starts it as users do.)
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from forked import run_dvc
from repository import Repository, make_repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A git repository with the project's files and tiny params, reproduced once."""
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    repository = make_repository(folder, {}, Path(gettempdir()))
    dvc(repository, "repro")
    repository.commit("results")
    return repository


def dvc(repository: Repository, *arguments: str) -> str:
    return run_dvc(*arguments, cwd=repository.folder, env=repository.environment)


def stages_run(said: str) -> list[str]:
    """The stages that a `dvc repro` or `dvc exp run` says it runs, or with --dry would begin at."""
    return re.findall(r"Running stage '([\w@]+)'", said)


def set_param(folder: Path, section: str, key: str, value: Any) -> Any:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    before, params[section][key] = params[section][key], value
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return before


def audit_of(folder: Path) -> Any:
    return json.loads((folder / "metrics/audit.json").read_text())["msrvtt"]


def finite_numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for value in content.values():
            yield from finite_numbers(value)
    elif isinstance(content, list):  # an interval
        for value in content:
            yield from finite_numbers(value)
    else:
        assert isinstance(content, (int, float)), content
        assert math.isfinite(content)
        yield content


def test_every_output_is_there_and_sound(repository: Repository) -> None:
    folder = repository.folder
    measures = json.loads((folder / "metrics/measures.json").read_text())["msrvtt"]
    assert len(list(finite_numbers(measures))) > 50
    headline, train = (
        list(finite_numbers(json.loads((folder / "metrics" / name).read_text())))
        for name in ("retrieval.json", "train/metrics.json")
    )
    assert (len(headline), len(train)) == (6, 4)
    modalities = ("text", "image", "audio")
    assert set(measures["directions"]) == {f"{a}_to_{b}" for a, b in permutations(modalities, 2)}
    audit = audit_of(folder)
    assert audit["queries"] == audit["gallery"] == 4
    ranks = pq.read_table(folder / "data/evaluation/msrvtt/ranks.parquet")
    assert len(ranks) == 4
    assert (folder / "metrics/report/report.md").read_text().count("ours:") == 2
    assert not list(folder.rglob("*.tmp"))


def test_a_second_repro_does_nothing(repository: Repository) -> None:
    assert "up to date" in dvc(repository, "repro")


@pytest.mark.parametrize(
    ("section", "key", "value", "first"),
    [
        ("loss", "margin", 0.3, ["train"]),
        ("window", "decibel", "amplitude", ["train"]),
        ("window", "seconds", 2.0, ["train"]),
        ("mel", "mels", 32, ["extract", "train"]),
        ("machine", "workers", 3, []),
        ("machine", "checkpoint_every_steps", 7, []),
        ("captions", "jpeg_quality", 80, ["captions"]),
        ("extract", "jpeg_quality", 80, ["extract"]),
    ],
)
def test_a_change_begins_at_the_stage_it_concerns(
    repository: Repository, section: str, key: str, value: Any, first: list[str]
) -> None:
    folder = repository.folder
    before = set_param(folder, section, key, value)
    try:
        assert stages_run(dvc(repository, "repro", "--dry")) == ["check", *first]
    finally:
        set_param(folder, section, key, before)


@pytest.mark.nightly
def test_another_audio_weight_evaluates_again_and_no_more(repository: Repository) -> None:
    folder, run = repository.folder, repository.run
    set_param(folder, "evaluate", "audio_weight", 0.5)
    assert stages_run(run("dvc", "repro")) == ["check", "evaluate@msrvtt", "metrics", "report"]
    assert audit_of(folder)["audio_weight"] == 0.5


@pytest.mark.nightly
def test_collapsed_embeddings_stop_the_pipeline_and_leave_an_audit(
    repository: Repository,
) -> None:
    folder, run = repository.folder, repository.run
    before = set_param(folder, "evaluate", "max_mean_cosine", -1.0)
    with pytest.raises(AssertionError, match=r"image embeddings have collapsed"):
        run("dvc", "repro")
    results = folder / "data/evaluation/msrvtt"
    assert "geometry" in json.loads((results / "audit.json").read_text())
    assert not (results / "metrics.json").exists()
    set_param(folder, "evaluate", "max_mean_cosine", before)
    run("dvc", "repro")
    assert (results / "metrics.json").exists()


@pytest.mark.nightly
def test_an_experiment_is_one_command_and_can_be_compared(repository: Repository) -> None:
    folder, run = repository.folder, repository.run
    said = run("dvc", "exp", "run", "-S", "loss.margin_mode=variable")
    assert stages_run(said) == ["check", "train", "evaluate@msrvtt", "metrics", "report"]
    assert audit_of(folder)["margin_mode"] == "variable"
    assert "msrvtt.text_to_video.image.R@1" in run("dvc", "metrics", "show", "--md")
    difference = json.loads(run("dvc", "metrics", "diff", "--json"))
    assert any(path.endswith("train/metrics.json") for path in difference)
    assert "variable" in run("dvc", "exp", "show", "--csv")
    run("dvc", "plots", "show")
    page = (folder / "dvc_plots" / "index.html").read_text()
    titles = re.findall(r'"title": {"text": "([^"]+)"', page)
    assert titles[:2] == ["Loss in training and validation", "Recall on the validation data"]
    assert titles[-1].startswith("Recall by the audio's share of the score")
    for name in ("train/loss.tsv", "val/loss.tsv"):  # lines of one picture
        assert f'"filename": "{name}"' in page
    assert run("git", "status", "--short", "dvc_plots") == ""


@pytest.mark.nightly
@pytest.mark.parametrize("command", [("repro",), ("exp", "run")], ids=" ".join)
def test_a_mistake_in_the_params_costs_no_output(
    repository: Repository, command: tuple[str, ...]
) -> None:
    """Also one of another stage, and where the code has changed, so that train would run."""
    folder, run = repository.folder, repository.run
    before = (folder / "models/trimodal/model.safetensors").read_bytes()
    code = folder / "pipeline/train.py"
    mode, text = set_param(folder, "loss", "margin_mode", "varable"), code.read_text()
    code.write_text(text + "# changed\n")
    try:
        with pytest.raises(AssertionError, match=r"check: params\.yaml: loss\.margin_mode: Input"):
            run("dvc", *command)
        assert (folder / "models/trimodal/model.safetensors").read_bytes() == before
    finally:
        set_param(folder, "loss", "margin_mode", mode)
        code.write_text(text)


@pytest.mark.nightly
def test_a_second_clone_pulls_and_runs_no_work(repository: Repository, tmp_path: Path) -> None:
    folder, run = repository.folder, repository.run
    run("dvc", "repro")
    # Git takes a file for unchanged that was rewritten within a second with the same size, which
    # only a tiny training does.
    run("git", "rm", "-r", "--cached", "--quiet", "metrics")
    run("git", "add", "-A")
    run("git", "commit", "--quiet", "--allow-empty", "--message", "results")
    run("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    run("dvc", "push")
    run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", Path(gettempdir()))
    clone.run("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    clone.run("dvc", "pull")
    assert stages_run(clone.run("dvc", "repro")) == ["check", "links"]
    assert "up to date" in clone.run("dvc", "status")
    assert clone.run("git", "status", "--short") == ""
    model = "models/trimodal/model.safetensors"
    assert (clone.folder / model).read_bytes() == (folder / model).read_bytes()
