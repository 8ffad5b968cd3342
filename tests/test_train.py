"""The train stage: the epoch in the checkpoint, and the same bytes twice."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from configs import MACHINE
from model_fixtures import MODEL
from safetensors.torch import load_file
from trainer_fixtures import LOSS, model_files, run_training
from training_fixtures import TinyData

from trimodal.core.text import read_vocabulary
from trimodal.models.checkpoint import WEIGHTS, load_model, read_checkpoint
from trimodal.models.model_card import described_weights
from trimodal.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


def test_same_seed_gives_the_same_bytes(tiny_data: TinyData, tmp_path: Path) -> None:
    """With or without loader workers; another seed gives other bytes."""
    first = run_training(tiny_data, tmp_path / "first")
    second = run_training(
        tiny_data, tmp_path / "second", machine=replace(MACHINE, loader_workers=1)
    )
    assert model_files(first) == model_files(second)
    other = run_training(tiny_data, tmp_path / "other", seed=2)
    assert model_files(first)["model.safetensors"] != model_files(other)["model.safetensors"]


def test_checkpoint_holds_the_epoch_that_was_kept(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs whose second is the best keep what two epochs end with."""
    script = iter([2.0, 1.0, 3.0, 2.0, 1.0])
    monkeypatch.setattr(Trainer, "validate", lambda *_: dict.fromkeys(["loss"], next(script)))
    three = run_training(tiny_data, tmp_path / "three", epochs=3)
    two = run_training(tiny_data, tmp_path / "two", epochs=2)
    best_of_three, last_of_two = load_file(three / WEIGHTS), load_file(two / WEIGHTS)
    assert all(torch.equal(best_of_three[name], last_of_two[name]) for name in last_of_two)
    checkpoint = read_checkpoint(three)
    assert (checkpoint.epoch, checkpoint.validation_loss) == (2, 1.0)
    assert (checkpoint.model, checkpoint.loss) == (MODEL, asdict(LOSS))
    assert checkpoint.audio_front_end == tiny_data.front_end
    assert checkpoint.front_end == tiny_data.mel.front_end_fingerprint()
    card = (three / "README.md").read_text()
    assert described_weights(card) == checkpoint.weights
    assert "language:\n- en\n" in card
    (three / "README.md").write_text("edited")
    assert read_checkpoint(three) == checkpoint
    vocabulary = read_vocabulary(tiny_data.captions_dir / "vocabulary.parquet")
    assert load_model(three, checkpoint, vocabulary).text.backbone.vectors.shape == (13, 300)


def test_training_that_diverges_writes_no_checkpoint(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"loss": math.nan})
    with pytest.raises(RuntimeError, match="finite"):
        run_training(tiny_data, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*trimodal*"))
