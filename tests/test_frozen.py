"""Training on features of frozen towers: only heads learn, until the towers thaw."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import MACHINE
from data_fixtures import contents, refused
from features_fixtures import FEATURES, FROZEN, make, open_store, towers_of
from model_fixtures import MODEL
from ranks import on_ranks
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from trainer_fixtures import CONFIG, LOSS
from training_fixtures import TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.features.config import FeaturesConfig
from trimodal.models.checkpoint import WEIGHTS, load_model, read_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS, World
from trimodal.training.leaks import LeaksConfig
from trimodal.training.streams import Streams, open_streams, paired_batches
from trimodal.training.train import train
from trimodal.training.trainer import Trainer

EVERY_SECOND = replace(MACHINE, checkpoint_every_steps=2)
SIX_STEPS = replace(CONFIG, epochs=3, steps_per_epoch=2)
DROPOUT = replace(FROZEN, dropout=0.5)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def features(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny_data, tmp_path_factory.mktemp("features") / "features")


def run(
    data: TinyData, features: Path, folder: Path, config: TrainConfig = SIX_STEPS,
    model: ModelConfig = FROZEN, section: FeaturesConfig = FEATURES, **others: Any,
) -> Path:  # fmt: skip
    train(
        data.av_dir, data.captions_dir, data.images_dir, folder / "model",
        folder / "log", folder / "run.safetensors", config=config, loss=LOSS, model=model,
        front_end=data.front_end, augment=data.augment, leaks=LeaksConfig(test_in_training="fail"),
        features=(features, section), **({"machine": EVERY_SECOND} | others),
    )  # fmt: skip
    return folder / "model"


def is_frozen(name: str) -> bool:
    tower, part, *_ = name.split(".")
    return tower in ("image", "text") and part not in ("head", "dropout")


def test_frozen_towers_stay_and_all_else_learns(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    """The saved model is complete, with the stage's towers; the run's state has none of them."""
    weights = load_file(run(tiny_data, features, tmp_path / "run") / WEIGHTS)
    towers = towers_of(tiny_data).build().state_dict()
    assert weights.keys() == towers.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, towers[name]) == is_frozen(name), name
    with safe_open(tmp_path / "run" / "run.safetensors", "pt") as file:
        stored = {name.split("/", 2)[-1] for name in file.keys() if "network/" in name}  # noqa: SIM118
        best = {name.removeprefix("best/") for name in file.keys() if name.startswith("best/")}  # noqa: SIM118
    assert stored == best == {name for name in weights if not is_frozen(name)}


def test_a_model_with_frozen_towers_is_used_as_any_other(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    """From pixels and words, in validation's views: the loss that training has seen."""
    path = run(tiny_data, features, tmp_path / "run")
    checkpoint = read_checkpoint(path)
    network = load_model(path, checkpoint)
    streams = open_streams(
        tiny_data.av_dir, tiny_data.captions_dir, tiny_data.images_dir, SIX_STEPS,
        tiny_data.front_end, tiny_data.augment, MACHINE.shard_cache,
    )  # fmt: skip
    scores = Trainer(network, SIX_STEPS, LOSS, SINGLE_PROCESS).validate(streams)
    assert scores["loss"] == pytest.approx(checkpoint.validation_loss, abs=2e-3)


@pytest.mark.parametrize(
    "change",
    [{}, {"update": "alternating"}, {"chunk_size": 2}, {"precision": "bfloat16"},
     {"reader": "stream", "frames_per_clip": 2, "shuffle_shards": 1},
     {"update": "alternating", "alternating_momentum": "shared"}],
    ids=["joint", "alternating", "chunks", "bfloat16", "stream", "shared momentum"],
)  # fmt: skip
def test_every_way_of_training_leaves_frozen_towers_alone(
    change: dict[str, Any], tiny_data: TinyData, features: Path
) -> None:
    config = replace(CONFIG, **change)
    streams = streams_of(tiny_data, features, config)
    network = towers_of(tiny_data).build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer = Trainer(network, config, LOSS, SINGLE_PROCESS, ("image", "text"))
    batches, _ = paired_batches(streams, config)
    for _ in range(3):
        trainer.step(*next(batches))
    trainer.validate(streams)
    trainer.step(*next(batches))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == is_frozen(name), name
    moments = trainer._optimiser.state_dict()["state"]
    learning = [p for p in network.parameters() if p.requires_grad]
    assert len(moments) == len(learning)


def streams_of(data: TinyData, features: Path, config: TrainConfig) -> Streams:
    return open_streams(
        data.av_dir, data.captions_dir, data.images_dir, config, data.front_end, data.augment,
        MACHINE.shard_cache, features=open_store(features, towers_of(data)),
    )  # fmt: skip


def test_a_step_on_features_is_a_step_on_pixels_with_the_tower_in_eval_mode(
    tiny_data: TinyData, features: Path
) -> None:
    """The gradient of the heads, against a network whose frozen parts see the centre's pixels."""
    streams = streams_of(tiny_data, features, CONFIG)
    stored = streams.image_text_validation, streams.image_audio_validation
    losses = []
    for thawed in (False, True):
        text, audio = (s.thawed() if thawed else s for s in stored if s is not None)
        network = towers_of(tiny_data).build()
        trainer = Trainer(network, CONFIG, LOSS, SINGLE_PROCESS, ("image", "text"))
        step = trainer.step(audio.__getitems__([0, 1]), text.__getitems__([0, 1, 2]))
        losses.append([step.image_audio, step.image_text])
        losses[-1] += [p.grad for p in network.image.head.parameters()]
    for ours, theirs in zip(*losses, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-3, atol=2e-3)


def test_same_features_give_the_same_bytes_and_workers_do_not_matter(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    first = run(tiny_data, features, tmp_path / "a", model=DROPOUT)
    second = run(
        tiny_data, features, tmp_path / "b", model=DROPOUT,
        machine=replace(EVERY_SECOND, loader_workers=1),
    )  # fmt: skip
    assert contents(first.parent) == contents(second.parent)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize(
    ("freeze_epochs", "before_step"),
    [
        (None, 3),
        (1, 2),
        (1, 3),
        *(pytest.param(None, step, marks=pytest.mark.nightly) for step in (1, 2, 5)),
        *(pytest.param(1, step, marks=pytest.mark.nightly) for step in (1, 4, 5)),
    ],
)
def test_a_killed_run_resumes_frozen_or_thawed(
    freeze_epochs: int | None, before_step: int, tiny_data: TinyData, features: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two steps an epoch, a save every second: also at the epoch's end, before the towers thaw."""
    config = replace(SIX_STEPS, freeze_epochs=freeze_epochs)
    whole = run(tiny_data, features, tmp_path / "whole", config, DROPOUT)
    step, taken = Trainer.step, []

    def killed(self: Trainer, *batches: Any) -> Any:
        if len(taken) == before_step:
            raise Killed
        taken.append(0)
        return step(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(Killed):
            run(tiny_data, features, tmp_path / "killed", config, DROPOUT)
    torch.manual_seed(7)  # another process
    resumed = run(tiny_data, features, tmp_path / "killed", config, DROPOUT)
    assert contents(resumed.parent) == contents(whole.parent)


def test_towers_thaw_at_the_first_step_of_an_epoch(
    tiny_data: TinyData, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on batches are pixels and words, and everything learns."""
    seen: list[tuple[bool, bool, bool]] = []
    step = Trainer.step

    def recorded(self: Trainer, audio: Any, text: Any) -> Any:
        backbone = self.network.image.backbone
        tower = backbone.conv1.weight.detach().clone()
        losses = step(self, audio, text)
        is_pixels = audio[0].dtype is torch.uint8 and text[1].dtype is torch.int64
        learns = not torch.equal(tower, backbone.conv1.weight)
        seen.append((is_pixels, learns, backbone.training))
        return losses

    monkeypatch.setattr(Trainer, "step", recorded)
    config = replace(SIX_STEPS, freeze_epochs=2)
    weights = load_file(run(tiny_data, features, tmp_path / "run", config) / WEIGHTS)
    assert seen == [(False,) * 3] * 4 + [(True,) * 3] * 2
    towers = towers_of(tiny_data).build().state_dict()
    assert weights.keys() == towers.keys()


def test_the_best_epoch_may_be_one_before_the_towers_thawed(
    tiny_data: TinyData, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"loss": next(script)})
    path = run(tiny_data, features, tmp_path / "run", replace(SIX_STEPS, freeze_epochs=1))
    weights, towers = load_file(path / WEIGHTS), towers_of(tiny_data).build().state_dict()
    assert read_checkpoint(path).epoch == 1
    assert weights.keys() == towers.keys()
    for name in filter(is_frozen, weights):
        assert torch.equal(weights[name], towers[name]), name


def on_two(world: World, data: TinyData, features: str) -> dict[str, Tensor]:
    config = replace(CONFIG, batch_size=6, precision="float32", batch_norm="synchronised")
    folder = Path(features)
    streams = open_streams(
        data.av_dir, data.captions_dir, data.images_dir, config, data.front_end, data.augment,
        MACHINE.shard_cache, world, features=open_store(folder, towers_of(data)),
    )  # fmt: skip
    network = towers_of(data).build()
    trainer = Trainer(network, config, LOSS, world, ("image", "text"))
    batches, _ = paired_batches(streams, config, 0, world)
    trainer.step(*next(batches))
    scores = trainer.validate(streams)
    trainer.thaw()
    batches, _ = paired_batches(streams.thawed(), config, 1, world)
    trainer.step(*next(batches))
    return {**network.state_dict(), "loss": torch.tensor(scores["loss"])} | {
        "recall": torch.tensor(scores["recall"])
    }


def test_two_ranks_train_as_one(tiny_data: TinyData, features: Path, tmp_path: Path) -> None:
    """Frozen, then thawed."""
    alone = on_two(World(), tiny_data, str(features))
    first, second = on_ranks(2, on_two, tmp_path, tiny_data, str(features))
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        # Adam makes a whole step, of at most 2e-3, of a gradient that is only rounding.
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=5e-3, msg=name)


@pytest.mark.parametrize(
    ("model", "section", "named"),
    [
        (FROZEN, replace(FEATURES, views=2), "image.views is 3"),
        (replace(FROZEN, width=3), FEATURES, "image.weights is"),
    ],
)
def test_features_of_another_model_end_training_before_it_begins(
    model: ModelConfig, section: FeaturesConfig, named: str, tiny_data: TinyData, features: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    refused(
        lambda: run(tiny_data, features, tmp_path / "run", model=model, section=section),
        "index.json", named,
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_frozen_text_excludes_trained_word_vectors() -> None:
    section = json.loads(json.dumps(asdict(MODEL))) | {
        "freeze": ["text"], "word_vectors": "trained",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"word_vectors: trained, but model\.freeze has text"):
        parse_section(section, "model", ModelConfig)
    with pytest.raises(ConfigError, match="audio"):
        parse_section(section | {"freeze": ["audio"]}, "model", ModelConfig)


def test_another_seed_has_the_same_towers_and_other_heads(
    tiny_data: TinyData, features: Path, tmp_path: Path
) -> None:
    first = load_file(run(tiny_data, features, tmp_path / "a") / WEIGHTS)
    second = load_file(
        run(tiny_data, features, tmp_path / "b", replace(SIX_STEPS, seed=2)) / WEIGHTS
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) == is_frozen(name), name


def test_a_thawed_trainer_is_restored_thawed(tiny_data: TinyData, features: Path) -> None:
    """With its optimiser's state of the towers; a frozen one stays frozen."""
    batches, _ = paired_batches(streams_of(tiny_data, features, CONFIG).thawed(), CONFIG)
    for thaws in (True, False):
        trainers = [
            Trainer(towers_of(tiny_data).build(), CONFIG, LOSS, SINGLE_PROCESS, ("image", "text"))
            for _ in range(2)
        ]
        if thaws:
            trainers[0].thaw()
            trainers[0].step(*next(batches))
        tensors, metadata = trainers[0].state()
        trainers[1].restore(
            {name: tensor.clone() for name, tensor in tensors.items()},
            json.loads(json.dumps(metadata)),
        )
        assert trainers[1].frozen == trainers[0].frozen == (() if thaws else ("image", "text"))
        again, _ = trainers[1].state()
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
        learning = [p.requires_grad for p in trainers[1].network.parameters()]
        assert all(learning) == thaws
