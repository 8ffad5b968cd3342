"""Models of timm as image and audio backbones."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trimodal.models.image_input import ImageInput
from trimodal.models.towers import (
    TIMM,
    Definition,
    TowerError,
    WeightsUnavailableError,
    channels_of,
    check_installed,
    explaining_weights,
    in_a_line,
    load_all,
    quiet,
    read_safetensors,
)


class TimmBackbone(nn.Module):
    """A model of timm without its classifier: (batch, channels, height, width) -> (batch,
    features), its pooled features.
    """

    def __init__(self, name: str, channels: int, key: str) -> None:
        super().__init__()
        check_installed(TIMM, key)
        import timm

        try:
            network: Any = timm.create_model(
                name, pretrained=False, num_classes=0, in_chans=channels
            )
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            near = ", ".join(timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:6])
            raise TowerError(
                f"{key}: timm has no usable model {name!r} ({in_a_line(error)}); "
                f"{f'near: {near}; ' if near else ''}timm.list_models() has all names"
            ) from error
        self.network = network
        data: Any = timm.data
        config = data.resolve_model_data_config(network)
        fixed = network.pretrained_cfg.get("fixed_input_size", False)
        self.input = ImageInput(
            size_px=config["input_size"][-1] if fixed else None,
            mean=channels_of(config["mean"]),
            std=channels_of(config["std"]),
        )
        self.features: int = getattr(network, "head_hidden_size", network.num_features)
        self.definition: Definition = {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled features, (batch, features)."""
        features: Tensor = self.network(pixels)
        return features

    def feature_map(self, pixels: Tensor) -> Tensor:
        """The last feature map, (batch, features, height, width). Raises TowerError for a model
        without one of that many channels.
        """
        features: Tensor = self.network.forward_features(pixels)
        if features.dim() != 4 or features.shape[1] != self.features:
            raise TowerError(
                "model.image_backbone: this model of timm has no map of its features, so that "
                "nothing can be localised with it"
            )
        return features


def timm_backbone(
    name: str, weights: str, channels: int, key: str, weights_key: str
) -> TimmBackbone:
    """A model of timm, by its name with or without ``timm:``; with ``pretrained`` weights those of
    Hugging Face's hub (safetensors), else a .safetensors file's. Colour filters of the first
    convolution are added up for a network of one channel, as timm does. Raises TowerError and
    WeightsUnavailableError.
    """
    name = name.removeprefix(TIMM)
    backbone = TimmBackbone(name, channels, key)
    if weights == "none":
        return backbone
    path = _timm_file(name, weights, weights_key)
    state = read_safetensors(path, weights_key)
    _load_timm(backbone.network, state, f"{weights_key}: {path}")
    return backbone


def _timm_file(name: str, weights: str, key: str) -> Path:
    if weights != "pretrained":
        return Path(weights)
    import timm
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsUnavailableError(
            f"{key}: timm knows no pretrained weights of {name!r}; "
            "timm.list_pretrained() has the names of all"
        )
    with explaining_weights(key, name), quiet():
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))


def _load_timm(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    from timm.models import adapt_input_conv

    own = network.state_dict()
    first = next((n for n, tensor in own.items() if tensor.dim() == 4), None)
    if first and first in state and state[first].shape[1] == 3 != own[first].shape[1]:
        state[first] = adapt_input_conv(own[first].shape[1], state[first])
    load_all(network, {name: state[name] for name in own if name in state}, where)
