"""Ranking losses with one mined negative for each anchor: the hardest or a semi-hard one.

Sources: the hardest as in Faghri et al. 2018, "VSE++: Improving Visual-Semantic Embeddings with
Hard Negatives", arXiv:1707.05612, equation 6; semi-hard as in Schroff et al. 2015, "FaceNet: A
Unified Embedding for Face Recognition and Clustering", arXiv:1503.03832, section 3.2.
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
    """L(v, x) + L(x, v) between images v and one other modality x, with s the dot product:

        L(x, y) = mean over i of max(0, s(x_i, y_j) - s(x_i, y_i) + margin of i and j)

    j is the one negative of anchor i with the largest hinge: of all j != i if ``mining`` is
    ``hardest``, of those with s(x_i, y_j) < s(x_i, y_i) if ``semi_hard``; an anchor without any
    adds 0. Rows are unit vectors and row i of both is a pair. Margins, ``full_batch`` and errors as
    of :func:`~trimodal.losses.ranking.pair_loss`. Memory grows with rows x batch.

    >>> image, other = torch.eye(2), torch.eye(2).flip(0)  # each anchor's negative is nearer
    >>> round(mined_loss(image, other, mining="hardest", margin=0.2).item(), 4)
    2.4
    >>> mined_loss(image, other, mining="semi_hard", margin=0.2).item()
    0.0
    """
    full_batch = full_batch_of(image, other, full_batch)

    def hinge_sum(
        anchors: Tensor, others: Tensor, anchor_modality: Tensor, variable_margin: float | None
    ) -> Tensor:
        margins: Tensor | float = margin
        if variable_margin is not None:
            margins = variable_margins_of(
                anchors @ anchor_modality.T, variable_margin, margin_temperature
            )
        similarity = anchors @ others.T
        positive = similarity.diagonal(full_batch.first)[:, None]
        hinges = similarity - positive + margins
        if mining == "semi_hard":
            is_candidate = similarity < positive
        else:
            is_candidate = torch.ones_like(hinges).bool()
        is_candidate.diagonal(full_batch.first).fill_(False)
        largest = torch.where(is_candidate, hinges, -torch.inf).amax(dim=1)
        return torch.relu(largest).sum()

    image_loss = hinge_sum(image, full_batch.other, full_batch.image, image_variable_margin)
    other_loss = hinge_sum(other, full_batch.image, full_batch.other, other_variable_margin)
    return (image_loss + other_loss) / len(full_batch.image)
