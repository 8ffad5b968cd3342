"""Hubness: some items are near to very many queries, others to none (Radovanovic et al. 2010)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.retrieval import EmbeddingError

NEIGHBOURS = 10


def occurrences(
    score_blocks: Iterable[npt.NDArray[np.floating[Any]]], k: int = NEIGHBOURS
) -> npt.NDArray[np.float64]:
    """N_k of each item, (items,): the number of queries that have it among their first ``k``.
    ``score_blocks`` are the scores of all queries, (queries, items) each. Items that share the last
    places with others of the same score count for their part of these places, so that the order of
    items does not matter; the sum is k times the number of queries.

    Raises EmbeddingError for no queries, scores that are not finite, or not more than ``k`` items.
    """
    total: npt.NDArray[np.float64] | None = None
    for scores in score_blocks:
        if not np.isfinite(scores).all():
            raise EmbeddingError("hubness: scores that are not finite")
        if scores.shape[1] <= k:
            raise EmbeddingError(f"hubness: {scores.shape[1]} items; more than {k} are needed")
        last = -np.partition(-scores, k - 1, axis=1)[:, k - 1, None]
        inside, tied = scores > last, scores == last
        part = (k - inside.sum(axis=1)) / tied.sum(axis=1)
        counts = inside.sum(axis=0) + (tied * part[:, None]).sum(axis=0)
        total = counts if total is None else total + counts
    if total is None:
        raise EmbeddingError("hubness: no queries")
    return total


def hubness(
    score_blocks: Iterable[npt.NDArray[np.floating[Any]]], k: int = NEIGHBOURS
) -> dict[str, float]:
    """``N_<k>_skewness``, the third standardised moment of N_k over the items (0 if all are equal),
    and ``never_retrieved``, the per cent of items that are among no query's first ``k``. Errors as
    of :func:`occurrences`.
    """
    counts = occurrences(score_blocks, k)
    deviations = counts - counts.mean()
    variance = float((deviations**2).mean())
    third = float((deviations**3).mean())
    return {
        f"N_{k}_skewness": third / variance**1.5 if variance > 0 else 0.0,
        "never_retrieved": 100.0 * float((counts == 0).mean()),
    }
