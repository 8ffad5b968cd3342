"""A run of the whole pipeline through DVC at a tiny scale, as users start it."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kills import Pace, durations, paces
from repository import make_repository

World = Mapping[str, Mapping[str, Any]]
# Many small clips and shards, and steps enough to be killed between.
WORLD: World = {
    "demo": {"clips": 56},
    "extract": {"clips_per_shard": 4},
    "captions": {"images_per_shard": 8},
    "train": {"epochs": 3, "steps_per_epoch": 8},
    "machine": {"checkpoint_every_steps": 3},
}


_START_SHARE = 0.8  # of the seconds that a stage takes in WORLD: imports, mostly


def run_undisturbed(folder: Path, world: World = WORLD, *, timed: bool = False) -> None:
    """A repository, reproduced and committed, and beside it what its stages took: the first time,
    and with everything done (``timed``, in a second run; else it is estimated).
    """
    with TemporaryDirectory(prefix="quiet-") as temporary:
        repository = make_repository(folder / "repository", world, Path(temporary))
        first = durations(repository, "repro")
        if timed:  # all but the report, which is never killed
            again = durations(repository, "repro", "--force", "evaluate")
        else:
            again = {name: _START_SHARE * seconds for name, seconds in first.items()}
        repository.commit("results")
    (folder / "seconds.json").write_text(json.dumps([first, again]))


def paces_in(folder: Path) -> dict[str, Pace]:
    """How fast the stages were."""
    return paces(*json.loads((folder / "seconds.json").read_text()))
