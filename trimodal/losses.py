"""The ranking losses (paper.md, Losses): embeddings in, scalars out."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]
_ROWS_AT_ONCE = 256  # anchors whose hinges are in memory together; few enough for a cache


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


def pair_loss(
    image: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    *,
    margin: float,
    image_margin_scale: float | None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Both directions between images v and one other modality x: L(v, x) + L(x, v).

    Rows are unit vectors and row i of both is a pair. With s the dot product, m = ``margin`` and
    m' = ``image_margin_scale`` (paper.md, Losses):

        L(v, x) = sum over j != i of max(0, s(v_i, x_j) - s(v_i, x_i) + m' * sigmoid(-s(v_i, v_j)))
        L(x, v) = sum over j != i of max(0, s(x_i, v_j) - s(x_i, v_i) + m)

    each averaged over all (i, j != i) with ``mean``, the authors' code, or over i alone with
    ``sum``, the paper's formula. With None for m', L(v, x) has the margin m too. No gradient flows
    through the margin. Raises ValueError for fewer than two pairs: there is no negative.
    """
    batch = len(image)
    if batch < 2:
        raise ValueError("a ranking loss needs at least two pairs")
    with torch.no_grad():
        total, slope = _hinges(image, other, margin, image_margin_scale)
    # While the same hinges are active, their sum is linear in the similarities.
    linear = (image * (slope @ other)).sum()
    total = total + (linear - linear.detach())
    return total / (batch * (batch - 1) if reduction == "mean" else batch)


def variable_margin(
    anchor_similarity: Float[Tensor, "anchors batch"], scale: float
) -> Float[Tensor, "anchors batch"]:
    """The margin of each anchor i and negative j: scale * sigmoid(-s(x_i, x_j)), no gradient.

    Similar anchors get a small margin, dissimilar ones a large one (paper.md, Losses, "variable").
    """
    return torch.sigmoid(-anchor_similarity.detach()).mul_(scale)


def _hinges(
    image: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    margin: float,
    image_margin_scale: float | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch batch"]]:
    """The sum of both directions' hinges, and its derivative by each similarity s(v_i, x_j)."""
    batch = len(image)
    true = (image * other).sum(dim=1)
    total, slope = image.new_zeros(()), image.new_empty(batch, batch)
    active = image.new_zeros(batch)  # hinges that have pair i's own similarity
    for first in range(0, batch, _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        similarity = image[rows] @ other.T
        image_margin = (
            margin
            if image_margin_scale is None
            else variable_margin(image[rows] @ image.T, image_margin_scale)
        )
        forth = (similarity - true[rows, None]).add_(image_margin).relu_()
        back = similarity.sub_(true).add_(margin).relu_()
        for hinges in (forth, back):
            hinges.diagonal(first).zero_()
            total += hinges.sum()
            hinges.sign_()
        active[rows] += forth.sum(dim=1)
        active += back.sum(dim=0)
        torch.add(forth, back, out=slope[rows])
    slope.diagonal().sub_(active)
    return total, slope
