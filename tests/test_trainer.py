"""Training steps against steps by hand, the schedules, validation, and section ``train``."""

import copy
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from configs import MACHINE
from torch import Tensor
from trainer_fixtures import CONFIG, LOSS, adam, batches, network, seven_validation_clips
from training_fixtures import TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.losses.ranking import pair_loss
from trimodal.models.image_input import ImageInput
from trimodal.models.networks import TrimodalNet
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS
from trimodal.training.sampler import validation_batches
from trimodal.training.streams import open_streams
from trimodal.training.trainer import StepLosses, Trainer, mean_losses


def loss_of(images: Tensor, others: Tensor) -> Tensor:
    return pair_loss(images, others, margin=0.2, image_variable_margin=0.4)


def by_hand_copy(net: TrimodalNet) -> TrimodalNet:
    """In the trainer's memory layout: Adam turns another layout's rounding into whole steps."""
    return copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # width 2 is narrow


def joint_losses(
    net: TrimodalNet, audio: list[Tensor], text: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """All images in one pass, so that their batch norm sees both streams."""
    images = net.image(ImageInput().prepare(torch.cat([audio[0], text[0]])))
    size = len(audio[0])
    return loss_of(images[:size], net.audio(audio[1])), loss_of(images[size:], net.text(text[1]))


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
    stepped = Trainer(net, CONFIG, LOSS, SINGLE_PROCESS).step(audio, text)
    torch.testing.assert_close(stepped.image_audio, losses[0].detach())
    torch.testing.assert_close(stepped.image_text, losses[1].detach())
    for (name, ours), theirs in zip(net.named_parameters(), by_hand.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_joint_step_updates_once() -> None:
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    optimiser, trainer = adam(by_hand), Trainer(net, CONFIG, LOSS, SINGLE_PROCESS)
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
    trainer = Trainer(net, replace(CONFIG, update="alternating"), LOSS, SINGLE_PROCESS)
    for _ in range(2):
        optimiser.zero_grad()
        audio_loss = loss_of(by_hand.image(ImageInput().prepare(audio[0])), by_hand.audio(audio[1]))
        audio_loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        text_loss = loss_of(by_hand.image(ImageInput().prepare(text[0])), by_hand.text(text[1]))
        text_loss.backward()
        optimiser.step()
        stepped = trainer.step(audio, text)
        torch.testing.assert_close(stepped.image_audio, audio_loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stepped.image_text, text_loss.detach(), rtol=1e-4, atol=1e-5)
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
    """Audio in the image-text update after an image-audio one, and text the other way round."""
    net, (audio, text) = network(), batches()
    config = replace(CONFIG, update="alternating", alternating_momentum=momentum)
    trainer = Trainer(net, config, LOSS, SINGLE_PROCESS)
    trainer.step(audio, text)  # so that both networks have momentum
    update, updated = Trainer._update, []

    def record(self: Trainer, loss: Tensor) -> None:
        before = [weights_of(part) for part in (net.image, net.audio, net.text)]
        update(self, loss)
        after = [weights_of(part) for part in (net.image, net.audio, net.text)]
        updated.append([not same_weights(*pair) for pair in zip(before, after, strict=True)])

    monkeypatch.setattr(Trainer, "_update", record)
    trainer.step(audio, text)
    assert updated == [[True, True, moves], [True, moves, True]]


def test_shared_momentum_is_adams_with_a_gradient_of_zero() -> None:
    """As PyTorch's zero_grad left it before version 2, in the authors' runs."""
    net, (audio, text) = network(), batches()
    by_hand = by_hand_copy(net)
    optimiser = adam(by_hand)
    config = replace(CONFIG, update="alternating", alternating_momentum="shared")
    trainer = Trainer(net, config, LOSS, SINGLE_PROCESS)
    for _ in range(2):
        for part, other, (pixels, others) in (
            (by_hand.audio, by_hand.text, audio), (by_hand.text, by_hand.audio, text),
        ):  # fmt: skip
            optimiser.zero_grad()
            loss_of(by_hand.image(ImageInput().prepare(pixels)), part(others)).backward()
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
        trainer = Trainer(net, replace(CONFIG, alternating_momentum=momentum), LOSS, SINGLE_PROCESS)
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
    plain = Trainer(network(), CONFIG, LOSS, SINGLE_PROCESS).step(audio, text)
    other = Trainer(network(), CONFIG, replace(LOSS, **change), SINGLE_PROCESS).step(audio, text)
    assert plain.image_audio != other.image_audio
    assert plain.image_text != other.image_text


def test_the_temperature_is_learned_where_it_is_used_and_not_decayed() -> None:
    for kind, moves in (("info_nce", True), ("hinges", False)):
        trainer = Trainer(network(), CONFIG, replace(LOSS, kind=kind), SINGLE_PROCESS)
        before = trainer._logit_scale().item()
        trainer.step(*batches())
        assert (trainer._logit_scale().item() != before) == moves
        assert trainer._optimiser.param_groups[-1]["weight_decay"] == 0


def test_the_variable_margin_moves_with_the_epochs() -> None:
    moving = replace(LOSS, final_variable_margin=0.0)
    trainer = Trainer(network(), replace(CONFIG, epochs=3), moving, SINGLE_PROCESS)
    trainer.step(*batches())
    progress = []
    for _ in range(4):
        progress.append(trainer._progress)
        trainer.end_epoch()
    assert progress == [0.0, 0.5, 1.0, 1.0]


def test_each_network_has_its_rate_and_the_schedule_divides_all() -> None:
    """After ``rate_step_epochs`` epochs, not before."""
    net = network()
    trainer = Trainer(net, CONFIG, LOSS, SINGLE_PROCESS)
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


def test_validation_is_the_mean_loss_of_all_samples(tiny_data: TinyData) -> None:
    """By running statistics, weighted by batch; afterwards the network is in train mode again."""
    net = network()
    streams = open_streams(
        tiny_data.av_dir, tiny_data.captions_dir, tiny_data.images_dir, CONFIG,
        tiny_data.front_end, tiny_data.augment, MACHINE.shard_cache,
    )  # fmt: skip
    streams = replace(streams, image_audio_validation=seven_validation_clips(tiny_data))
    scores = Trainer(net, CONFIG, LOSS, SINGLE_PROCESS).validate(streams)
    assert net.training
    assert net.image.backbone.bn1.num_batches_tracked == 0
    net.eval()
    expected = 0.0
    with torch.inference_mode():
        for batch in validation_batches(streams.image_audio_validation, 3):
            loss = loss_of(net.image(ImageInput().prepare(batch[0])), net.audio(batch[1]))
            expected += loss.item() * len(batch[0]) / 7
    assert scores["image_audio"] == pytest.approx(expected, rel=1e-4)
    assert scores["loss"] == pytest.approx(scores["image_audio"] + scores["image_text"])


def test_mean_losses_by_hand() -> None:
    steps = [StepLosses(torch.tensor(a), torch.tensor(b)) for a, b in [(1.0, 2.0), (2.0, 6.0)]]
    assert mean_losses(steps) == {"image_audio": 1.5, "image_text": 4.0, "loss": 5.5}


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"epochs": 0}, {"rate_step_epochs": 0}, {"first_frame": 0},
     {"steps_per_epoch": 0}, {"validation_frame": 1}, {"validation_frame": 9},
     {"learning_rate": 0.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"train.*{next(iter(wrong))}"):
        parse_section(asdict(CONFIG) | wrong, "train", TrainConfig)
