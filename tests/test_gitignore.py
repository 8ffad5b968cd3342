"""What git must never take: data, models, what DVC and tools leave, as folders and as links."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
KEPT_OUT = ("data", "models", ".venv", ".dvc/tmp", ".dvc/cache", "fuzz-crashes")


@pytest.mark.parametrize("as_link", [False, True], ids=["folder", "link"])
def test_data_and_models_stay_out_of_git(as_link: bool, tmp_path: Path) -> None:
    repository, elsewhere = tmp_path / "repository", tmp_path / "large disk"
    (repository / ".dvc").mkdir(parents=True)
    (repository / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    for name in KEPT_OUT:
        target = elsewhere / name if as_link else repository / name
        target.mkdir(parents=True)
        (target / "file").touch()
        if as_link:
            (repository / name).symlink_to(target)
    (repository / "metrics" / "data").mkdir(parents=True)  # the pattern is anchored
    (repository / "metrics" / "data" / "plot.tsv").touch()
    subprocess.run(["git", "init", "--quiet", repository], check=True, timeout=60)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=repository, check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert listed.split() == [".gitignore", "metrics/data/plot.tsv"]


def test_journals_of_features_go_along_into_an_experiments_folder() -> None:
    paths = {"data/features/images/journal/a.json": False, "data/av/journal/a.json": True,
             "data/images/journal/a.json": True}  # fmt: skip
    with Repo(str(ROOT)) as repo:
        for path, ignored in paths.items():
            assert repo.dvcignore.check_ignore(path).match == ignored, path
