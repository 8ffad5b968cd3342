"""Killed at any moment, the pipeline ends in the same bytes (docs/reliability.md)."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from kills import STAGES, TARGETS, Report, kill_until_done, leftovers, products
from repository import make_repository
from shared_folder import built_once
from undisturbed import WORLD, World, paces_in, run_undisturbed

LARGER = {
    "demo": {"clips": 350},
    "train": {"epochs": 3, "steps_per_epoch": 200},
    "machine": {"checkpoint_every_steps": 20},
}
TWO_WORKERS: World = {"machine": {"workers": 2, "loader_workers": 1}}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a short path for temporary files."""
    with TemporaryDirectory(prefix="kills-") as name:
        yield Path(name)


def compare_with_undisturbed(
    quiet: Path, folder: Path, temporary: Path, world: World, kills: Mapping[str, int], seed: int
) -> Report:
    """A run that is killed and has two workers leaves what the quiet one left."""
    both = {
        name: {**world.get(name, {}), **TWO_WORKERS.get(name, {})}
        for name in {**world, **TWO_WORKERS}
    }
    disturbed = make_repository(folder / "disturbed", both, temporary)
    report = kill_until_done(disturbed, kills, paces_in(quiet), seed)
    expected, found = products(quiet / "repository"), products(disturbed.folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert leftovers(disturbed) == []
    assert report.made_again == []
    every = world["machine"]["checkpoint_every_steps"]
    assert all(step % every == 0 for step in report.resumed_at[:-1])
    return report


@pytest.mark.nightly
def test_five_kills_spread_over_the_stages(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, temporary: Path
) -> None:
    with built_once(tmp_path_factory, "undisturbed", run_undisturbed) as quiet:
        pass  # nobody writes there any more
    kills = dict.fromkeys(STAGES, 1)
    report = compare_with_undisturbed(quiet, tmp_path, temporary, WORLD, kills, seed=1)
    assert report.kills.total() == 5
    assert len(report.kills) >= 3  # a stage that was over too soon leaves its kill to the next


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills_in_each_stage(seed: int, tmp_path: Path, temporary: Path) -> None:
    world = {**WORLD, **LARGER}
    run_undisturbed(tmp_path / "quiet", world, timed=True)
    report = compare_with_undisturbed(
        tmp_path / "quiet", tmp_path, temporary, world, dict.fromkeys(STAGES, 8), seed
    )
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
