"""A repository with a pipeline of its own that takes no time, for experiments by DVC."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

PARAMS = """
captions: {coco: data/sources/captions.txt, vectors: ../shared/vectors.txt}
loss: {margin_mode: fixed}
train: {seed: 1}
evaluate: {sets: {msrvtt: {kind: text_video}}}
"""
STAGES = """
stages:
  links:
    cmd: python -m pipeline.links --params params.yaml --stages dvc.yaml --done data/links.done
    outs: [data/links.done: {cache: false, persist: true}]
  captions:
    cmd: python captions.py
    params: [captions]
    deps: [data/links.done, "${captions.coco}", "${captions.vectors}", captions.py]
    outs: [data/captions.txt: {persist: true}]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, data/captions.txt]
    params: [loss, train]
    outs: [data/evaluation/msrvtt]
    metrics:
      - metrics/audit.json: {cache: false}
"""
CAPTIONS = """
import pathlib, yaml
sources = yaml.safe_load(open("params.yaml"))["captions"].values()
pathlib.Path("data/captions.txt").write_text(" ".join(open(path).read() for path in sources))
"""
# Stands for training and evaluation: ranks that depend on the params.
EVALUATE = """
import json, pathlib, yaml
import pyarrow.parquet as pq
from comparison_fixtures import audit, ranks_table, run
params = yaml.safe_load(open("params.yaml"))
seed, variable = params["train"]["seed"], params["loss"]["margin_mode"] == "variable"
made = run("x", 10 * seed + variable, better=0.5 * variable)
results = pathlib.Path("data/evaluation/msrvtt")
results.mkdir(parents=True, exist_ok=True)
pathlib.Path("metrics").mkdir(exist_ok=True)
pq.write_table(ranks_table(made.ranks["image"], made.ranks["image_audio"]),
               results / "ranks.parquet")
found = audit(data=open("data/captions.txt").read(), seed=seed)
for folder in (results, pathlib.Path("metrics")):
    (folder / "audit.json").write_text(json.dumps(found))
"""
TABLE1 = (ROOT / "experiments" / "table1.yaml").read_text()


def sh(*words: str) -> str:
    """Runs a command, which must succeed, and returns its output."""
    return subprocess.run(
        words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, text=True
    ).stdout


def fake_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commits the repository ``folder/project``, in which nothing has run, and goes there; one of
    its sources lies in it and one beside it, both unknown to git and DVC.
    """
    project = folder / "project"
    for path, text in {
        "params.yaml": PARAMS, "dvc.yaml": STAGES, "captions.py": CAPTIONS, "evaluate.py": EVALUATE,
        "experiments/table1.yaml": TABLE1, ".gitignore": "/data\n",
        "data/sources/captions.txt": "inside", "../shared/vectors.txt": "beside",
    }.items():  # fmt: skip
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    monkeypatch.chdir(project)
    for name, value in {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    sh("git", "init", "-q")
    sh("dvc", "init", "-q")
    sh("git", "add", "-A")
    sh("git", "commit", "-q", "-m", "first")
    return project


def experiment_files(name: str) -> dict[str, str]:
    """The text files that an experiment has committed, by path."""
    (ref,) = (ref for ref in sh("git", "for-each-ref", "--format=%(refname)").split()
              if ref.endswith(f"/{name}"))  # fmt: skip
    paths = sh("git", "ls-tree", "-r", "--name-only", ref).split()
    return {path: sh("git", "show", f"{ref}:{path}") for path in paths}
