"""Recall on validation, the choice of the best epoch by it, and where epochs are logged."""

import json
import logging
import math
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from configs import MACHINE
from data_fixtures import contents
from ranks import on_ranks
from torch import Tensor
from trainer_fixtures import CONFIG, LOSS, network, run_training, seven_validation_clips
from training_fixtures import TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.evaluation.retrieval import ranks
from trimodal.models.checkpoint import read_checkpoint
from trimodal.training import start, validation
from trimodal.training.distributed import World
from trimodal.training.resume import Run
from trimodal.training.start import LoggerError
from trimodal.training.streams import open_streams
from trimodal.training.trainer import Trainer
from trimodal.training.validation import recall


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("pairs", [2, 7, 23])
def test_recall_is_that_of_evaluations_ranks(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, with ties."""
    monkeypatch.setattr(validation, "_BLOCK_ROWS", 5)
    generator = torch.Generator().manual_seed(pairs)
    images, others = (torch.randn(pairs, 4, generator=generator) for _ in range(2))
    images[1] = images[0]
    expected = ranks((others @ images.T).numpy(), np.arange(pairs))
    assert recall(images, others) == {
        f"R@{k}": pytest.approx(100 * float((expected <= k).mean())) for k in (1, 10)
    }


def test_embeddings_that_collapse_or_are_no_numbers_find_nothing() -> None:
    same = torch.ones(30, 3)
    assert recall(same, same) == {"R@1": 0.0, "R@10": 0.0}
    broken = torch.full((30, 3), math.nan)
    assert recall(broken, torch.ones(30, 3)) == {"R@1": 0.0, "R@10": 0.0}
    own = torch.eye(30)
    own[:15] = math.nan
    assert recall(torch.eye(30), own)["R@1"] == 50.0
    assert recall(own, torch.eye(30)) == {"R@1": 0.0, "R@10": 0.0}


def validated(world: World, data: TinyData) -> dict[str, Tensor]:
    streams = open_streams(
        data.av_dir, data.captions_dir, data.images_dir, CONFIG, data.front_end, data.augment,
        MACHINE.shard_cache, world,
    )  # fmt: skip
    streams = replace(streams, image_audio_validation=seven_validation_clips(data))
    config = replace(CONFIG, batch_size=2 * world.size)
    scores = Trainer(network(), config, LOSS, world).validate(streams)
    return {name: torch.tensor(value) for name, value in scores.items()}


def test_validation_has_the_recalls_of_both_streams(tiny_data: TinyData, tmp_path: Path) -> None:
    """All seven clips and three images are the galleries, for one rank as for three, of which one
    has no batch of the images.
    """
    scores = validated(World(), tiny_data)
    names = [f"{stream}_R@{k}" for stream in ("image_audio", "image_text") for k in (1, 10)]
    assert set(scores) == {"image_audio", "image_text", "loss", *names, "recall"}
    net = network().eval()
    clips = seven_validation_clips(tiny_data)
    frames, windows = clips.__getitems__(range(7))
    with torch.inference_mode():
        expected = recall(net.image(net.image.prepare(frames)), net.audio(windows))
    assert scores["image_audio_R@1"].item() == pytest.approx(expected["R@1"])
    assert scores["image_text_R@10"] == 100.0
    assert scores["recall"].item() == pytest.approx(sum(scores[n].item() for n in names) / 4)
    for of_rank in on_ranks(3, validated, tmp_path, tiny_data):
        for name in names:
            assert of_rank[name].item() == pytest.approx(scores[name].item()), name


@pytest.mark.parametrize(
    ("select_by", "epochs", "best"),
    [
        ("last", [(1.0, 50.0), (2.0, 40.0), (3.0, 30.0)], 3),
        ("last", [(1.0, 50.0), (math.nan, 40.0)], 1),
        ("loss", [(3.0, 9.0), (2.0, 1.0), (2.5, 50.0)], 2),
        ("recall", [(3.0, 9.0), (2.0, 1.0), (2.5, 50.0)], 3),
        ("recall", [(3.0, 9.0), (2.0, 9.0), (2.5, 9.0)], 2),
        ("recall", [(3.0, 9.0), (math.nan, 60.0), (math.inf, 60.0)], 1),
        ("recall", [(3.0, 0.0), (4.0, 0.0)], 1),
    ],
)
def test_the_best_epoch_has_the_lowest_loss_or_the_highest_recall(
    select_by: Any, epochs: list[tuple[float, float]], best: int
) -> None:
    run = Run()
    for number, (loss, found) in enumerate(epochs, 1):
        scores = {"loss": loss, "recall": found}
        if run.is_best(scores, select_by):
            run.keep_best({}, number, scores)
    assert run.best_epoch == best
    assert run.best_loss == epochs[best - 1][0]


def test_select_by_recall_reaches_the_checkpoint(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for select_by, epoch in (("loss", 2), ("recall", 1)):
        script = iter([(2.0, 30.0), (1.0, 20.0)])
        monkeypatch.setattr(
            Trainer, "validate",
            lambda *_, script=script: dict(zip(("loss", "recall"), next(script), strict=True)),
        )  # fmt: skip
        path = run_training(tiny_data, tmp_path / select_by, select_by=select_by)
        assert read_checkpoint(path).epoch == epoch
        best = json.loads((tmp_path / select_by / "log" / "metrics.json").read_text())["best"]
        assert best["val_recall"] == {"loss": 20.0, "recall": 30.0}[select_by]
        assert read_checkpoint(path).validation_loss == 3.0 - epoch


def test_without_a_terminal_each_epoch_has_a_line(
    tiny_data: TinyData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trimodal")
    run_training(tiny_data, tmp_path, epochs=2)
    lines = [text for text in caplog.messages if text.startswith("train: epoch ")]
    number, seconds = r"\d+\.\d{4}", r"\d\d:\d\d"
    for epoch, line in enumerate(lines, 1):
        pattern = (
            rf"train: epoch {epoch} of 2: loss {number}, validation {number}, "
            rf"recall \d+\.\d %; \d+ samples/s, {seconds} left"
        )
        assert re.fullmatch(pattern, line), line
    assert len(lines) == 2
    assert lines[-1].endswith("00:00 left")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_named_before_anything_is_done(
    name: str, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "missing_packages", lambda *names: list(names))
    with pytest.raises(LoggerError, match=rf"train\.loggers: {name} .* 'trimodal\[{name}\]'"):
        run_training(tiny_data, tmp_path / "run", loggers=(name,))
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.loggers"):
        parse_section(asdict(CONFIG) | {"loggers": ["comet"]}, "train", type(CONFIG))


class Writer:
    """In place of tensorboard's and wandb's own."""

    logged: ClassVar[list[tuple[str, float, int]]] = []
    made: ClassVar[list[Any]] = []

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.made.append((*arguments, named))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.made.append("closed")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.logged.append((name, value, step))

    def log(self, scores: dict[str, float], *, step: int) -> None:
        self.logged += [(name, value, step) for name, value in scores.items()]


@pytest.mark.parametrize(
    ("logger", "module", "name"),
    [("tensorboard", "torch.utils.tensorboard", "SummaryWriter"), ("wandb", "wandb", "init")],
)
def test_loggers_get_every_epoch_and_change_no_result(
    logger: str, module: str, name: str, tiny_data: TinyData, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A finished run is logged again and not trained again, whatever the loggers."""
    package = ModuleType(module)
    monkeypatch.setattr(package, name, Writer, raising=False)
    monkeypatch.setitem(sys.modules, module, package)
    monkeypatch.setattr(start, "missing_packages", lambda *_: [])
    monkeypatch.setattr(Writer, "logged", [])
    monkeypatch.setattr(Writer, "made", [])
    plain = contents(run_training(tiny_data, tmp_path / "run"))
    monkeypatch.setattr(Trainer, "step", None)
    assert contents(run_training(tiny_data, tmp_path / "run", loggers=(logger,))) == plain
    epochs = [step for given, _, step in Writer.logged if given == "val/loss"]
    assert epochs == [1, 2]
    assert {given for given, _, _ in Writer.logged} >= {"train/loss", "val/recall"}
    assert Writer.made[-1] == "closed"
    assert "loggers" in str(Writer.made[0])


def test_tensorboard_itself(tiny_data: TinyData, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_training(tiny_data, tmp_path / "run", loggers=("tensorboard",))
    assert list((tmp_path / "run" / "loggers" / "tensorboard").glob("events.out.*"))
