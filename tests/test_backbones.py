"""Pretrained weights that cannot be had: the message's advice works."""

from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from configs import config_for_tests
from torchvision.models import ResNet18_Weights

from trimodal.models.backbones import WeightsUnavailableError
from trimodal.models.networks import ModelConfig, TrimodalNet

PRETRAINED = config_for_tests(
    ModelConfig, width=64, image_weights="imagenet", audio_weights="imagenet"
)
ADVICE = (
    {"image_weights": "none", "audio_weights": "none"},
    {"audio_weights": "none", "image_backbone": "efficientnet_lite0"},
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", unreachable)


def test_the_error_names_every_key_of_its_advice() -> None:
    with pytest.raises(WeightsUnavailableError, match="no network") as caught:
        TrimodalNet(PRETRAINED, torch.zeros(2, 300))
    for key in {key for changes in ADVICE for key in changes}:
        assert f"model.{key}" in str(caught.value)


@pytest.mark.parametrize("changes", ADVICE)
def test_who_follows_the_advice_needs_no_download(changes: dict[str, str]) -> None:
    TrimodalNet(replace(PRETRAINED, **changes), torch.zeros(2, 300))


@pytest.mark.parametrize("missing", ["image_weights", "audio_weights"])
def test_half_of_the_advice_leads_to_the_same_error(missing: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"model\.audio_weights"):
        TrimodalNet(replace(PRETRAINED, **{missing: "none"}), torch.zeros(2, 300))
