"""An experiment in a folder of its own finds what only the repository has."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from experiment_fixtures import experiment_files, fake_project, sh

from pipeline.links import main
from trimodal.core.config import ConfigError
from trimodal.core.links import link_sources, repository_of, stage_outputs


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    for name in ("data/sources/coco", "data/world", "media", "../shared/data"):
        (repository / name).mkdir(parents=True)
        (repository / name / "file").write_text(name)
    (repository / "data/sources/test.csv").touch()
    return repository


def experiment(repository: Path, kind: str = "standalone/tmp1") -> Path:
    folder = repository / ".dvc/tmp/exps" / kind
    (folder / ".git").mkdir(parents=True)
    return folder


def link(folder: Path, stages: Any = None, **params: Any) -> list[Path]:
    (folder / "params.yaml").write_text(json.dumps({"section": params}))
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages or {}}))
    return link_sources(folder / "params.yaml", folder / "dvc.yaml", folder)


@pytest.mark.parametrize("kind", ["standalone/tmp1", "tmp1"], ids=["--temp", "queue"])
def test_sources_in_and_beside_the_repository_are_linked(repository: Path, kind: str) -> None:
    folder = experiment(repository, kind)
    absolute = str(repository / "media")
    links = link(
        folder, coco="data/sources/coco", captions="../shared/data", absolute=absolute,
        sets={"one": {"paths": ["data/sources/test.csv", ""]}}, model="timm:media", none="nowhere",
        long="x" * 5000,
    )  # fmt: skip
    assert (folder / "data/sources/coco/file").read_text() == "data/sources/coco"
    assert (folder / "../shared/data/file").resolve().samefile(repository / "../shared/data/file")
    assert (folder / "media/file").read_text() == "media"
    assert (folder / "data/sources/test.csv").is_file()
    assert len(links) == 4
    assert link(folder, coco="data/sources/coco", captions="../shared/data") == []
    hidden = (folder / ".git/info/exclude").read_text().split()
    assert sorted(hidden) == ["/data/sources/coco", "/data/sources/test.csv", "/media"]


def test_a_repository_itself_gets_no_links(repository: Path) -> None:
    assert link(repository, coco="data/sources/coco", captions="../shared/data") == []
    assert repository_of(repository) is None
    assert repository_of(experiment(repository) / "sub") == repository


def test_what_stages_write_is_never_linked(repository: Path) -> None:
    """Through such a link an experiment would write into the repository."""
    stages = {
        "download": {"outs": [{"data/world": {"persist": True}}], "metrics": ["media/m.json"]}
    }
    folder = experiment(repository)
    links = link(folder, stages, a="data/world/file", b="data/world", c="data", d="media", e=".")
    assert links == []
    assert sorted(path.name for path in folder.iterdir()) == [".git", "dvc.yaml", "params.yaml"]


def test_a_folder_that_git_tracks_in_part_gets_the_rest(repository: Path) -> None:
    folder = experiment(repository)
    (folder / "media").mkdir()
    (folder / "media/file").write_text("of git")
    (repository / "media/more [1] files").touch()
    assert link(folder, media="media") == [folder / "media/more [1] files"]
    assert (folder / "media/file").read_text() == "of git"
    assert (folder / ".git/info/exclude").read_text() == "/media/more\\ \\[1]\\ files\n"


def test_a_folder_and_what_is_in_it_are_one_link(repository: Path) -> None:
    folder = experiment(repository)
    assert link(folder, a="data/sources/coco", b="data/sources") == [folder / "data/sources"]


def test_a_link_of_earlier_is_renewed_if_it_leads_elsewhere(repository: Path) -> None:
    folder = experiment(repository)
    place = folder.parent / "shared"
    place.symlink_to(repository / "gone")
    assert link(folder, a="../shared/data") == [place]
    assert link(folder, a="../shared/data") == []
    assert place.readlink() == repository.parent / "shared"


def test_paths_that_no_link_can_serve_are_named(repository: Path) -> None:
    folder = experiment(repository)
    far = os.path.relpath("/usr", repository)
    with pytest.raises(ConfigError, match=r"params\.yaml: section\.a: .* too far above"):
        link(folder, a=far)
    (folder.parent / "shared").mkdir()
    with pytest.raises(ConfigError, match=r"section\.a: .*shared is in the way: write its absol"):
        link(folder, a="../shared/data")
    (folder / "media").symlink_to("../../../elsewhere")
    with pytest.raises(ConfigError, match=r"section\.b: .* a relative link that git tracks"):
        link(folder, b="media/file")


def test_dvc_runs_an_experiment_on_untracked_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage before is not run again, its sources are not committed."""
    repository = fake_project(tmp_path, monkeypatch)
    sh("dvc", "exp", "run", "--temp", "--name", "other", "--set-param", "train.seed=5")
    files = experiment_files("other")
    assert "data" not in {Path(name).parts[0] for name in files}
    assert json.loads(files["metrics/audit.json"])["data"] == "inside beside"
    assert json.loads(files["metrics/audit.json"])["seed"] == 5
    assert (repository / "data/sources/captions.txt").read_text() == "inside"


@pytest.mark.nightly
def test_dvcs_queue_runs_an_experiment_on_untracked_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_project(tmp_path, monkeypatch)
    sh("dvc", "exp", "run", "--queue", "--name", "other", "--set-param", "train.seed=5")
    sh("dvc", "queue", "start")
    try:
        sh("dvc", "queue", "logs", "--follow", "other")
    finally:
        sh("dvc", "queue", "stop", "--kill")
    assert json.loads(experiment_files("other")["metrics/audit.json"])["data"] == "inside beside"


def test_a_stage_for_each_item_leaves_the_folder_of_its_outputs(tmp_path: Path) -> None:
    text = (
        "stages: {each: {foreach: [a], do: {cmd: c, outs: ['data/each/${key}': {persist: true}]}}}"
    )
    (tmp_path / "dvc.yaml").write_text(text)
    assert list(stage_outputs(tmp_path / "dvc.yaml")) == ["data/each"]


def test_the_stage_leaves_all_its_outputs(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the one that makes data/evaluation, on which stages depend even without a test set."""
    link(repository)
    monkeypatch.chdir(repository)
    done = [Path("data/links.done"), Path("data/evaluation/links.done")]
    command = ["links", "--params", "params.yaml", "--stages", "dvc.yaml"]
    monkeypatch.setattr(sys, "argv", [*command, "--done", *map(str, done)])
    main()
    assert [path.read_text() for path in done] == ["done\n"] * 2
