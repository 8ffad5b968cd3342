"""The three networks: sizes, outputs, and the text CNN written out by hand."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from model_fixtures import MODEL
from torch import Tensor, nn

from trimodal.core.config import ConfigError, parse_section
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TextNet, TrimodalNet, build_text_network


def network(*, width: int = 4, words: int = 20) -> TrimodalNet:
    torch.manual_seed(0)
    config = replace(MODEL, width=width)
    vectors = torch.randn(words, 300)
    vectors[:2] = 0
    return TrimodalNet(config, vectors)


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def randomise_batch_norms(module: nn.Module) -> None:
    """Gives batch norms random statistics and scales, so that a mistake shows."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (part.bias.data, part.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)


def test_full_size_networks_have_the_stated_trainable_parameters() -> None:
    full = network(width=64)
    assert trainable(full.image) == 11_373_632
    assert trainable(full.audio) == 11_367_360
    assert trainable(full.text) == 1_293_312


def test_outputs_are_256_long_unit_vectors() -> None:
    net = network().eval()
    generator = torch.Generator().manual_seed(2)
    outputs = [
        net.image(torch.randn(3, 3, 64, 64, generator=generator)),
        net.audio(torch.randn(3, 1, 64, 151, generator=generator)),
        net.text(torch.randint(0, 20, (3, 16), generator=generator)),
    ]
    for output in outputs:
        assert output.shape == (3, 256)
        torch.testing.assert_close(output.norm(dim=1), torch.ones(3))
        assert (output[0] - output[1]).abs().max() > 1e-4


def test_head_is_two_linear_layers_with_a_relu_between() -> None:
    net = network().eval()
    pixels = torch.randn(2, 3, 32, 32)
    head = net.image.head
    hidden = F.relu(F.linear(net.image.backbone(pixels), head[0].weight, head[0].bias))
    embedded = F.linear(hidden, head[2].weight, head[2].bias)
    expected = embedded / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(net.image(pixels), expected)


def paper_text_cnn(net: TextNet, ids: Tensor) -> Tensor:
    """Written from the table: three blocks of two convolutions, each followed by batch norm, ReLU
    and one zero on the right; max-pool 2 after the second and third block; the average; the head.
    """
    state = net.state_dict()

    def layer(x: Tensor, number: int) -> Tensor:
        x = F.conv1d(x, state[f"backbone.convolutions.{number}.weight"])
        norm = {k: state[f"backbone.norms.{number}.{k}"] for k in ("running_mean", "running_var")}
        x = F.batch_norm(
            x,
            **norm,
            weight=state[f"backbone.norms.{number}.weight"],
            bias=state[f"backbone.norms.{number}.bias"],
        )
        x = F.relu(x)
        return torch.cat([x, torch.zeros(len(x), x.shape[1], 1)], dim=2)

    x = torch.stack(
        [torch.stack([net.backbone.vectors[i] for i in row]) for row in ids]
    )  # (batch, 16, 300)
    x = x.permute(0, 2, 1)
    x = layer(layer(x, 0), 1)
    assert x.shape[1:] == (128, 16)
    x = layer(layer(x, 2), 3)
    assert x.shape[1:] == (256, 16)
    x = F.max_pool1d(x, 2)
    x = layer(layer(x, 4), 5)
    assert x.shape[1:] == (512, 8)
    x = F.max_pool1d(x, 2)
    x = x.sum(dim=2) / 4
    x = F.relu(F.linear(x, state["head.0.weight"], state["head.0.bias"]))
    x = F.linear(x, state["head.2.weight"], state["head.2.bias"])
    return x / x.norm(dim=1, keepdim=True)


def test_text_network_is_the_papers_cnn() -> None:
    net = network().text.eval()
    randomise_batch_norms(net)
    ids = torch.randint(0, 20, (5, 16), generator=torch.Generator().manual_seed(3))
    ids[0, 4:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(net(ids), paper_text_cnn(net, ids))


def test_word_order_matters() -> None:
    net = network().text.eval()
    ids = torch.arange(2, 18)[None]
    assert (net(ids) - net(ids.flip(1))).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["cnn", "mean"])
def test_further_words_are_as_if_they_had_a_row(kind: str) -> None:
    vectors = torch.randn(20, 300, generator=torch.Generator().manual_seed(1))
    config = replace(MODEL, text_network=kind)
    net, longer = (build_text_network(config, rows).eval() for rows in (vectors[:17], vectors))
    longer.load_state_dict(net.state_dict())
    ids = torch.tensor([[2, 17, 19, 16] + [0] * 12, [18] * 16, [3, 1] + [0] * 14])
    with torch.inference_mode():
        torch.testing.assert_close(net(ids, vectors[17:]), longer(ids))
        torch.testing.assert_close(net(ids[2:], vectors[17:]), net(ids[2:]))


def test_frozen_word_vectors_do_not_move_and_are_not_in_the_state_dict() -> None:
    net = network()
    before = net.text.backbone.vectors.clone()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    net.text(torch.randint(0, 20, (4, 16))).sum().backward()
    optimiser.step()
    assert not net.text.backbone.vectors.requires_grad
    assert net.text.backbone.vectors.grad is None
    assert torch.equal(net.text.backbone.vectors, before)
    assert not [name for name in net.state_dict() if "vectors" in name]
    assert "vectors" in dict(net.text.backbone.named_buffers())


def test_audio_network_has_one_input_channel() -> None:
    assert network(width=8).audio.backbone.conv1.weight.shape == (8, 1, 7, 7)


def test_imagenet_weights_of_another_width_are_refused_by_the_section() -> None:
    with pytest.raises(ValueError, match=r"model\.audio_weights"):
        replace(MODEL, audio_weights="imagenet", width=32)


def test_width_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"^model\.width: "):
        parse_section(asdict(MODEL) | {"width": 0}, "model", ModelConfig)
