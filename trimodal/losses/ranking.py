"""The ranking losses (docs/method.md, Losses): embeddings in, scalars out."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]
_ROWS_AT_ONCE = 256  # anchors whose hinges are in memory together; few enough for a cache


class FullBatch(NamedTuple):
    """The batch that rows are part of: they are its rows ``first``, ``first + 1``, ..."""

    image: Float[Tensor, "batch dim"]
    other: Float[Tensor, "batch dim"]
    first: int


def full_batch_of(image: Tensor, other: Tensor, full_batch: FullBatch | None) -> FullBatch:
    """The batch that the rows are part of; None: they are all of it. Raises ValueError for fewer
    than two pairs: there is no negative.
    """
    full_batch = full_batch or FullBatch(image, other, 0)
    if len(full_batch.image) < 2:
        raise ValueError("a ranking loss needs at least two pairs")
    return full_batch


def pair_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    *,
    margin: float,
    image_variable_margin: float | None,
    other_variable_margin: float | None = None,
    margin_temperature: float = 1.0,
    reduction: Reduction = "mean",
    full_batch: FullBatch | None = None,
) -> Float[Tensor, ""]:
    """Both directions between images v and one other modality x: L(v, x) + L(x, v).

    Rows are unit vectors and row i of both is a pair. With s the dot product, m = ``margin`` and m'
    = ``image_variable_margin`` (docs/method.md, Losses):

        L(v, x) = sum over j != i of max(0, s(v_i, x_j) - s(v_i, x_i) + m' * sigmoid(-s(v_i, v_j)))
        L(x, v) = sum over j != i of max(0, s(x_i, v_j) - s(x_i, v_i) + m)

    each averaged over all (i, j != i) with ``mean``, the authors' code, or over i alone with
    ``sum``, the paper's formula. With None for m', L(v, x) has the margin m too; with a number for
    ``other_variable_margin`` L(x, v) has a variable one, too. ``margin_temperature`` is
    :func:`variable_margins_of`'s. No gradient flows through the margin. Raises ValueError for fewer
    than two pairs: there is no negative.

    With ``full_batch`` the rows are the anchors i, all of the batch the negatives j, and the value
    is the rows' share: over all rows of the batch the shares add up to its loss. Memory grows with
    the batch, never with its square.
    """
    full_batch = full_batch_of(image, other, full_batch)
    batch = len(full_batch.image)

    def margin_of(
        alike: Tensor, variable_margin: float | None
    ) -> Callable[[Tensor], Tensor | float]:
        if variable_margin is None:
            return lambda _anchors: margin
        return lambda anchors: variable_margins_of(
            anchors @ alike.T, variable_margin, margin_temperature
        )

    image_margin = margin_of(full_batch.image, image_variable_margin)
    forth = _hinge_sum(image, full_batch.other, full_batch.first, image_margin)
    other_margin = margin_of(full_batch.other, other_variable_margin)
    back = _hinge_sum(other, full_batch.image, full_batch.first, other_margin)
    return (forth + back) / (batch * (batch - 1) if reduction == "mean" else batch)


def variable_margins_of(
    anchor_similarity: Float[Tensor, "anchors batch"],
    variable_margin: float,
    temperature: float = 1.0,
) -> Float[Tensor, "anchors batch"]:
    """The margin of each anchor i and negative j, m' * sigmoid(-s(x_i, x_j) / temperature), with
    m' = ``variable_margin``; without gradient.

    Similar anchors get a small margin, dissimilar ones a large one (docs/method.md, Losses).
    At the paper's temperature, 1, it lies between 0.27 and 0.73 of m'; a lower one spreads it to 0
    and 1.
    """
    return torch.sigmoid(anchor_similarity.detach() / -temperature).mul_(variable_margin)


class _HingeSum(torch.autograd.Function):
    """The sum of all hinges max(0, s(x_i, y_j) - s(x_i, y_i) + margin) of anchors x and others y;
    anchor 0's partner is ``others[first]``.

    Written by hand because autograd would keep several matrices of rows x batch: here anchors are
    taken in blocks, and the gradient is computed with the value. While the same hinges are active,
    their sum is linear in anchors and in others, so its gradient is a matrix product with the 0/1
    mask of active hinges.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        others: Tensor,
        first: int,
        margin: Callable[[Tensor], Tensor | float],
    ) -> Tensor:
        total = anchors.new_zeros(())
        anchor_gradient, other_gradient = torch.empty_like(anchors), torch.zeros_like(others)
        for start in range(0, len(anchors), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            similarity = anchors[rows] @ others.T
            own = similarity.diagonal(first + start).clone()
            hinges = similarity.sub_(own[:, None]).add_(margin(anchors[rows])).relu_()
            hinges.diagonal(first + start).zero_()
            total += hinges.sum()
            active = hinges.sign_()  # the derivative of each hinge by its similarity
            active.diagonal(first + start).sub_(active.sum(dim=1))
            torch.mm(active, others, out=anchor_gradient[rows])
            other_gradient.addmm_(active.T, anchors[rows])
        ctx.save_for_backward(anchor_gradient, other_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph: what follows carries no graph
            raise RuntimeError("the ranking loss has no second derivative")
        anchor_gradient, other_gradient = ctx.saved_tensors
        return gradient * anchor_gradient, gradient * other_gradient, None, None


def _hinge_sum(
    anchors: Float[Tensor, "rows dim"],
    others: Float[Tensor, "batch dim"],
    first: int,
    margin: Callable[[Tensor], Tensor | float],
) -> Float[Tensor, ""]:
    total: Tensor = _HingeSum.apply(anchors, others, first, margin)
    return total
