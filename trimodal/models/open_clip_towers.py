"""The image and the text tower of OpenCLIP's CLIP models."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trimodal.core.display import printable
from trimodal.core.records import DataError
from trimodal.models.image_input import ImageInput
from trimodal.models.text_input import ClipInput, TextInput
from trimodal.models.towers import (
    OPEN_CLIP,
    Definition,
    TowerError,
    channels_of,
    check_installed,
    checking_definition,
    explaining_weights,
    quiet,
)


class OpenClipImage(nn.Module):
    """The image tower of a CLIP model of OpenCLIP: (batch, 3, size, size) -> (batch, features), in
    CLIP's space, not normalised.
    """

    def __init__(self, visual: nn.Module, image_input: ImageInput, definition: Definition) -> None:
        super().__init__()
        self.network = visual
        self.input = image_input
        self.features = int(definition["model_cfg"]["embed_dim"])
        self.definition = definition

    def forward(self, pixels: Tensor) -> Tensor:
        """CLIP's image embedding, (batch, features)."""
        features: Tensor = self.network(pixels)
        return features


class OpenClipText(nn.Module):
    """The text tower of a CLIP model of OpenCLIP: int64 (batch, length) ids -> (batch, features),
    in CLIP's space, not normalised.
    """

    def __init__(self, text: nn.Module, definition: Definition) -> None:
        super().__init__()
        self.network = text
        self.features = int(definition["model_cfg"]["embed_dim"])
        self.definition = definition
        length = int(definition["model_cfg"]["text_cfg"].get("context_length", 77))
        self.tokenise: TextInput = ClipInput(length)

    def forward(self, ids: Tensor) -> Tensor:
        """CLIP's text embedding, (batch, features)."""
        features: Tensor = self.network(ids)
        return features


def open_clip_towers(
    name: str, weights: str, key: str, weights_key: str
) -> tuple[OpenClipImage, OpenClipText]:
    """Both towers of a CLIP model: ``open_clip:MODEL/TAG`` (with ``pretrained`` weights those of
    that tag) or ``open_clip:FOLDER`` with open_clip_config.json and weights. Raises TowerError and
    WeightsUnavailableError.
    """
    check_installed(OPEN_CLIP, key)
    import open_clip

    name = name.removeprefix(OPEN_CLIP)
    folder = Path(name).is_dir()
    model, _, tag = name.rpartition("/")
    if not folder and model not in open_clip.list_models():
        raise TowerError(
            f"{key}: neither a folder nor MODEL/TAG of OpenCLIP: {name!r}; models are "
            f"{', '.join(open_clip.list_models()[:6])}, ... (open_clip.list_pretrained() has all)"
        )
    pretrained = tag if weights == "pretrained" else None if weights == "none" else weights
    with explaining_weights(weights_key, name), quiet():
        clip = open_clip.create_model(
            f"local-dir:{name}" if folder else model,
            pretrained=None if folder else pretrained,
            load_weights=weights != "none",
            require_pretrained=weights != "none",
            force_custom_text=True,
            weights_only=True,
        )
    config = _open_clip_config(name, model, folder, key)
    preprocess = open_clip.get_model_preprocess_cfg(clip)
    definition = {"model_cfg": config, "preprocess_cfg": json.loads(json.dumps(preprocess))}
    return _clip_parts(clip, definition)


def _open_clip_config(name: str, model: str, folder: bool, key: str) -> Any:
    import open_clip

    if folder:
        config = json.loads((Path(name) / "open_clip_config.json").read_text())["model_cfg"]
    else:
        config = open_clip.get_model_config(model)
    if "hf_model_name" in config["text_cfg"] or "hf_tokenizer_name" in config["text_cfg"]:
        raise TowerError(f"{key}: {name}: only CLIP models with CLIP's own tokeniser are supported")
    if "multimodal_cfg" in config:
        raise TowerError(f"{key}: {name}: CoCa models are not supported")
    return {part: value for part, value in config.items() if part != "custom_text"}


def rebuilt_open_clip(definition: Definition) -> tuple[OpenClipImage, OpenClipText]:
    """Both towers, with random weights, from what a saved model says of them. Nothing is
    downloaded. Raises DataError for a definition of anything else.
    """
    check_installed(OPEN_CLIP, "model")
    from open_clip.model import CustomTextCLIP

    with checking_definition("OpenCLIP"), quiet():
        config = definition["model_cfg"]
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        _check_local(vision.get("timm_model_name"), config["text_cfg"].get("hf_model_name"))
        clip = CustomTextCLIP(**{**config, "vision_cfg": vision})
        return _clip_parts(clip, definition)


def _check_local(timm_name: Any, hugging_face_name: Any) -> None:
    """Names with a place, like ``hf-hub:...``, would be looked up there."""
    if timm_name and not re.fullmatch(r"[\w.]+", str(timm_name)):
        raise DataError(f"towers: vision_cfg.timm_model_name: {printable(str(timm_name))!r}")
    if hugging_face_name:
        raise DataError("towers: text_cfg.hf_model_name: only CLIP's own text tower is supported")


def _clip_parts(clip: Any, definition: Definition) -> tuple[OpenClipImage, OpenClipText]:
    preprocess = definition["preprocess_cfg"]
    size = preprocess["size"]
    image_input = ImageInput(
        size_px=size if isinstance(size, int) else size[0],
        mean=channels_of(preprocess["mean"]),
        std=channels_of(preprocess["std"]),
    )
    return (
        OpenClipImage(clip.visual, image_input, definition),
        OpenClipText(clip.text, definition),
    )
