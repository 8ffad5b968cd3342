"""Where in a picture a sound comes from, by the image network's last feature map."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from trimodal.models.networks import TrimodalNet
from trimodal.models.towers import TowerError

_TOLERANCE = 1e-3  # of the features' largest magnitude


def sound_map(
    network: TrimodalNet,
    pixels: UInt8[Tensor, "batch 3 height width"],
    windows: Float[Tensor, "batch 1 mels columns"],
) -> Float[Tensor, "batch h w"]:
    """The cosine similarity of each place of a picture with its audio window, in [-1, 1] (Senocak
    et al. 2018, arXiv:1803.03849). The network must be in evaluation mode. Raises TowerError as
    :func:`place_embeddings` does.
    """
    return similarity_map(place_embeddings(network, pixels), network.audio(windows))


def similarity_map(
    places: Float[Tensor, "batch h w embedding"], embeddings: Float[Tensor, "batch embedding"]
) -> Float[Tensor, "batch h w"]:
    """The dot product of each place with the embedding of a sound or of a sentence."""
    return torch.einsum("bhwd,bd->bhw", places, embeddings.float())


def place_embeddings(
    network: TrimodalNet, pixels: UInt8[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch h w embedding"]:
    """A unit vector for each place of the image network's last feature map: the head is applied to
    the map instead of to its mean (Zhou et al. 2016, arXiv:1512.04150).

    The network must be in evaluation mode. Raises TowerError for an image network whose features
    are not the mean of a feature map.
    """
    backbone = network.image.backbone
    if not hasattr(backbone, "feature_map"):
        raise _no_map("is no convolutional network and has no map of its features")
    prepared = network.image.prepare(pixels)
    features: Tensor = backbone.feature_map(prepared)
    pooled = backbone(prepared[:1])
    apart = (features[:1].mean(dim=(2, 3)) - pooled).abs().max()
    if not apart <= _TOLERANCE * pooled.abs().max():
        raise _no_map("does more than average its feature map")
    return F.normalize(network.image.head(features.permute(0, 2, 3, 1)).float(), dim=3)


def _no_map(why: str) -> TowerError:
    return TowerError(
        f"model.image_backbone: this one {why}, so that nothing can be localised with it; resnet18 "
        "and efficientnet_lite0 can"
    )
