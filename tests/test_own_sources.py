"""Experiments on real sources that neither git nor DVC has, in the repository and beside it."""

import csv
import json
import shutil
from pathlib import Path
from tempfile import gettempdir

import pytest
from repository import ROOT, Repository, make_repository

SHARED = ROOT.parent / "shared"
CHANGES = {
    "download": {
        "source": "files", "vggsound_csv": "../shared/data/vggsound.csv",
        "vggsound_media": "../shared/data/clips", "vggsound_splits": ["train", "test"],
        "msrvtt_csv": "data/sources/test.csv", "msrvtt_media": "../shared/data/clips",
    },
    "captions": {
        "coco": "data/sources/coco", "flickr30k": "data/sources/flickr",
        "vectors": "../shared/data/word2vec/glove300-1576.bin", "image_px": 40,
    },
    "leaks": {"test_in_training": "leave_out"},
}  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """At the tiny scale, reproduced and committed."""
    (tmp_path / "shared").symlink_to(SHARED)
    test_set = {
        "kind": "text_video", "path": "data/sources/test.csv", "protocol": "standard",
        "duplicates": "own",
    }  # fmt: skip
    changes = CHANGES | {"evaluate": {"sets": {"msrvtt": test_set}}}
    repository = make_repository(tmp_path / "repository", changes, Path(gettempdir()))
    sources = repository.folder / "data/sources"
    sources.mkdir(parents=True)
    shutil.copytree(SHARED / "data/coco", sources / "coco")
    shutil.copy(SHARED / "data/msrvtt_style_test.csv", sources / "test.csv")
    copy_of_flickr(sources / "flickr", images=30)
    (repository.folder / "experiments").mkdir()
    shutil.copy(ROOT / "experiments/table1.yaml", repository.folder / "experiments")
    repository.run("dvc", "repro", "--quiet")
    repository.commit("run")
    return repository


def copy_of_flickr(folder: Path, images: int) -> None:
    (folder / "images").mkdir(parents=True)
    with (SHARED / "data/flickr8k/results.csv").open(newline="") as source:
        rows = list(csv.reader(source, delimiter="|"))[: 1 + 5 * images]
    with (folder / "results.csv").open("w", newline="") as target:
        csv.writer(target, delimiter="|").writerows(rows)
    for name in {row[0] for row in rows[1:]}:
        shutil.copy(SHARED / "data/flickr8k/images" / name, folder / "images")


@pytest.mark.nightly
@pytest.mark.skipif(not (SHARED / "data").exists(), reason="../shared/data is missing")
def test_experiments_run_on_sources_of_ones_own(repository: Repository) -> None:
    """As a user types them, and as a series; stages before training are not run again."""
    said = repository.run(
        "dvc", "exp", "run", "--temp", "--name", "heavy", "-S", "evaluate.audio_weight=0.5"
    )
    for stage in ("download", "extract", "captions", "train"):
        assert f"Stage '{stage}' didn't change, skipping" in said
    assert "Running stage 'evaluate@" in said
    again = repository.run(
        "dvc", "exp", "run", "--temp", "--name", "more", "-S", "captions.frequent_words=10"
    )
    assert "Running stage 'captions'" in again
    text = repository.run("trimodal", "experiments", "experiments/table1.yaml", "--seeds", "1,2")
    assert "| VM-ranking loss, image + audio |" in text
    comparison = json.loads((repository.folder / "metrics/comparison.json").read_text())
    assert comparison["seeds"] == [1, 2]
