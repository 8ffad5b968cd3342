"""Killed at any moment, the pipeline ends in the same bytes (docs/reliability.md)."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from kills import STAGES, TARGETS, Report, kill_until_done, leftovers, paces, products
from repository import make_repository

World = dict[str, dict[str, int]]

# Many small clips and shards, and steps enough to be killed between.
WORLD: World = {
    "demo": {"clips": 56},
    "extract": {"clips_per_shard": 4},
    "captions": {"images_per_shard": 8},
    "train": {"epochs": 3, "steps_per_epoch": 8},
    "machine": {"checkpoint_every_steps": 3},
}
LARGER = {
    "demo": {"clips": 350},
    "train": {"epochs": 3, "steps_per_epoch": 200},
    "machine": {"checkpoint_every_steps": 20},
}
TWO_WORKERS: World = {"machine": {"workers": 2, "loader_workers": 1}}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Folders with short paths for temporary files."""
    with TemporaryDirectory(prefix="kills-") as name:
        for folder in ("quiet", "disturbed"):
            (Path(name) / folder).mkdir()
        yield Path(name)


def compare_with_undisturbed(
    folder: Path, temporary: Path, world: World, kills_a_stage: int, seed: int
) -> Report:
    """Two scratch runs, one of them killed and with two workers, leave the same."""
    quiet = make_repository(folder / "quiet", world, temporary / "quiet")
    pace = paces(quiet)
    both = {name: world.get(name, {}) | TWO_WORKERS.get(name, {}) for name in world | TWO_WORKERS}
    disturbed = make_repository(folder / "disturbed", both, temporary / "disturbed")
    report = kill_until_done(disturbed, dict.fromkeys(STAGES, kills_a_stage), pace, seed)
    expected, found = products(quiet.folder), products(disturbed.folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert leftovers(disturbed) == []
    assert report.made_again == []
    every = world["machine"]["checkpoint_every_steps"]
    assert all(step % every == 0 for step in report.resumed_at[:-1])
    return report


def test_five_kills_spread_over_the_stages(tmp_path: Path, temporary: Path) -> None:
    report = compare_with_undisturbed(tmp_path, temporary, WORLD, 1, seed=1)
    assert report.kills.total() == 5
    assert len(report.kills) >= 3  # a stage that was over too soon leaves its kill to the next


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills_in_each_stage(seed: int, tmp_path: Path, temporary: Path) -> None:
    report = compare_with_undisturbed(tmp_path, temporary, {**WORLD, **LARGER}, 8, seed)
    assert report.kills.total() == 40
    assert report.kills.keys() == set(STAGES)
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
