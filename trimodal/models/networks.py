"""The three networks that embed image, audio and text on one unit sphere (docs/method.md, Model).

Some parts have an alternative to the authors' design: linear heads, the mean of word vectors
instead of the CNN, trained word vectors, dropout (docs/results.md compares them).
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass
from torch import Tensor, nn

from trimodal.core.config import SECTION
from trimodal.core.text import PADDING_ID
from trimodal.models.backbones import (
    Backbone,
    Weights,
    build_audio_backbone,
    build_image_backbone,
)

EMBEDDING_DIM = 256


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class ModelConfig:
    """Section ``model``. ``width`` is the ResNets' first-stage channel count: 64 is ResNet-18.

    ``head`` maps features to the joint space: ``two_layer`` (the paper's) or ``linear``;
    ``dropout`` is the share of image and audio features dropped before it in training.
    ``text_network`` is the paper's ``cnn`` or the ``mean`` of the word vectors. ``text_pooling``
    says what the CNN's last mean is over: ``all`` positions (the authors' code) or those of
    ``words`` alone. ``word_vectors`` are ``frozen`` (the authors' code) or ``trained``.
    """

    image_backbone: Backbone
    image_weights: Weights
    audio_weights: Weights
    width: PositiveInt
    head: Literal["two_layer", "linear"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    text_network: Literal["cnn", "mean"]
    text_pooling: Literal["all", "words"]
    word_vectors: Literal["frozen", "trained"]

    def __post_init__(self) -> None:
        resnets = {self.audio_weights}
        if self.image_backbone == "resnet18":
            resnets.add(self.image_weights)
        if self.width != 64 and "imagenet" in resnets:
            raise ValueError(
                "model.image_weights and model.audio_weights: imagenet needs model.width 64, not "
                f"{self.width}; set them to none, or image_backbone to efficientnet_lite0"
            )


def _head(features: int, config: ModelConfig) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(features, EMBEDDING_DIM)
    return nn.Sequential(
        nn.Linear(features, EMBEDDING_DIM),
        nn.ReLU(inplace=True),
        nn.Linear(EMBEDDING_DIM, EMBEDDING_DIM),
    )


def _unit_vectors(rows: Tensor) -> Tensor:
    # Autocast's bfloat16 ends here: lengths, similarities and losses are float32.
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)


class VisionNet(nn.Module):
    """A 2-D backbone and its head: the image network, and the audio network on mel windows."""

    def __init__(self, backbone: nn.Module, features: int, config: ModelConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.head = _head(features, config)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 256"]:
        """Unit vectors. Images must be normalised with ImageNet's mean and standard deviation."""
        return self.from_features(self.backbone(pixels))

    def from_features(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch 256"]:
        """Unit vectors from the backbone's features."""
        return _unit_vectors(self.head(self.dropout(features)))


class TextNet(nn.Module):
    """Captions, rows of word ids, to unit vectors, starting from word vectors.

    Frozen word vectors are not in the state dict: they belong to the vocabulary.
    """

    vectors: Tensor

    def __init__(
        self, vectors: Float[Tensor, "words dim"], features: int, config: ModelConfig
    ) -> None:
        super().__init__()
        if config.word_vectors == "trained":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors, persistent=False)
        self.head = _head(features, config)

    def forward(
        self,
        token_ids: Int[Tensor, "batch words"],
        further: Float[Tensor, "further dim"] | None = None,
    ) -> Float[Tensor, "batch 256"]:
        """Unit vectors of captions given as rows of word ids. Ids from the number of words up are
        rows of ``further``, vectors that only these captions need (not empty).
        """
        vectors = self._word_vectors(token_ids, further)
        return _unit_vectors(self.head(self.features(vectors, token_ids != PADDING_ID)))

    def _word_vectors(self, token_ids: Tensor, further: Tensor | None) -> Tensor:
        if further is None:
            return self.vectors[token_ids]
        known = len(self.vectors)
        own = self.vectors[token_ids.clamp(max=known - 1)]
        others = further[(token_ids - known).clamp(min=0)]
        return torch.where((token_ids >= known)[..., None], others, own)

    def features(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch features"]:
        """The input of the head, from the word vectors and which of them are no padding."""
        raise NotImplementedError


class TextCnn(TextNet):
    """A 1-D CNN on word vectors (docs/method.md, Model).

    Six convolutions of kernel 2 without bias, each followed by batch norm, ReLU and one zero on
    the right, so that the length stays; max-pool 2 after the fourth and the sixth; then the mean
    over the four remaining positions, or over those of them that cover a word.
    """

    _WIDTHS = (128, 128, 256, 256, 512, 512)

    def __init__(self, vectors: Float[Tensor, "words dim"], config: ModelConfig) -> None:
        super().__init__(vectors, self._WIDTHS[-1], config)
        self._over_words = config.text_pooling == "words"
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=2, bias=False)
            for before, after in pairwise((vectors.shape[1], *self._WIDTHS))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in self._WIDTHS)
        for weight in self.convolutions.parameters():
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def features(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch 512"]:
        """The mean over positions."""
        out = vectors.transpose(1, 2)  # (batch, dim, words)
        covers_word = is_word.to(out.dtype)[:, None]
        layers = zip(self.convolutions, self.norms, strict=True)
        for number, (convolution, norm) in enumerate(layers, start=1):
            out = F.pad(torch.relu(norm(convolution(out))), (0, 1))
            if number in (4, 6):
                out, covers_word = F.max_pool1d(out, 2), F.max_pool1d(covers_word, 2)
        if not self._over_words:
            return out.mean(dim=2)
        return (out * covers_word).sum(dim=2) / covers_word.sum(dim=2).clamp(min=1)


class WordMean(TextNet):
    """The mean of a caption's word vectors, without padding: word order is ignored, and only the
    head has weights.
    """

    def __init__(self, vectors: Float[Tensor, "words dim"], config: ModelConfig) -> None:
        super().__init__(vectors, vectors.shape[1], config)

    def features(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch dim"]:
        """The mean; zeros for a caption without a word."""
        weights = is_word.to(vectors.dtype)[..., None]
        return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def build_text_network(vectors: Float[Tensor, "words dim"], config: ModelConfig) -> TextNet:
    """The text network selected by ``config.text_network``."""
    return TextCnn(vectors, config) if config.text_network == "cnn" else WordMean(vectors, config)


class TrimodalNet(nn.Module):
    """The image, audio and text networks. At full size they have 11,373,632, 11,367,360
    and 1,293,312 trainable parameters.

    ``vectors`` are the vocabulary's word vectors; row 0 is padding.
    """

    def __init__(self, config: ModelConfig, vectors: Float[Tensor, "words dim"]) -> None:
        super().__init__()
        image = build_image_backbone(config.image_backbone, config.width, config.image_weights)
        audio = build_audio_backbone(config.width, config.audio_weights)
        self.image = VisionNet(image, image.features, config)
        self.audio = VisionNet(audio, audio.features, config)
        self.text = build_text_network(vectors, config)
