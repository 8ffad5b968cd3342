"""Recall on the validation set, beside its loss: what a model is used for."""

import torch
from jaxtyping import Float
from torch import Tensor

RECALL_AT = (1, 10)
Scores = dict[str, dict[str, float]]  # by split, then by name
_BLOCK_ROWS = 1024  # queries whose similarities are in memory together


def recall(
    images: Float[Tensor, "pairs dim"], others: Float[Tensor, "pairs dim"]
) -> dict[str, float]:
    """``R@1`` and ``R@10`` in percent: of ``others``, sounds or captions, as queries, those whose
    own image is among the first 1 and 10 of all ``images`` by dot product. Exact; a tie counts
    half, as in trimodal.evaluation.retrieval, and a similarity that is not a number is a miss.
    """
    ranks = torch.cat(
        [
            _ranks(others[first : first + _BLOCK_ROWS] @ images.T, first)
            for first in range(0, len(others), _BLOCK_ROWS)
        ]
    )
    return {f"R@{k}": 100.0 * (ranks <= k).double().mean().item() for k in RECALL_AT}


def _ranks(scores: Tensor, first: int) -> Tensor:
    """The rank of item ``first`` + i in row i, from 1."""
    rows = torch.arange(len(scores), device=scores.device)
    own = scores[rows, first + rows][:, None]
    ahead = (~(scores <= own)).sum(1)
    tied = (scores == own).sum(1) - 1
    return torch.where(own[:, 0].isfinite(), 1 + ahead + tied / 2, torch.inf)


def with_totals(losses: dict[str, float], recalls: dict[str, float]) -> dict[str, float]:
    """A validation's scores: the losses of the streams and their sum, ``loss``; the recalls and
    their mean, ``recall``.
    """
    mean = sum(recalls.values()) / len(recalls)
    return losses | {"loss": sum(losses.values())} | recalls | {"recall": mean}
