"""The three networks that map image, audio and text to one unit sphere (paper.md, Model)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from trimodal.backbones import Backbone, Weights, audio_backbone, image_backbone

EMBEDDING_DIM = 256
Pooling = Literal["all", "words"]
_PADDING = 0  # the word id of padding (trimodal.text)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Section ``model``. ``width`` is the ResNets' first-stage channel count: 64 is ResNet-18. The
    text network's last mean is over ``all`` positions (the paper's) or those of ``words`` alone.
    """

    image_backbone: Backbone
    image_weights: Weights
    audio_weights: Weights
    width: int
    text_pooling: Pooling

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("model.width must be positive")
        if self.width != 64 and self.audio_weights == "imagenet":
            raise ValueError("model.audio_weights: imagenet needs model.width 64")


def _head(features: int) -> nn.Sequential:
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

    def __init__(self, backbone: nn.Module, features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = _head(features)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 256"]:
        """Unit vectors; images are normalised with ImageNet's mean and deviation before."""
        return _unit_vectors(self.head(self.backbone(pixels)))


class TextNet(nn.Module):
    """A 1-D CNN on frozen word vectors (paper.md, Model, row 'text').

    Six convolutions of kernel 2 without bias, each followed by batch norm, ReLU and one zero on
    the right, so that the length stays; max-pool 2 after the fourth and the sixth; mean over time:
    over all four positions that are left, or with ``pooling`` words over those that hold a word.
    The vectors are not part of the state dict: they belong to the vocabulary.
    """

    vectors: Tensor

    def __init__(self, vectors: Float[Tensor, "words dim"], pooling: Pooling) -> None:
        super().__init__()
        self._pooling = pooling
        self.register_buffer("vectors", vectors, persistent=False)
        widths = [vectors.shape[1], 128, 128, 256, 256, 512, 512]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=2, bias=False)
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.head = _head(widths[-1])
        for weight in self.convolutions.parameters():
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def forward(self, token_ids: Int[Tensor, "batch words"]) -> Float[Tensor, "batch 256"]:
        """Unit vectors of captions given as rows of word ids."""
        out = self.vectors[token_ids].transpose(1, 2)  # (batch, dim, words)
        held = (token_ids != _PADDING).to(out.dtype)[:, None]
        layers = zip(self.convolutions, self.norms, strict=True)
        for number, (convolution, norm) in enumerate(layers, start=1):
            out = F.pad(torch.relu(norm(convolution(out))), (0, 1))
            if number in (4, 6):
                out, held = F.max_pool1d(out, 2), F.max_pool1d(held, 2)
        if self._pooling == "words":
            pooled = (out * held).sum(dim=2) / held.sum(dim=2).clamp(min=1)
        else:
            pooled = out.mean(dim=2)
        return _unit_vectors(self.head(pooled))


class TrimodalNet(nn.Module):
    """The image, audio and text networks. Full size, they have 11,373,632, 11,367,360 and
    1,293,312 trainable parameters.
    """

    def __init__(self, config: ModelConfig, vectors: Float[Tensor, "words dim"]) -> None:
        super().__init__()
        image = image_backbone(config.image_backbone, config.width, config.image_weights)
        audio = audio_backbone(config.width, config.audio_weights)
        self.image = VisionNet(image, image.features)
        self.audio = VisionNet(audio, audio.features)
        self.text = TextNet(vectors, config.text_pooling)
