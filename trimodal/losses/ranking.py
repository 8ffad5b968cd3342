"""The paper's ranking loss, with a fixed or a variable margin (docs/method.md, Losses)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["mean", "sum"]
_BLOCK_ROWS = 256  # anchors whose hinges are in memory together; a block fits into the cache


class FullBatch(NamedTuple):
    """The embeddings of all processes' batch, of which this process has the rows ``first``,
    ``first + 1``, ...
    """

    image: Float[Tensor, "batch dim"]
    other: Float[Tensor, "batch dim"]
    first: int


def full_batch_of(image: Tensor, other: Tensor, full_batch: FullBatch | None) -> FullBatch:
    """``full_batch``, or the rows themselves if it is None. Raises ValueError for fewer than two
    pairs: there is no negative.
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
    """L(v, x) + L(x, v) between images v and one other modality x (docs/method.md, Losses).

    Rows are unit vectors and row i of both is a pair. With s the dot product, m = ``margin`` and m'
    = ``image_variable_margin``:

        L(v, x) = sum over j != i of max(0, s(v_i, x_j) - s(v_i, x_i) + m' * sigmoid(-s(v_i, v_j)))
        L(x, v) = sum over j != i of max(0, s(x_i, v_j) - s(x_i, v_i) + m)

    averaged over all (i, j != i) with ``reduction`` ``mean`` (the authors' code), or over i with
    ``sum`` (the paper's formula). If ``image_variable_margin`` is None, L(v, x) has the margin m
    too; if ``other_variable_margin`` is a number, L(x, v) has a variable margin too.
    ``margin_temperature`` is that of :func:`variable_margins_of`. No gradient flows through the
    margin. Raises ValueError for fewer than two pairs: there is no negative.

    With ``full_batch`` the rows are the anchors i and the negatives j come from the full batch. The
    value is then the rows' share of the loss: the shares of all rows add up to the full batch's
    loss. Memory grows with the batch, not with its square.

    >>> image, other = torch.eye(2), torch.eye(2).flip(0)  # each anchor's negative is nearer
    >>> round(pair_loss(image, other, margin=0.2, image_variable_margin=None).item(), 4)
    2.4
    >>> round(pair_loss(image, other, margin=0.2, image_variable_margin=1.0).item(), 4)
    2.7
    """
    full_batch = full_batch_of(image, other, full_batch)
    batch = len(full_batch.image)

    def margin_of(
        anchor_modality: Tensor, variable_margin: float | None
    ) -> Callable[[Tensor], Tensor | float]:
        if variable_margin is None:
            return lambda _anchors: margin
        return lambda anchors: variable_margins_of(
            anchors @ anchor_modality.T, variable_margin, margin_temperature
        )

    image_margin = margin_of(full_batch.image, image_variable_margin)
    image_loss = _hinge_sum(image, full_batch.other, full_batch.first, image_margin)
    other_margin = margin_of(full_batch.other, other_variable_margin)
    other_loss = _hinge_sum(other, full_batch.image, full_batch.first, other_margin)
    return (image_loss + other_loss) / (batch * (batch - 1) if reduction == "mean" else batch)


def variable_margins_of(
    anchor_similarity: Float[Tensor, "anchors batch"],
    variable_margin: float,
    temperature: float = 1.0,
) -> Float[Tensor, "anchors batch"]:
    """The margin of each anchor i and negative j, m' * sigmoid(-s(x_i, x_j) / temperature), where
    m' = ``variable_margin``; detached.

    Similar anchors get a small margin, dissimilar ones a large one (docs/method.md, Losses).
    At the paper's temperature, 1, it lies between 0.27 m' and 0.73 m'; a lower temperature widens
    that range towards 0 and m'.
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
        for start in range(0, len(anchors), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            similarity = anchors[rows] @ others.T
            positive = similarity.diagonal(first + start).clone()
            hinges = similarity.sub_(positive[:, None]).add_(margin(anchors[rows])).relu_()
            hinges.diagonal(first + start).zero_()
            total += hinges.sum()
            active = hinges.sign_()  # the derivative of each hinge with respect to its similarity
            active.diagonal(first + start).sub_(active.sum(dim=1))
            torch.mm(active, others, out=anchor_gradient[rows])
            other_gradient.addmm_(active.T, anchors[rows])
        ctx.save_for_backward(anchor_gradient, other_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():  # create_graph=True, but the saved gradients have no graph
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
