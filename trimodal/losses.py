"""The ranking losses (paper.md, Losses): similarity matrices in, scalars out."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Section ``loss``. ``fixed`` uses ``margin`` everywhere; ``variable`` uses m' =
    ``variable_scale`` on image anchors (paper.md, Losses). ``reduction`` is over the negatives.
    """

    margin_mode: Literal["fixed", "variable"]
    margin: float
    variable_scale: float
    reduction: Reduction

    def __post_init__(self) -> None:
        if self.margin < 0 or self.variable_scale < 0:
            raise ValueError("loss: margin and variable_scale are not negative")

    @property
    def image_margin_scale(self) -> float | None:
        """m' where the margin of image anchors is variable, else None."""
        return self.variable_scale if self.margin_mode == "variable" else None


def ranking_loss(
    similarity: Float[Tensor, "batch batch"],
    margin: float | Float[Tensor, "batch batch"],
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Hinge ranking loss of anchors (rows) against the other modality's items (columns).

    With s = ``similarity``, whose diagonal holds the true pairs, and m = ``margin`` (one number,
    or one for each anchor and negative; paper.md, Losses, "simple" and "variable"):

        sum over j != i of max(0, s[i, j] - s[i, i] + m[i, j])

    averaged over all (i, j != i) with ``mean``, the authors' code, or over i alone with ``sum``,
    the paper's formula. Raises ValueError for fewer than two pairs: there is no negative.
    """
    batch = len(similarity)
    if batch < 2:
        raise ValueError("a ranking loss needs at least two pairs")
    hinge = torch.relu(similarity - similarity.diagonal()[:, None] + margin)
    negatives = hinge.sum() - hinge.diagonal().sum()
    return negatives / (batch * (batch - 1) if reduction == "mean" else batch)


def variable_margin(
    anchor_similarity: Float[Tensor, "batch batch"], scale: float
) -> Float[Tensor, "batch batch"]:
    """The margin of each anchor i and negative j: scale * sigmoid(-s(x_i, x_j)), no gradient.

    Similar anchors get a small margin, dissimilar ones a large one (paper.md, Losses, "variable").
    """
    return scale * torch.sigmoid(-anchor_similarity.detach())


def pair_loss(
    image: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    *,
    margin: float,
    image_margin_scale: float | None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Both directions between images and one other modality: L(v, x) + L(x, v).

    Rows are unit vectors and row i of both is a pair. ``image_margin_scale`` is m' of the variable
    margin, used where the image is the anchor; with None that term has the fixed ``margin`` too.
    The reverse term always has the fixed margin (paper.md, Losses, last formula).
    """
    similarity = image @ other.T
    image_margin = (
        margin
        if image_margin_scale is None
        else variable_margin(image @ image.T, image_margin_scale)
    )
    return ranking_loss(similarity, image_margin, reduction) + ranking_loss(
        similarity.T, margin, reduction
    )
