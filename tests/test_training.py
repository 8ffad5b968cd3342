"""Training steps by hand, the schedule, the epoch that is kept, and the same bytes twice."""

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import MACHINE, config_for_tests
from model_fixtures import MODEL
from safetensors.torch import load_file
from torch import Tensor
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.core.machine import MachineConfig
from trimodal.core.text import read_vocabulary
from trimodal.losses.ranking import pair_loss
from trimodal.models.checkpoint import load_model, read_checkpoint
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import normalise
from trimodal.training.clip_index import read_index
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.image_audio import FrameSampling, ImageAudioValidation
from trimodal.training.leaks import LeaksConfig
from trimodal.training.loop import TrainingError, run_epochs
from trimodal.training.resume import Run
from trimodal.training.sampler import validation_batches
from trimodal.training.streams import open_streams
from trimodal.training.train import train
from trimodal.training.trainer import StepLosses, Trainer, mean_losses

CONFIG = config_for_tests(
    TrainConfig, batch_size=3, epochs=2, steps_per_epoch=2, learning_rate=1e-3, weight_decay=1e-5,
    rate_step_epochs=2, image_rate_factor=0.5, text_rate_factor=2.0,
)  # fmt: skip
THREE_STEPS = replace(MACHINE, checkpoint_every_steps=3)
LOSS = VARIABLE_MARGIN
CPU = World()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC has nothing to say."""
    monkeypatch.chdir(tmp_path)


def network() -> TrimodalNet:
    torch.manual_seed(3)
    return TrimodalNet(MODEL, torch.randn(20, 300))


def batches(size: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(4)

    def pictures() -> Tensor:
        return torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)

    audio = [pictures(), torch.randn(size, 1, 16, 151, generator=generator)]
    return audio, [pictures(), torch.randint(0, 20, (size, 16), generator=generator)]


def loss_of(images: Tensor, others: Tensor) -> Tensor:
    return pair_loss(images, others, margin=0.2, image_variable_margin=0.4)


def by_hand_copy(net: TrimodalNet) -> TrimodalNet:
    """In the trainer's memory layout: Adam makes whole steps of the other layout's rounding."""
    return copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # width 2 is narrow


def joint_losses(
    net: TrimodalNet, audio: list[Tensor], text: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """All images in one pass, so that their batch norm sees both streams."""
    images = net.image(normalise(torch.cat([audio[0], text[0]])))
    size = len(audio[0])
    return loss_of(images[:size], net.audio(audio[1])), loss_of(images[size:], net.text(text[1]))


def adam(net: TrimodalNet) -> torch.optim.Adam:
    groups = [(net.image, 0.5e-3), (net.audio, 1e-3), (net.text, 2e-3)]
    return torch.optim.Adam(
        [{"params": part.parameters(), "lr": rate} for part, rate in groups],
        weight_decay=1e-5,
        fused=True,  # as the trainer: a gradient of nearly zero makes a whole step of its rounding
    )


def assert_same_state(first: TrimodalNet, second: TrimodalNet) -> None:
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(
            tensor, second.state_dict()[name], rtol=1e-4, atol=1e-6, check_stride=False, msg=name
        )


def test_joint_step_has_the_gradient_of_the_papers_sum() -> None:
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    losses = joint_losses(by_hand, audio, text)
    (losses[0] + losses[1]).backward()
    stepped = Trainer(net, CONFIG, LOSS, CPU).step(audio, text)
    torch.testing.assert_close(stepped.image_audio, losses[0].detach())
    torch.testing.assert_close(stepped.image_text, losses[1].detach())
    for (name, ours), theirs in zip(net.named_parameters(), by_hand.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_joint_step_updates_once() -> None:
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    optimiser, trainer = adam(by_hand), Trainer(net, CONFIG, LOSS, CPU)
    for _ in range(2):
        optimiser.zero_grad()
        sum(joint_losses(by_hand, audio, text), torch.tensor(0.0)).backward()
        optimiser.step()
        trainer.step(audio, text)
    assert net.image.backbone.bn1.num_batches_tracked == 2
    assert_same_state(net, by_hand)


def test_alternating_step_updates_after_each_stream() -> None:
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    optimiser = adam(by_hand)
    trainer = Trainer(net, replace(CONFIG, update="alternating"), LOSS, CPU)
    for _ in range(2):
        optimiser.zero_grad()
        sound = loss_of(by_hand.image(normalise(audio[0])), by_hand.audio(audio[1]))
        sound.backward()
        optimiser.step()
        optimiser.zero_grad()
        words = loss_of(by_hand.image(normalise(text[0])), by_hand.text(text[1]))
        words.backward()
        optimiser.step()
        stepped = trainer.step(audio, text)
        torch.testing.assert_close(stepped.image_audio, sound.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stepped.image_text, words.detach(), rtol=1e-4, atol=1e-5)
    assert net.image.backbone.bn1.num_batches_tracked == 4
    assert_same_state(net, by_hand)


def weights_of(part: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in part.parameters()]


def same_weights(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("momentum", "moves"), [("separate", False), ("shared", True)])
def test_momentum_moves_the_network_without_a_batch_only_where_it_is_shared(
    momentum: Any, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audio in an image-text update that follows an image-audio one, and text the other way."""
    net, (audio, text) = network(), batches()
    config = replace(CONFIG, update="alternating", alternating_momentum=momentum)
    trainer = Trainer(net, config, LOSS, CPU)
    trainer.step(audio, text)  # has given both momentum
    update, seen = Trainer._update, []

    def watched(self: Trainer, loss: Tensor) -> None:
        before = [weights_of(part) for part in (net.image, net.audio, net.text)]
        update(self, loss)
        after = [weights_of(part) for part in (net.image, net.audio, net.text)]
        seen.append([not same_weights(*pair) for pair in zip(before, after, strict=True)])

    monkeypatch.setattr(Trainer, "_update", watched)
    trainer.step(audio, text)
    assert seen == [[True, True, moves], [True, moves, True]]


def test_shared_momentum_is_adams_with_a_gradient_of_zero() -> None:
    """As PyTorch's zero_grad left it before version 2, in the authors' runs."""
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    optimiser = adam(by_hand)
    config = replace(CONFIG, update="alternating", alternating_momentum="shared")
    trainer = Trainer(net, config, LOSS, CPU)
    for _ in range(2):
        for part, other, (pixels, others) in (
            (by_hand.audio, by_hand.text, audio), (by_hand.text, by_hand.audio, text),
        ):  # fmt: skip
            optimiser.zero_grad()
            loss_of(by_hand.image(normalise(pixels)), part(others)).backward()
            for parameter in other.parameters():
                if optimiser.state[parameter]:
                    parameter.grad = torch.zeros_like(parameter)
            optimiser.step()
        trainer.step(audio, text)
    assert_same_state(net, by_hand)


def test_with_joint_updates_the_momentum_makes_no_difference() -> None:
    weights = []
    for momentum in ("separate", "shared"):
        net = network()
        trainer = Trainer(net, replace(CONFIG, alternating_momentum=momentum), LOSS, CPU)
        for _ in range(3):
            trainer.step(*batches())
        weights.append(weights_of(net))
    assert same_weights(*weights)
    assert not same_weights(weights[0], weights_of(network()))


@pytest.mark.parametrize(
    "change",
    [{"margin_mode": "fixed"}, {"margin_mode": "variable_all"}, {"reduction": "sum"},
     {"margin_temperature": 0.1}, {"kind": "hardest"}, {"kind": "semi_hard"}, {"kind": "info_nce"}],
)  # fmt: skip
def test_loss_section_reaches_the_loss(change: dict[str, Any]) -> None:
    audio, text = batches()
    plain = Trainer(network(), CONFIG, LOSS, CPU).step(audio, text)
    other = Trainer(network(), CONFIG, replace(LOSS, **change), CPU).step(audio, text)
    assert plain.image_audio != other.image_audio
    assert plain.image_text != other.image_text


def test_the_temperature_is_learned_where_it_is_used_and_not_decayed() -> None:
    for kind, moves in (("info_nce", True), ("hinges", False)):
        trainer = Trainer(network(), CONFIG, replace(LOSS, kind=kind), CPU)
        before = trainer._logit_scale().item()
        trainer.step(*batches())
        assert (trainer._logit_scale().item() != before) == moves
        assert trainer._optimiser.param_groups[-1]["weight_decay"] == 0


def test_the_margin_moves_with_the_epochs() -> None:
    moving = replace(LOSS, final_variable_margin=0.0)
    trainer = Trainer(network(), replace(CONFIG, epochs=3), moving, CPU)
    trainer.step(*batches())
    shares = []
    for _ in range(4):
        shares.append(trainer._progress)
        trainer.end_epoch()
    assert shares == [0.0, 0.5, 1.0, 1.0]


def test_each_network_has_its_rate_and_the_schedule_divides_all() -> None:
    """After ``rate_step_epochs`` epochs, not before."""
    net = network()
    trainer = Trainer(net, CONFIG, LOSS, CPU)
    groups = trainer._optimiser.param_groups
    for group, part in zip(groups[:-1], (net.image, net.audio, net.text), strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in part.parameters()]
        assert group["weight_decay"] == 1e-5
    trainer.step(*batches())
    rates = []
    for _ in range(5):
        rates.append([group["lr"] for group in groups[:-1]])
        trainer.end_epoch()
    full = [0.5e-3, 1e-3, 2e-3]
    for epoch, factor in enumerate([1, 1, 0.1, 0.1, 0.01]):
        assert rates[epoch] == pytest.approx([rate * factor for rate in full])


def seven_validation_clips(data: TinyData) -> ImageAudioValidation:
    """The training clips, as validation reads them."""
    sampling = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)
    clips = read_index(data.av_dir, "train", data.mel)
    return ImageAudioValidation(clips, sampling, data.front_end, data.augment)


def test_validation_is_the_mean_loss_of_all_samples(tiny_data: TinyData) -> None:
    """With batch norm's stored statistics, weighted by batch, and training goes on after it."""
    net = network()
    streams = open_streams(
        tiny_data.av_dir, tiny_data.captions_dir, tiny_data.images_dir, CONFIG,
        tiny_data.front_end, tiny_data.augment,
    )  # fmt: skip
    streams = replace(streams, image_audio_validation=seven_validation_clips(tiny_data))
    scores = Trainer(net, CONFIG, LOSS, CPU).validate(streams)
    assert net.training
    assert net.image.backbone.bn1.num_batches_tracked == 0
    net.eval()
    expected = 0.0
    with torch.inference_mode():
        for batch in validation_batches(streams.image_audio_validation, 3):
            loss = loss_of(net.image(normalise(batch[0])), net.audio(batch[1]))
            expected += loss.item() * len(batch[0]) / 7
    assert scores["image_audio"] == pytest.approx(expected, rel=1e-4)
    assert scores["loss"] == pytest.approx(scores["image_audio"] + scores["image_text"])


def test_mean_losses_by_hand() -> None:
    steps = [StepLosses(torch.tensor(a), torch.tensor(b)) for a, b in [(1.0, 2.0), (2.0, 6.0)]]
    assert mean_losses(steps) == {"image_audio": 1.5, "image_text": 4.0, "loss": 5.5}


@dataclass
class ScriptedTrainer:
    """Stands in for the trainer: its validation losses are given."""

    losses: Iterable[float]
    events: list[str] = field(default_factory=list)
    network: torch.nn.Module = field(default_factory=lambda: torch.nn.Linear(1, 1))

    def __post_init__(self) -> None:
        self._losses = iter(self.losses)

    def step(self, audio_batch: list[Tensor], text_batch: list[Tensor]) -> StepLosses:
        self.events.append(f"step {len(audio_batch[0])}+{len(text_batch[0])}")
        return StepLosses(torch.tensor(0.5), torch.tensor(0.25))

    def validate(self, _streams: object) -> dict[str, float]:
        self.events.append("validate")
        loss = next(self._losses)
        return {"image_audio": loss / 2, "image_text": loss / 2, "loss": loss}

    def end_epoch(self) -> None:
        self.events.append("end")


@dataclass(kw_only=True)
class NotedRun(Run):
    """Notes what is kept."""

    kept: list[tuple[int, float]] = field(default_factory=list)

    def keep(self, weights: Mapping[str, Tensor], epoch: int, loss: float) -> None:
        super().keep(weights, epoch, loss)
        self.kept.append((epoch, loss))


def run_scripted(
    data: TinyData,
    log_dir: Path,
    losses: list[float],
    machine: MachineConfig = THREE_STEPS,
    **changes: int | None,
) -> tuple[ScriptedTrainer, tuple[int, float], list[tuple[int, float]]]:
    config = replace(CONFIG, epochs=len(losses), **changes)
    streams = open_streams(
        data.av_dir, data.captions_dir, data.images_dir, config, data.front_end, data.augment
    )
    trainer, run = ScriptedTrainer(losses), NotedRun()
    run_epochs(
        trainer,
        streams,
        config,
        machine,
        log_dir,
        run,
        lambda: trainer.events.append("save"),  # type: ignore[arg-type]
    )
    return trainer, (run.best_epoch, run.best_loss), run.kept


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([3.0, 2.0, 1.0], [(1, 3.0), (2, 2.0), (3, 1.0)]),
        ([3.0, 1.0, 2.0, 1.0], [(1, 3.0), (2, 1.0)]),
        ([NAN, 2.0, NAN, 1.0, NAN], [(2, 2.0), (4, 1.0)]),
        ([INF, 5.0], [(2, 5.0)]),
    ],
)
def test_best_epoch_on_validation_is_kept(
    losses: list[float], kept: list[tuple[int, float]], tiny_data: TinyData, tmp_path: Path
) -> None:
    _, best, seen = run_scripted(tiny_data, tmp_path / "log", losses)
    assert seen == kept
    assert best == kept[-1]
    metrics = json.loads((tmp_path / "log" / "metrics.json").read_text())
    assert metrics["best"] == {"epoch": best[0], "val_loss": best[1]}


@pytest.mark.parametrize("losses", [[NAN, NAN], [INF], [NAN, INF]])
def test_training_without_a_finite_validation_loss_keeps_nothing(
    losses: list[float], tiny_data: TinyData, tmp_path: Path
) -> None:
    kept: list[tuple[int, float]] = []
    with pytest.raises(RuntimeError, match="finite"):
        kept = run_scripted(tiny_data, tmp_path / "log", losses)[2]
    assert kept == []


def test_a_training_loss_that_is_no_number_ends_the_run(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = StepLosses(torch.tensor(NAN), torch.tensor(0.25))
    monkeypatch.setattr(ScriptedTrainer, "step", lambda *_: broken)
    with pytest.raises(RuntimeError, match="the loss of epoch 1 is nan"):
        run_scripted(tiny_data, tmp_path / "log", [1.0])


def test_a_gpu_without_memory_is_told_with_what_helps(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ScriptedTrainer, "step", starved)
    with pytest.raises(TrainingError, match=r"CUDA out of memory; .* train\.chunk_size"):
        run_scripted(tiny_data, tmp_path / "log", [1.0])


@pytest.mark.parametrize(
    ("steps", "batch_size", "expected"), [(None, 3, 2), (None, 2, 3), (5, 3, 5), (None, 100, 1)]
)
def test_an_epoch_has_the_shorter_streams_steps_or_those_asked_for(
    steps: int | None, batch_size: int, expected: int, tiny_data: TinyData, tmp_path: Path
) -> None:
    """7 clips and 8 images."""
    trainer, _, _ = run_scripted(
        tiny_data, tmp_path / "log", [1.0, 1.0], replace(MACHINE, checkpoint_every_steps=1000),
        steps_per_epoch=steps, batch_size=batch_size,
    )  # fmt: skip
    step = f"step {min(batch_size, 7)}+{min(batch_size, 8)}"
    assert trainer.events == [*[step] * expected, "validate", "end"] * 2 + ["save"]


def test_metrics_hold_the_last_epochs_curves(tiny_data: TinyData, tmp_path: Path) -> None:
    run_scripted(tiny_data, tmp_path / "log", [2.0, 1.0, 3.0])
    metrics = json.loads((tmp_path / "log" / "metrics.json").read_text())
    assert metrics["train"] == {"image_audio": 0.5, "image_text": 0.25, "loss": 0.75}
    assert metrics["val"] == {"image_audio": 1.5, "image_text": 1.5, "loss": 3.0}
    assert metrics["best"] == {"epoch": 2, "val_loss": 1.0}
    curve = (tmp_path / "log" / "plots" / "metrics" / "val" / "loss.tsv").read_text()
    assert [line.split("\t")[1] for line in curve.splitlines()] == ["loss", "2.0", "1.0", "3.0"]


def run_training(
    data: TinyData,
    folder: Path,
    leaks: Any = "fail",
    machine: MachineConfig = THREE_STEPS,
    **changes: int | str,
) -> Path:
    path = folder / "trimodal.safetensors"
    train(
        data.av_dir, data.captions_dir, data.images_dir, path, folder / "log",
        folder / "run.safetensors", config=replace(CONFIG, **changes), loss=LOSS, model=MODEL,
        front_end=data.front_end, augment=data.augment,
        leaks=LeaksConfig(test_in_training=leaks), machine=machine,
    )  # fmt: skip
    return path


def test_same_seed_gives_the_same_bytes(tiny_data: TinyData, tmp_path: Path) -> None:
    """Whatever reads ahead; another seed gives others."""
    first = run_training(tiny_data, tmp_path / "first")
    second = run_training(
        tiny_data, tmp_path / "second", machine=replace(MACHINE, loader_workers=1)
    )
    assert first.read_bytes() == second.read_bytes()
    sidecars = [path.with_suffix(".json").read_bytes() for path in (first, second)]
    assert sidecars[0] == sidecars[1]
    other = run_training(tiny_data, tmp_path / "other", seed=2)
    assert first.read_bytes() != other.read_bytes()


def test_checkpoint_holds_the_epoch_that_was_kept(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs whose second is the best keep what two epochs end with."""
    script = iter([2.0, 1.0, 3.0, 2.0, 1.0])
    monkeypatch.setattr(Trainer, "validate", lambda *_: dict.fromkeys(["loss"], next(script)))
    three = run_training(tiny_data, tmp_path / "three", epochs=3)
    two = run_training(tiny_data, tmp_path / "two", epochs=2)
    kept, last = load_file(three), load_file(two)
    assert all(torch.equal(kept[name], last[name]) for name in last)
    checkpoint = read_checkpoint(three)
    assert (checkpoint.epoch, checkpoint.validation_loss) == (2, 1.0)
    assert (checkpoint.model, checkpoint.loss) == (MODEL, asdict(LOSS))
    assert checkpoint.audio_front_end == tiny_data.front_end
    assert checkpoint.front_end == tiny_data.mel.front_end_fingerprint()
    vocabulary = read_vocabulary(tiny_data.captions_dir / "vocabulary.parquet")
    assert load_model(three, checkpoint, vocabulary).text.vectors.shape == (13, 300)


def test_training_that_diverges_writes_no_checkpoint(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"loss": math.nan})
    with pytest.raises(RuntimeError, match="finite"):
        run_training(tiny_data, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*trimodal*"))


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"epochs": 0}, {"rate_step_epochs": 0}, {"first_frame": 0},
     {"steps_per_epoch": 0}, {"validation_frame": 1}, {"validation_frame": 9},
     {"learning_rate": 0.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"train.*{next(iter(wrong))}"):
        parse_section(asdict(CONFIG) | wrong, "train", TrainConfig)
