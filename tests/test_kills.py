"""Killed at any moment, the pipeline ends in the same bytes (docs/reliability.md)."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from kills import STAGES, TARGETS, Report, durations, kill_until_done, leftovers, products
from repository import make_repository

# Many small clips and shards, and steps enough to be killed between.
WORLD = {
    "demo": {"clips": 56},
    "extract": {"clips_per_shard": 4},
    "captions": {"images_per_shard": 8},
    "train": {"epochs": 3, "steps_per_epoch": 8, "checkpoint_every": 3},
}
TWO_WORKERS = {
    "download": {"workers": 2},
    "extract": {"workers": 2},
    "captions": {"workers": 2},
    "train": {"loader_workers": 1},
}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Folders with short paths for temporary files."""
    with TemporaryDirectory(prefix="kills-") as name:
        for folder in ("quiet", "disturbed"):
            (Path(name) / folder).mkdir()
        yield Path(name)


def compare_with_undisturbed(
    folder: Path, temporary: Path, kills_a_stage: int, seed: int
) -> Report:
    """Two scratch runs, one of them killed and with two workers, leave the same."""
    quiet = make_repository(folder / "quiet", WORLD, temporary / "quiet")
    seconds = durations(quiet)
    both = {name: WORLD.get(name, {}) | TWO_WORKERS.get(name, {}) for name in WORLD | TWO_WORKERS}
    disturbed = make_repository(folder / "disturbed", both, temporary / "disturbed")
    report = kill_until_done(disturbed, dict.fromkeys(STAGES, kills_a_stage), seconds, seed)
    expected, found = products(quiet.folder), products(disturbed.folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert leftovers(disturbed) == []
    assert report.made_again == []
    assert all(step % WORLD["train"]["checkpoint_every"] == 0 for step in report.resumed_at[:-1])
    return report


def test_five_kills_one_in_each_stage(tmp_path: Path, temporary: Path) -> None:
    report = compare_with_undisturbed(tmp_path, temporary, 1, seed=1)
    assert report.kills == Counter(dict.fromkeys(STAGES, 1))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills_in_each_stage(seed: int, tmp_path: Path, temporary: Path) -> None:
    report = compare_with_undisturbed(tmp_path, temporary, 8, seed)
    assert report.kills == Counter(dict.fromkeys(STAGES, 8))
    assert report.targets.keys() == set(TARGETS)
    figures = {
        "kills": dict(report.kills),
        "targets": dict(report.targets),
        "finished clips and shards": report.finished,
        "of them made again": len(report.made_again),
        "training went on behind steps": report.resumed_at,
    }
    if out := os.environ.get("NIGHTLY_FIGURES"):
        with Path(out).open("a") as lines:
            lines.write(json.dumps(figures) + "\n")
