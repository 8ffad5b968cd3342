"""Losses to set beside the paper's: hardest and semi-hard negatives, and InfoNCE; and the choice.

As those of :mod:`trimodal.losses`: embeddings in, scalars out, both directions added; rows are unit
vectors, row i of both is a pair, and with ``whole`` the rows are anchors among the whole batch.
They hold matrices of rows x batch.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trimodal.losses import LossConfig, WholeBatch, pair_loss, variable_margin

Mining = Literal["hardest", "semi_hard"]
LARGEST_SCALE = 100.0  # of InfoNCE's similarities, as CLIP cuts it (Radford et al. 2021, 2.5)


def configured_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    config: LossConfig,
    *,
    progress: float,
    scale: Float[Tensor, ""],
    whole: WholeBatch | None = None,
) -> Float[Tensor, ""]:
    """The loss that section ``loss`` names, when the share ``progress`` of the epochs' way is gone;
    ``scale`` is InfoNCE's alone. Raises ValueError for fewer than two pairs.
    """
    if config.kind == "info_nce":
        return info_nce(image, other, scale, whole=whole)
    scales = config.margin_scales(progress)
    if config.kind == "hinges":
        return pair_loss(
            image, other, margin=config.margin, image_margin_scale=scales.image,
            other_margin_scale=scales.other, margin_temperature=config.margin_temperature,
            reduction=config.reduction, whole=whole,
        )  # fmt: skip
    return mined_loss(
        image, other, mining=config.kind, margin=config.margin, image_margin_scale=scales.image,
        other_margin_scale=scales.other, margin_temperature=config.margin_temperature, whole=whole,
    )  # fmt: skip


def mined_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    *,
    mining: Mining,
    margin: float,
    image_margin_scale: float | None = None,
    other_margin_scale: float | None = None,
    margin_temperature: float = 1.0,
    whole: WholeBatch | None = None,
) -> Float[Tensor, ""]:
    """One negative an anchor: the mean over anchors i of max(0, s(x_i, y_j) - s(x_i, y_i) + m).

    j is the ``hardest`` negative, the one of the largest hinge (VSE++, Faghri et al. 2018, eq. 6),
    or the ``semi_hard`` one, the nearest of those that are farther than the partner (FaceNet,
    Schroff et al. 2015, 3.2); an anchor without any adds 0. Margins are those of
    :func:`~trimodal.losses.pair_loss`. Raises ValueError for fewer than two pairs.
    """
    whole = _checked(whole or WholeBatch(image, other, 0))

    def one_way(anchors: Tensor, others: Tensor, alike: Tensor, scale: float | None) -> Tensor:
        margins: Tensor | float = margin
        if scale is not None:
            margins = variable_margin(anchors @ alike.T, scale, margin_temperature)
        similarity = anchors @ others.T
        own = similarity.diagonal(whole.first)[:, None]
        hinges = similarity - own + margins
        allowed = similarity < own if mining == "semi_hard" else torch.ones_like(hinges).bool()
        allowed.diagonal(whole.first).fill_(False)
        largest = torch.where(allowed, hinges, -torch.inf).amax(dim=1)
        return torch.relu(largest).sum()

    forth = one_way(image, whole.other, whole.image, image_margin_scale)
    back = one_way(other, whole.image, whole.other, other_margin_scale)
    return (forth + back) / len(whole.image)


def info_nce(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    scale: Float[Tensor, ""] | float,
    *,
    whole: WholeBatch | None = None,
) -> Float[Tensor, ""]:
    """The mean over anchors of -log softmax_j(scale * s(x_i, y_j)) at j = i (van den Oord et al.
    2018, eq. 4; both directions as in CLIP). Raises ValueError for fewer than two pairs.
    """
    whole = _checked(whole or WholeBatch(image, other, 0))
    partner = torch.arange(whole.first, whole.first + len(image), device=image.device)
    forth = F.cross_entropy(scale * (image @ whole.other.T), partner, reduction="sum")
    back = F.cross_entropy(scale * (other @ whole.image.T), partner, reduction="sum")
    return (forth + back) / len(whole.image)


class LearnedScale(nn.Module):
    """What InfoNCE multiplies similarities with: 1 / temperature, learned by its logarithm, at most
    100 (CLIP).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Float[Tensor, ""]:
        """The scale."""
        return self.log_scale.clamp(max=math.log(LARGEST_SCALE)).exp()


def _checked(whole: WholeBatch) -> WholeBatch:
    if len(whole.image) < 2:
        raise ValueError("a ranking loss needs at least two pairs")
    return whole
