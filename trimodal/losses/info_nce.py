"""InfoNCE with a learned temperature, as in CLIP.

As in :mod:`trimodal.losses.ranking`: embeddings in, a scalar out, both directions added. It holds
matrices of rows x batch.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trimodal.losses.ranking import WholeBatch, whole_batch

LARGEST_SCALE = 100.0  # of InfoNCE's similarities, as CLIP cuts it (Radford et al. 2021, 2.5)


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
    whole = whole_batch(image, other, whole)
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
