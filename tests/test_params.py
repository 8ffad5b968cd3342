"""The whole of params.yaml is checked before any stage: single values, and what hangs together."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import PARAMS
from repository import ROOT

from pipeline.check import main
from trimodal.core import progress
from trimodal.core.config import ConfigError
from trimodal.core.records import DataError
from trimodal.params import SECTIONS, check_params

MODEL = Path("models/trimodal")
COMMITTED = yaml.safe_load(PARAMS.read_text())
NO_CAPTIONS = {"coco_annotations": "none", "flickr30k_annotations": "none"}


def check(tmp_path: Path, **changes: dict[str, Any]) -> None:
    """Checks the committed params with these changes, by section."""
    params = {name: of | changes.get(name, {}) for name, of in COMMITTED.items()}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    check_params(tmp_path / "params.yaml", MODEL)


def test_the_committed_params_and_those_without_captions_pass(tmp_path: Path) -> None:
    check(tmp_path)
    tower = {"freeze": ["text"], "text_network": "open_clip:ViT-B-32/x", "init_from": "models/a"}
    check(tmp_path, captions=NO_CAPTIONS | {"image_px": 8}, model=tower)


@pytest.mark.parametrize("overlay", ["paper", "flickr8k", "own-videos", "real"])
def test_the_overlays_pass(overlay: str, tmp_path: Path) -> None:
    check(tmp_path, **yaml.safe_load((ROOT / f"params/{overlay}.yaml").read_text()))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_mistake_in_any_section_is_found(section: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: {section}\.colour: unknown key"):
        check(tmp_path, **{section: {"colour": 1}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": {"margin_mode": "varable"}}, "loss.margin_mode: Input should be 'fixed', 'var"),
        ({"augment": {"crop_px": 73}}, "augment.crop_px 73 exceeds extract.frame_px 72"),
        ({"captions": {"image_px": 63}}, "augment.crop_px 64 exceeds captions.image_px 63"),
        ({"captions": NO_CAPTIONS}, "there are no captions (captions.coco_annotations and"),
        ({"captions": {"language": "klingon"}}, "captions.language: NLTK has no stop words of"),
        ({"model": {"init_from": "models/../models/trimodal/"}}, "model.init_from: models/../mod"),
        ({"machine": {"devices": 3}}, "a batch of 64 samples cannot be split evenly over 3"),
    ],
)
def test_what_does_not_fit_together_is_named(
    changes: dict[str, dict[str, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"params\.yaml: {re.escape(said)}"):
        check(tmp_path, **changes)


def test_a_logger_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal.training.start.missing_packages", lambda *names: list(names))
    with pytest.raises(ConfigError, match=r"params\.yaml: train\.loggers: wandb is not installed"):
        check(tmp_path, train={"loggers": ["wandb"]})


def test_the_stage_leaves_its_file_only_for_params_that_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "data" / "check.done"
    command = ["check", "--params", "params.yaml", "--model", "models/trimodal", "--done"]
    monkeypatch.setattr(sys, "argv", [*command, str(done)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("loss: {}\n")
    with pytest.raises(SystemExit, match=r"^check: params\.yaml: section 'demo' is missing$"):
        main()
    assert not done.exists()
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    main()
    assert done.read_text() == "done\n"
    assert capsys.readouterr().out == "check: params.yaml is valid; nothing left out\n"


LOCK = "schema: '2.0'\nstages:\n  train:\n    outs:\n    - path: models/trimodal\n      hash: md5\n"


@pytest.mark.parametrize(
    ("lock", "there", "said"),
    [
        (LOCK, False, "train: no clips (dvc checkout models/trimodal brings back that of the last"),
        (LOCK, True, "train: no clips"),
        (LOCK.replace("trimodal", "trimodal2"), False, "train: no clips"),
        ("", False, "train: no clips"),
    ],
    ids=["removed", "still there", "of another", "first run"],
)
def test_the_way_back_to_what_dvc_removed_is_told(
    lock: str, there: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "start_logging", lambda: None)
    if lock:
        Path("dvc.lock").write_text(lock)
    if there:
        MODEL.mkdir(parents=True)
    with pytest.raises(SystemExit) as caught, progress.stage("train", removed=MODEL):
        raise DataError("no clips")
    assert str(caught.value).startswith(said)
    assert ("checkout" in str(caught.value)) == ("checkout" in said)
