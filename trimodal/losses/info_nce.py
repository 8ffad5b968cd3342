"""InfoNCE with a learned temperature, as in CLIP.

As in :mod:`trimodal.losses.ranking`: embeddings in, a scalar out, both directions added. It holds
matrices of rows x batch.
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
    """The mean over anchors of -log softmax_j(logit_scale * s(x_i, y_j)) at j = i (van den Oord et
    al. 2018, eq. 4; both directions as in CLIP). Raises ValueError for fewer than two pairs.
    """
    full_batch = full_batch_of(image, other, full_batch)
    partner = torch.arange(full_batch.first, full_batch.first + len(image), device=image.device)
    forth = F.cross_entropy(logit_scale * (image @ full_batch.other.T), partner, reduction="sum")
    back = F.cross_entropy(logit_scale * (other @ full_batch.image.T), partner, reduction="sum")
    return (forth + back) / len(full_batch.image)


class LogitScale(nn.Module):
    """What InfoNCE multiplies similarities with: 1 / temperature, learned by its logarithm, at most
    100 (CLIP).
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Float[Tensor, ""]:
        """The scale."""
        return self.log_scale.clamp(max=math.log(MAX_LOGIT_SCALE)).exp()
