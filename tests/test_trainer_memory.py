"""Large batches in little memory: recomputed chunks, and bfloat16."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from configs import MACHINE
from model_fixtures import MODEL
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from trainer_fixtures import CONFIG, LOSS, adam, batches, seven_validation_clips
from training_fixtures import LiveBytes, TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.losses.config import LossConfig
from trimodal.losses.ranking import pair_loss
from trimodal.models.image_input import ImageInput
from trimodal.models.networks import TrimodalNet
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS
from trimodal.training.grad_cache import embed_in_chunks
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.streams import open_streams
from trimodal.training.trainer import Trainer, memory_layout

CHUNKED = replace(CONFIG, chunk_size=3)
CHUNKS = {10: 4, 5: 2}  # of at most 3 rows: both streams' images, one stream's
BFLOAT16 = replace(CONFIG, precision="bfloat16")
FIXED = replace(LOSS, margin_mode="fixed")
Batch = list[Tensor]


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = ImageInput.prepare
    monkeypatch.setattr(ImageInput, "prepare", lambda own, pixels: prepare(own, pixels).double())


def double_batches() -> tuple[Batch, Batch]:
    audio, text = batches(5)
    return [audio[0], audio[1].double()], text


def network(**changes: Any) -> TrimodalNet:
    """At least 16 wide: below, oneDNN writes past its workspace in the backward pass of the
    shortcuts (uxlfoundation/oneDNN issue 6035).
    """
    torch.manual_seed(3)
    return TrimodalNet(replace(MODEL, **({"width": 16} | changes)), torch.randn(20, 300))


def lite_network() -> TrimodalNet:
    return network(image_backbone="efficientnet_lite0")


def in_chunks_by_hand(encode: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Plain forward passes of rows 0, n, 2n, ..., then 1, n + 1, ..., put back into order."""
    embedded: list[Tensor] = [torch.empty(0)] * len(rows)
    chunks = CHUNKS[len(rows)]
    for first in range(chunks):
        indices = range(first, len(rows), chunks)
        for index, row in zip(indices, encode(rows[list(indices)]), strict=True):
            embedded[index] = row
    return torch.stack(embedded)


def step_by_hand(
    net: TrimodalNet, update: str, loss: LossConfig, audio: Batch, text: Batch, *, bfloat16: bool
) -> None:
    """A step of the trainer without recomputation, autocast entered for each chunk."""

    def embed(part: nn.Module, rows: Tensor) -> Tensor:
        def encode(chunk: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                return part(chunk)

        return in_chunks_by_hand(encode, rows)

    def embed_images(pixels: Tensor) -> Tensor:
        inputs = ImageInput().prepare(pixels)
        return embed(net.image, inputs.contiguous(memory_format=torch.channels_last))

    def loss_of(images: Tensor, others: Tensor) -> Tensor:
        return pair_loss(
            images, others, margin=0.2, image_variable_margin=loss.variable_margins(0.0).image
        )  # fmt: skip

    optimiser = net.optimiser
    optimiser.zero_grad()
    if update == "joint":
        both = embed_images(torch.cat([audio[0], text[0]]))
        audio_loss = loss_of(both[:5], embed(net.audio, audio[1]))
        (audio_loss + loss_of(both[5:], embed(net.text, text[1]))).backward()
    else:
        loss_of(embed_images(audio[0]), embed(net.audio, audio[1])).backward()
        optimiser.step()
        optimiser.zero_grad()
        loss_of(embed_images(text[0]), embed(net.text, text[1])).backward()
    optimiser.step()


def assert_steps_as_by_hand(
    net: TrimodalNet, config: TrainConfig, loss: LossConfig, data: tuple[Batch, Batch], rtol: float
) -> None:
    """Two steps: the same parameters, running statistics, counters and random state."""
    by_hand = copy.deepcopy(net).to(memory_format=torch.channels_last)
    by_hand.optimiser = adam(by_hand)
    trainer = Trainer(net, config, loss, SINGLE_PROCESS)
    torch.manual_seed(5)
    for _ in range(2):
        trainer.step(*data)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    for _ in range(2):
        step_by_hand(by_hand, config.update, loss, *data, bfloat16=config.precision == "bfloat16")
    assert torch.equal(after, torch.get_rng_state())
    for (name, ours), theirs in zip(net.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=rtol, atol=rtol / 10, msg=name)
    expected = by_hand.state_dict()
    for name, ours in net.state_dict().items():
        torch.testing.assert_close(
            ours, expected[name], rtol=rtol, atol=rtol / 10, msg=name, check_stride=False
        )


@pytest.mark.parametrize("loss", [LOSS, FIXED], ids=["variable", "fixed"])
@pytest.mark.parametrize("update", ["joint", "alternating"])
@pytest.mark.usefixtures("float64")
def test_chunked_steps_are_those_without_recomputation(update: Any, loss: LossConfig) -> None:
    net = network().double()
    assert_steps_as_by_hand(net, replace(CHUNKED, update=update), loss, double_batches(), 1e-8)
    passes = 2 * 4  # steps, and one pass over 10 rows or two over 5
    assert net.image.backbone.bn1.num_batches_tracked == passes
    assert net.audio.backbone.bn1.num_batches_tracked == passes / 2
    assert net.image.backbone.bn1.momentum == 0.1


@pytest.mark.usefixtures("float64")
def test_random_layers_are_recomputed_as_they_were() -> None:
    """EfficientNet drops whole samples at random."""
    net = lite_network().double()
    assert_steps_as_by_hand(net, CHUNKED, LOSS, double_batches(), 1e-8)


def test_chunked_dropout_has_one_mask() -> None:
    net = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 4)).double()
    rows = torch.randn(10, 8, dtype=torch.float64)
    gradients = []
    for embed in (lambda: embed_in_chunks(net, net, rows, 3), lambda: in_chunks_by_hand(net, rows)):
        torch.manual_seed(6)
        gradients.append(torch.autograd.grad(embed().square().sum(), list(net.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_chunks_in_bfloat16_add_their_gradients_in_float32() -> None:
    config = replace(CHUNKED, precision="bfloat16")
    assert_steps_as_by_hand(network(), config, LOSS, batches(5), 1e-5)


@pytest.mark.parametrize("make", [network, lite_network])
@pytest.mark.usefixtures("float64")
def test_without_batch_statistics_chunks_have_the_whole_batchs_gradient(
    make: Callable[[], TrimodalNet],
) -> None:
    trainers = [
        Trainer(make().double(), config, LOSS, SINGLE_PROCESS) for config in (CONFIG, CHUNKED)
    ]
    nets = [trainer.network.eval() for trainer in trainers]
    full, chunked = (trainer.step(*double_batches()) for trainer in trainers)
    torch.testing.assert_close(full, chunked, rtol=1e-12, atol=0)
    for expected, ours in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-10, atol=1e-12)
    for expected, ours in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        assert torch.equal(ours, expected)


def test_every_row_of_every_chunk_is_a_negative() -> None:
    """With all hinges active, another audio in any row changes the first image's gradient."""
    net = nn.Sequential(nn.Linear(8, 4), nn.Tanh()).double()
    images, audio = torch.randn(2, 9, 8, dtype=torch.float64)
    images.requires_grad_()

    def gradients(others: Tensor) -> Tensor:
        embedded = (embed_in_chunks(net, net, rows, 3) for rows in (images, others))
        loss = pair_loss(*embedded, margin=99.0, image_variable_margin=None)
        return torch.autograd.grad(loss, images)[0]

    before = gradients(audio)
    for row in range(9):
        changed = audio.clone()
        changed[row] += 1.0
        assert (gradients(changed) != before).any(dim=1).all()


@pytest.mark.parametrize("chunk_size", [2, 3, 4, 7])
@pytest.mark.parametrize("rows", [2, 3, 4, 5, 7, 8, 9, 14, 23])
def test_chunks_are_even_and_mixed_and_never_one_row(rows: int, chunk_size: int) -> None:
    seen: list[Tensor] = []
    inputs = torch.arange(rows)

    def encode(part: Tensor) -> Tensor:
        seen.append(part)
        return part * 2

    out = embed_in_chunks(encode, nn.Identity(), inputs, chunk_size)
    assert torch.equal(out, inputs * 2)
    sizes = [len(part) for part in seen]
    assert min(sizes) >= 2
    assert max(sizes) <= max(chunk_size, 3 if rows % 2 else 2)
    assert max(sizes) - min(sizes) <= 1
    first_halves = [int((part < rows // 2).sum()) for part in seen]
    assert max(first_halves) - min(first_halves) <= 1


def test_without_a_chunk_size_the_batch_is_embedded_at_once() -> None:
    rows, seen = torch.randn(6, 2, requires_grad=True), []
    out = embed_in_chunks(lambda part: seen.append(part) or part * 2, nn.Identity(), rows, None)
    assert seen[0] is rows
    out.sum().backward()
    assert len(seen) == 1


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes saved for backward, by storage."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def test_memory_is_that_of_a_chunk() -> None:
    """64 rows in chunks of 8 against 8 rows: saved for backward, and at the peak, recomputation
    included. Chunks are views, so that all inputs stay in memory.
    """
    net = network().image.to(memory_format=torch.channels_last)
    saved, peaks = {}, {}
    for rows, chunk_size in [(64, None), (8, None), (64, 8)]:
        pixels = torch.randn(rows, 3, 128, 128)
        net.zero_grad()
        with LiveBytes() as live:
            with saved_bytes() as storages:
                embedded = embed_in_chunks(net, net, pixels, chunk_size)
            pair_loss(
                embedded, embedded.detach(), margin=0.2, image_variable_margin=None
            ).backward()
        saved[rows, chunk_size] = sum(storages.values())
        peaks[rows, chunk_size] = live.peak
    assert saved[64, 8] < 1.01 * pixels.nbytes
    assert saved[64, None] > 9 * saved[64, 8]
    peaks[64, 8] -= pixels.nbytes
    assert peaks[64, 8] < 1.5 * peaks[8, None]
    assert peaks[64, None] > 5 * peaks[64, 8]


def test_validation_goes_in_chunks_too(tiny_data: TinyData) -> None:
    config = replace(CONFIG, batch_size=7)
    streams = open_streams(
        tiny_data.av_dir, tiny_data.captions_dir, tiny_data.images_dir, config,
        tiny_data.front_end, tiny_data.augment, MACHINE.shard_cache,
    )  # fmt: skip
    streams = replace(
        streams,
        image_audio_validation=seven_validation_clips(tiny_data),
        image_text_validation=ImageTextValidation(
            tiny_data.captions_dir, tiny_data.images_dir, "train", tiny_data.augment
        ),
    )
    net = network()
    expected = Trainer(net, config, LOSS, SINGLE_PROCESS).validate(streams)
    sizes: list[int] = []
    net.image.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    chunked = Trainer(net, replace(config, chunk_size=3), LOSS, SINGLE_PROCESS).validate(streams)
    assert chunked == pytest.approx(expected, rel=1e-5)
    assert sizes
    assert max(sizes) <= 3
    assert net.image.backbone.bn1.num_batches_tracked == 0


def dtypes_of(net: TrimodalNet) -> set[torch.dtype]:
    """A set that fills with the dtypes of the convolutions' outputs."""
    seen: set[torch.dtype] = set()
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    return seen


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_bfloat16_stays_inside_the_encoders(chunk_size: int | None, tiny_data: TinyData) -> None:
    net, (audio, text) = network(), batches(8)
    trainer = Trainer(net, replace(BFLOAT16, chunk_size=chunk_size), LOSS, SINGLE_PROCESS)
    seen = dtypes_of(net)
    embedded = (
        trainer._embed_images(audio[0]),
        trainer._embed_other("audio", audio[1]),
        trainer._embed_other("text", text[1]),
    )
    for vectors in embedded:
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(8), rtol=0, atol=1e-6)
    losses = trainer.step(audio, text)
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert {parameter.grad.dtype for parameter in net.parameters()} == {torch.float32}
    streams = open_streams(
        tiny_data.av_dir, tiny_data.captions_dir, tiny_data.images_dir, CONFIG,
        tiny_data.front_end, tiny_data.augment, MACHINE.shard_cache,
    )  # fmt: skip
    trainer.validate(streams)
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_bfloat16_trains_as_float32_does(chunk_size: int | None) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = replace(CONFIG, precision=precision, chunk_size=chunk_size)
        trainer = Trainer(network(), config, LOSS, SINGLE_PROCESS)
        losses[precision] = [sum(trainer.step(*batches(8))).item() for _ in range(6)]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=0.05)
    assert losses["bfloat16"][-1] < 0.7 * losses["bfloat16"][0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("make", [network, lite_network])
def test_vision_networks_compute_in_channels_last(
    make: Callable[[], TrimodalNet], precision: Any
) -> None:
    net, wrong, called = make(), [], []

    def check_layout(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        called.append(module)
        for tensor in (inputs[0], out):
            if not tensor.is_contiguous(memory_format=torch.channels_last):
                wrong.append((module, tensor.shape, tensor.stride()))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for module in layers:
        module.register_forward_hook(check_layout)
    Trainer(net, replace(CHUNKED, precision=precision), LOSS, SINGLE_PROCESS).step(*batches(8))
    assert set(called) == set(layers)
    assert wrong == []


@pytest.mark.parametrize(
    ("width", "device", "expected"),
    [
        (8, "cpu", torch.contiguous_format),
        (15, "cpu", torch.contiguous_format),
        (16, "cpu", torch.channels_last),
        (8, "cuda", torch.channels_last),
    ],
)
def test_narrow_networks_on_a_cpu_do_not_use_channels_last(
    width: int, device: str, expected: torch.memory_format
) -> None:
    assert memory_layout(network(width=width), torch.device(device)) == expected


@pytest.mark.parametrize("chunk_size", [1, 0, -4])
def test_chunks_too_small_for_batch_norm_are_refused(chunk_size: int) -> None:
    with pytest.raises(ConfigError, match=r"train\.chunk_size"):
        parse_section(asdict(CONFIG) | {"chunk_size": chunk_size}, "train", TrainConfig)


@pytest.mark.parametrize("wrong", [{"precision": "float16"}, {"chunk_size": 2.5}])
def test_unknown_precision_and_broken_chunks_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"train.{next(iter(wrong))}"):
        parse_section(asdict(CONFIG) | wrong, "train", TrainConfig)
