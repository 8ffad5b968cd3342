"""Ranking losses with one negative an anchor: the hardest (VSE++) or a semi-hard one (FaceNet).

As in :mod:`trimodal.losses.ranking`: embeddings in, scalars out, both directions added. They hold
matrices of rows x batch.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from trimodal.losses.ranking import FullBatch, full_batch_of, variable_margins_of

Mining = Literal["hardest", "semi_hard"]


def mined_loss(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    *,
    mining: Mining,
    margin: float,
    image_variable_margin: float | None = None,
    other_variable_margin: float | None = None,
    margin_temperature: float = 1.0,
    full_batch: FullBatch | None = None,
) -> Float[Tensor, ""]:
    """One negative an anchor: the mean over anchors i of max(0, s(x_i, y_j) - s(x_i, y_i) + m).

    j is the ``hardest`` negative, the one of the largest hinge (VSE++, Faghri et al. 2018, eq. 6),
    or the ``semi_hard`` one, the nearest of those that are farther than the partner (FaceNet,
    Schroff et al. 2015, 3.2); an anchor without any adds 0. Margins are those of
    :func:`~trimodal.losses.ranking.pair_loss`. Raises ValueError for fewer than two pairs.
    """
    full_batch = full_batch_of(image, other, full_batch)

    def one_way(
        anchors: Tensor, others: Tensor, alike: Tensor, own_variable_margin: float | None
    ) -> Tensor:
        margins: Tensor | float = margin
        if own_variable_margin is not None:
            margins = variable_margins_of(
                anchors @ alike.T, own_variable_margin, margin_temperature
            )
        similarity = anchors @ others.T
        own = similarity.diagonal(full_batch.first)[:, None]
        hinges = similarity - own + margins
        allowed = similarity < own if mining == "semi_hard" else torch.ones_like(hinges).bool()
        allowed.diagonal(full_batch.first).fill_(False)
        largest = torch.where(allowed, hinges, -torch.inf).amax(dim=1)
        return torch.relu(largest).sum()

    forth = one_way(image, full_batch.other, full_batch.image, image_variable_margin)
    back = one_way(other, full_batch.image, full_batch.other, other_variable_margin)
    return (forth + back) / len(full_batch.image)
