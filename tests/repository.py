"""A repository of the project's files at a tiny scale, run through DVC as a user runs it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TINY: dict[str, dict[str, Any]] = {
    "demo": {"clips": 28, "clip_seconds": 4.0, "images_per_clip": 2, "frame_px": 48, "fps": 4},
    "extract": {"frame_px": 40},
    "captions": {"image_px": 40},
    "machine": {"workers": 1, "loader_workers": 0},
    "augment": {"crop_px": 32},
    "model": {"width": 4},
    "train": {"batch_size": 4, "epochs": 2, "steps_per_epoch": 2},
    # Four steps do not teach a network to tell things apart, and few clips make one test set.
    "evaluate": {
        "sets": {
            "msrvtt": {
                "kind": "text_video", "path": "data/world/MSRVTT_JSFUSION_test.csv",
                "protocol": "standard", "duplicates": "own",
            },
        },
        "curve_steps": 4, "min_effective_rank": 1.0, "max_mean_cosine": 1.0,
    },
}  # fmt: skip
Run = Callable[..., str]


@dataclass(frozen=True)
class Repository:
    """A git repository of its own, whose commands have their temporary files in a folder; its path
    must be short (sockets lie in it).
    """

    folder: Path
    temporary: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which its commands run, without this machine's settings of git and DVC."""
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@localhost",
            "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.folder / ".site"),
            "TMPDIR": str(self.temporary),
        }  # fmt: skip

    def run(self, *command: str) -> str:
        """Runs a command, which must succeed, and returns what it printed."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def commit(self, message: str) -> None:
        """Commits all that git does not ignore."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "--quiet", "--message", message)


def make_repository(
    folder: Path, changes: Mapping[str, Mapping[str, Any]], temporary: Path
) -> Repository:
    """Commits the project's files with params at the TINY scale and some changes of it."""
    folder.mkdir(parents=True)
    for name in ("trimodal", "pipeline", "params"):
        shutil.copytree(ROOT / name, folder / name)  # compiled files too: git ignores them
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "metrics/comparison.json", ".dvc/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for tiny in (TINY, changes):
        for section, values in tiny.items():
            params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with (folder / ".gitignore").open("a") as ignored:
        ignored.write("\n.site/\n")
    repository = Repository(folder, temporary)
    repository.run("git", "init", "--quiet")
    repository.commit("tiny")
    return repository
