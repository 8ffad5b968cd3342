"""Section ``model``: which networks, of which sizes, and where they start from."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION

Tower = Literal["image", "audio", "text"]
_TIMM = r"timm:[\w.]+"
_OPEN_CLIP = r"open_clip:[^\s:]+"
_ImageBackbone = Annotated[
    str, Field(pattern=f"^(resnet18|efficientnet_lite0|{_TIMM}|{_OPEN_CLIP})$")
]
_AudioBackbone = Annotated[str, Field(pattern=f"^(resnet18|{_TIMM})$")]
_TextNetwork = Annotated[
    str, Field(pattern=rf"^(cnn|mean|{_OPEN_CLIP}|sentence_transformers:[^\s:]+)$")
]
_Weights = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=SECTION)
class ModelConfig:
    """Section ``model``. ``width`` is the ResNets' first-stage channel count: 64 is ResNet-18.

    Backbones are the project's own or another library's (:mod:`trimodal.models.towers`):
    ``timm:NAME``, ``open_clip:MODEL/TAG`` or ``open_clip:FOLDER``, ``sentence_transformers:NAME``
    or ``sentence_transformers:FOLDER``. Weights are ``none`` (random), ``imagenet`` (of
    ``resnet18`` and ``efficientnet_lite0``), ``pretrained`` (of the others) or a .safetensors file
    (of timm and OpenCLIP).

    ``head`` maps features to the joint space of ``embedding_dim`` dimensions: ``two_layer`` (the
    paper's), ``linear``, or ``none``: image and text towers share a space already, which is the
    joint one, and only audio has a head (of two layers). ``dropout`` is the share of features
    dropped before the head of image and audio in training. ``text_network`` is the paper's ``cnn``,
    the ``mean`` of the word vectors, or a tower. ``text_pooling`` says what the CNN's last mean is
    over: ``all`` positions (the authors' code) or those of ``words`` alone. ``word_vectors`` are
    ``frozen`` (the authors' code) or ``trained``.

    Backbones in ``freeze`` are not trained, their features are computed once
    (:mod:`trimodal.features.stage`). ``init_from`` is the folder of a model from which the networks
    in ``init_towers`` start (:mod:`trimodal.models.warm_start`).
    """

    image_backbone: _ImageBackbone
    image_weights: _Weights
    audio_backbone: _AudioBackbone
    audio_weights: _Weights
    width: PositiveInt
    embedding_dim: PositiveInt
    head: Literal["two_layer", "linear", "none"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    text_network: _TextNetwork
    text_weights: _Weights
    text_pooling: Literal["all", "words"]
    word_vectors: Literal["frozen", "trained"]
    freeze: tuple[Literal["image", "text"], ...]
    init_from: str
    init_towers: tuple[Tower, ...]

    def __post_init__(self) -> None:
        self._check_imagenet()
        for key, backbone, weights in (
            ("image", self.image_backbone, self.image_weights),
            ("audio", self.audio_backbone, self.audio_weights),
            ("text", self.text_network, self.text_weights),
        ):
            _check_weights(key, backbone, weights)
        if "text" in self.freeze and self.word_vectors == "trained" and self.has_vocabulary:
            raise ValueError("model.word_vectors: trained, but model.freeze has text")
        for key in ("freeze", "init_towers"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"model.{key}: a network is named twice")

    def _check_imagenet(self) -> None:
        resnets = {self.audio_weights} if self.audio_backbone == "resnet18" else set()
        if self.image_backbone == "resnet18":
            resnets.add(self.image_weights)
        if self.width != 64 and "imagenet" in resnets:
            raise ValueError(
                "model.image_weights and model.audio_weights: imagenet needs model.width 64, not "
                f"{self.width}; set them to none, or image_backbone to efficientnet_lite0"
            )

    @property
    def has_vocabulary(self) -> bool:
        """Whether sentences are words of the vocabulary, not a tower's own tokens."""
        return self.text_network in ("cnn", "mean")


def _check_weights(network: str, backbone: str, weights: str) -> None:
    key = f"model.{network}_weights"
    if backbone in ("resnet18", "efficientnet_lite0"):
        choices = ["none", "imagenet"]
    elif backbone in ("cnn", "mean"):
        choices = ["none"]
    else:
        choices = ["none", "pretrained"]
        if not backbone.startswith("sentence_transformers:") and weights.endswith(".safetensors"):
            return
    if weights not in choices:
        file = " or a .safetensors file" if choices[-1] == "pretrained" else ""
        raise ValueError(f"{key}: {weights!r}, but {backbone} takes {' or '.join(choices)}{file}")
