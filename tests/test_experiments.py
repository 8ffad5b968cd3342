"""Experiments are run by DVC, and their results read back from its cache by their names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from trimodal.report import experiments
from trimodal.report.experiments import ExperimentError, compare_revisions, run_at, run_table1
from trimodal.report.significance import PairingError

PARAMS = "loss:\n  margin_mode: fixed\ntrain:\n  seed: 1\n"
STAGE = """
stages:
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py]
    params: [loss, train]
    outs: [data/evaluation/ranks.parquet]
    metrics:
      - metrics/audit.json: {cache: false}
"""
# Stands for training and evaluation: ranks that depend on the params.
SCRIPT = """
import json, pathlib, yaml
import pyarrow.parquet as pq
from comparison_fixtures import audit, ranks_table, run
params = yaml.safe_load(open("params.yaml"))
variable = params["loss"]["margin_mode"] == "variable"
made = run("x", 10 * params["train"]["seed"] + variable, better=0.5 * variable)
pathlib.Path("data/evaluation").mkdir(parents=True, exist_ok=True)
pathlib.Path("metrics").mkdir(exist_ok=True)
pq.write_table(ranks_table(made.ranks["image"], made.ranks["image_audio"]),
               "data/evaluation/ranks.parquet")
json.dump(audit(), open("metrics/audit.json", "w"))
"""


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=120)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one stage, evaluated and committed."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for name, value in {
        "PYTHONPATH": path, "PATH": tools,
        "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    Path("params.yaml").write_text(PARAMS)
    Path("dvc.yaml").write_text(STAGE)
    Path("evaluate.py").write_text(SCRIPT)
    sh("git", "init", "-q")
    sh("dvc", "init", "-q")
    sh("dvc", "repro", "-q")
    sh("git", "add", "-A")
    sh("git", "commit", "-q", "-m", "first")
    return tmp_path


@pytest.mark.nightly
def test_the_papers_comparison_is_run_and_read_back(project: Path) -> None:
    text = run_table1([2, 1])
    assert "| VM-ranking loss, image + audio |" in text
    comparison = json.loads((project / "metrics/comparison.json").read_text())
    assert comparison["seeds"] == [1, 2]
    assert comparison["queries"] == 200
    # The commit's own run is the experiment of fixed margin and seed 1.
    for revision in ("HEAD", "workspace"):
        assert (run_at(revision).ranks["image"] == run_at("table1-fixed-s1").ranks["image"]).all()
    table = compare_revisions("table1-fixed-s1", "table1-variable-s1")
    assert "| text to video | metric | table1-fixed-s1 | table1-variable-s1 | difference |" in table
    one, other = (run_at(f"table1-fixed-s{seed}").ranks["image"] for seed in (1, 2))
    assert (one != other).any()


def test_experiments_that_failed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []

    def dvc(*words: str, **_: float) -> str:
        commands.append(words)
        return "table1-fixed-s1\ntable1-variable-s1\ntable1-variable-s13\n"

    monkeypatch.setattr(experiments, "_dvc", dvc)
    with pytest.raises(ExperimentError, match=r"failed: table1-fixed-s13; see `dvc queue logs"):
        run_table1([13, 1, 13])
    assert ("exp", "remove", "table1-fixed-s1") in commands
    assert sum(words[:3] == ("exp", "run", "--queue") for words in commands) == 4


@pytest.mark.usefixtures("project")
def test_the_command_that_dvc_refuses_is_named() -> None:
    with pytest.raises(ExperimentError, match="dvc exp remove nothing failed"):
        experiments._dvc("exp", "remove", "nothing")


def test_results_are_read_at_a_revision_or_named_as_missing(project: Path) -> None:
    assert (run_at("HEAD").ranks["image"] == run_at("workspace").ranks["image"]).all()
    with pytest.raises(ExperimentError, match=r"nowhere: no data/evaluation/ranks\.parquet"):
        run_at("nowhere")
    (project / "data/evaluation/ranks.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        run_at("workspace")


def test_one_seed_is_refused_before_anything_runs() -> None:
    with pytest.raises(PairingError, match="two different seeds"):
        run_table1([1, 1])
