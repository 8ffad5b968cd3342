"""InfoNCE with a learned temperature, as in CLIP.

Sources: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding",
arXiv:1807.03748, equation 4; in both directions and with a learned temperature as in Radford et al.
2021, "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trimodal.losses.ranking import FullBatch, full_batch_of

MAX_LOGIT_SCALE = 100.0  # CLIP clips its logit scale there (Radford et al. 2021, 2.5)


def info_nce(
    image: Float[Tensor, "rows dim"],
    other: Float[Tensor, "rows dim"],
    logit_scale: Float[Tensor, ""] | float,
    *,
    full_batch: FullBatch | None = None,
) -> Float[Tensor, ""]:
    """L(v, x) + L(x, v) between images v and one other modality x, with s the dot product:

        L(x, y) = mean over i of -log(exp(c * s(x_i, y_i)) / sum over j of exp(c * s(x_i, y_j)))

    where c = ``logit_scale`` = 1 / temperature. Rows are unit vectors and row i of both is a pair.
    ``full_batch`` and errors as of :func:`~trimodal.losses.ranking.pair_loss`. Memory grows with
    rows x batch.

    >>> image = torch.eye(2)
    >>> round(info_nce(image, image, logit_scale=1.0).item(), 4)  # 2 * log(1 + exp(-1))
    0.6265
    """
    full_batch = full_batch_of(image, other, full_batch)
    partner = torch.arange(full_batch.first, full_batch.first + len(image), device=image.device)
    image_logits = logit_scale * (image @ full_batch.other.T)
    image_loss = F.cross_entropy(image_logits, partner, reduction="sum")
    other_logits = logit_scale * (other @ full_batch.image.T)
    other_loss = F.cross_entropy(other_logits, partner, reduction="sum")
    return (image_loss + other_loss) / len(full_batch.image)


class LogitScale(nn.Module):
    """InfoNCE's factor on similarities, 1 / temperature. Its logarithm is learned; it is at most
    100 (CLIP).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Float[Tensor, ""]:
        """The factor, at most MAX_LOGIT_SCALE."""
        return self.log_scale.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
