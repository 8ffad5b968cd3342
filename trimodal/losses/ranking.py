"""The ranking losses (paper.md, Losses): embeddings in, scalars out."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]
_ROWS_AT_ONCE = 256  # anchors whose hinges are in memory together; few enough for a cache


class WholeBatch(NamedTuple):
    """The batch that rows are part of: they are its rows ``first``, ``first + 1``, ..."""

    image: Float[Tensor, "batch dim"]
    other: Float[Tensor, "batch dim"]
    first: int


def whole_batch(image: Tensor, other: Tensor, whole: WholeBatch | None) -> WholeBatch:
    """The batch that the rows are part of; None: they are all of it. Raises ValueError for fewer
    than two pairs: there is no negative.
    """
    whole = whole or WholeBatch(image, other, 0)
    if len(whole.image) < 2:
        raise ValueError("a ranking loss needs at least two pairs")
    return whole


def pair_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    *,
    margin: float,
    image_margin_scale: float | None,
    other_margin_scale: float | None = None,
    margin_temperature: float = 1.0,
    reduction: Reduction = "mean",
    whole: WholeBatch | None = None,
) -> Float[Tensor, ""]:
    """Both directions between images v and one other modality x: L(v, x) + L(x, v).

    Rows are unit vectors and row i of both is a pair. With s the dot product, m = ``margin`` and
    m' = ``image_margin_scale`` (paper.md, Losses):

        L(v, x) = sum over j != i of max(0, s(v_i, x_j) - s(v_i, x_i) + m' * sigmoid(-s(v_i, v_j)))
        L(x, v) = sum over j != i of max(0, s(x_i, v_j) - s(x_i, v_i) + m)

    each averaged over all (i, j != i) with ``mean``, the authors' code, or over i alone with
    ``sum``, the paper's formula. With None for m', L(v, x) has the margin m too; with a number for
    ``other_margin_scale`` L(x, v) has a variable one of that scale. ``margin_temperature`` is
    :func:`variable_margin`'s. No gradient flows through the margin. Raises ValueError for fewer
    than two pairs: there is no negative.

    With ``whole`` the rows are the anchors i, all of the batch the negatives j, and the value is
    the rows' share: over all rows of the batch the shares add up to its loss. Memory grows with the
    batch, never with its square.
    """
    whole = whole_batch(image, other, whole)
    batch = len(whole.image)

    def margin_of(alike: Tensor, scale: float | None) -> Callable[[Tensor], Tensor | float]:
        if scale is None:
            return lambda _anchors: margin
        return lambda anchors: variable_margin(anchors @ alike.T, scale, margin_temperature)

    image_margin = margin_of(whole.image, image_margin_scale)
    forth = _hinges(image, whole.other, whole.first, image_margin)
    other_margin = margin_of(whole.other, other_margin_scale)
    back = _hinges(other, whole.image, whole.first, other_margin)
    return (forth + back) / (batch * (batch - 1) if reduction == "mean" else batch)


def variable_margin(
    anchor_similarity: Float[Tensor, "anchors batch"], scale: float, temperature: float = 1.0
) -> Float[Tensor, "anchors batch"]:
    """The margin of each anchor i and negative j: scale * sigmoid(-s(x_i, x_j) / temperature), no
    gradient.

    Similar anchors get a small margin, dissimilar ones a large one (paper.md, Losses, "variable").
    At the paper's temperature, 1, it lies between 0.27 and 0.73 of the scale; a lower one spreads
    it to 0 and 1.
    """
    return torch.sigmoid(anchor_similarity.detach() / -temperature).mul_(scale)


def _hinges(
    anchors: Float[Tensor, "rows dim"],
    others: Float[Tensor, "batch dim"],
    first: int,
    margin: Callable[[Tensor], Tensor | float],
) -> Float[Tensor, ""]:
    """The sum of all hinges max(0, s(x_i, y_j) - s(x_i, y_i) + margin) of anchors x; anchor 0's
    partner is ``others[first]``.
    """
    with torch.no_grad():
        total = anchors.new_zeros(())
        by_anchors, by_others = torch.empty_like(anchors), torch.zeros_like(others)
        for start in range(0, len(anchors), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            similarity = anchors[rows] @ others.T
            own = similarity.diagonal(first + start).clone()
            hinges = similarity.sub_(own[:, None]).add_(margin(anchors[rows])).relu_()
            hinges.diagonal(first + start).zero_()
            total += hinges.sum()
            slope = hinges.sign_()  # of the sum, by each similarity
            slope.diagonal(first + start).sub_(slope.sum(dim=1))
            torch.mm(slope, others, out=by_anchors[rows])
            by_others.addmm_(slope.T, anchors[rows])
    # While the same hinges are active, their sum is linear in anchors and in others.
    linear = (anchors * by_anchors).sum() + (others * by_others).sum()
    return total + (linear - linear.detach())
