"""Retrieval metrics (docs/method.md, Evaluation): ranks that ties and NaN cannot flatter."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trimodal.core.errors import UserError

RECALL_AT = (1, 5, 10)
_BLOCK_ROWS = 1024  # queries whose scores are in memory together


class EmbeddingError(UserError, ValueError):
    """Embeddings or similarities from which no rank can be computed."""


def similarity(
    queries: Float[np.ndarray, "queries dim"], gallery: Float[np.ndarray, "items dim"]
) -> Float[np.ndarray, "queries items"]:
    """Dot products in float32. Mean embeddings are used as they are, not normalised again."""
    return queries.astype(np.float32) @ gallery.astype(np.float32).T


def row_blocks(queries: int) -> Iterator[slice]:
    """Blocks of queries whose scores are to be in memory together: a whole matrix of scores grows
    with the square of a test set.
    """
    for first in range(0, queries, _BLOCK_ROWS):
        yield slice(first, min(first + _BLOCK_ROWS, queries))


def mix(
    first: Float[np.ndarray, "queries items"],
    second: Float[np.ndarray, "queries items"],
    weight: float,
    has_second: npt.NDArray[np.bool_] | None = None,
) -> Float[np.ndarray, "queries items"]:
    """(1 - weight) * first + weight * second; an item (column) without a second is searched by
    its first alone. Raises ValueError for a weight outside [0, 1].
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"a weight lies between 0 and 1, not at {weight}")
    mixed = np.float32(1.0 - weight) * first + np.float32(weight) * second
    if has_second is None:
        return mixed
    chosen: npt.NDArray[np.float32] = np.where(has_second[None, :], mixed, first)
    return chosen


def ranks(
    scores: Float[np.ndarray, "queries items"], truth: npt.NDArray[np.int64] | None = None
) -> Float[np.ndarray, " queries"]:
    """The rank of each query's true item, counted from 1; float32 scores, higher is better.

    rank = 1 + (items with a greater score) + (other items with the same score) / 2.
    ``truth`` names the true column of each row; None means the diagonal. Raises EmbeddingError for
    a score that is not finite and for an empty gallery.
    """
    best, worst = rank_bounds(scores, truth)
    rank_of_query: npt.NDArray[np.float64] = (best + worst) / 2.0
    return rank_of_query


def rank_bounds(
    scores: Float[np.ndarray, "queries items"], truth: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The best and the worst rank of each query's true item, (queries,) both, if ties go its way
    or never do; arguments and errors as of :func:`ranks`.
    """
    scores = _rankable(scores)
    if truth is None:
        truth = np.arange(len(scores))
    true_scores = scores[np.arange(len(scores)), truth][:, None]
    best: npt.NDArray[np.int64] = 1 + (scores > true_scores).sum(axis=1)
    worst: npt.NDArray[np.int64] = best + (scores == true_scores).sum(axis=1) - 1
    return best, worst


def best_ranks(
    scores: Float[np.ndarray, "queries items"], owner: npt.NDArray[np.int64], first: int = 0
) -> Float[np.ndarray, " queries"]:
    """The rank of the best of each query's true items; row i's are those with ``owner`` first + i.

    rank = 1 + (items with a greater score) + (other queries' items with the same score) / 2, the
    usual figure where a video has several sentences; with one item each it is that of
    :func:`ranks`. Raises EmbeddingError as that does, and for a query that owns no item.
    """
    scores = _rankable(scores)
    foreign = owner[None, :] != np.arange(first, first + len(scores))[:, None]
    if (ownerless := foreign.all(axis=1)).any():
        raise EmbeddingError(f"{int(ownerless.sum())} of {len(scores)} owners have no item")
    best = np.where(foreign, -np.inf, scores).max(axis=1)[:, None]
    greater = (scores > best).sum(axis=1)
    ties = ((scores == best) & foreign).sum(axis=1)
    rank_of_query: npt.NDArray[np.float64] = 1.0 + greater + ties / 2.0
    return rank_of_query


def best_of_owners(
    scores: Float[np.ndarray, "queries items"], owner: npt.NDArray[np.int64], owners: int
) -> Float[np.ndarray, "queries owners"]:
    """The greatest score among the items of each owner, 0 to ``owners`` - 1.

    Raises EmbeddingError for an owner without an item.
    """
    counts = np.bincount(owner, minlength=owners)
    if not counts.all():
        raise EmbeddingError(f"{int((counts == 0).sum())} of {owners} owners have no item")
    by_owner = scores[:, np.argsort(owner, kind="stable")]
    best: npt.NDArray[np.float32] = np.maximum.reduceat(
        by_owner, np.cumsum(counts) - counts, axis=1
    )
    return best


def tied_queries(
    scores: Float[np.ndarray, "queries items"], truth: npt.NDArray[np.int64] | None = None
) -> int:
    """How many queries have another item with exactly the score of the true one."""
    scores = scores.astype(np.float32, copy=False)
    columns = np.arange(len(scores)) if truth is None else truth
    true_scores = scores[np.arange(len(scores)), columns][:, None]
    return int(((scores == true_scores).sum(axis=1) > 1).sum())


def _rankable(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    scores = scores.astype(np.float32, copy=False)
    if not scores.size:
        raise EmbeddingError("nothing to rank: no queries or an empty gallery")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        raise EmbeddingError(f"scores of {bad} queries are not finite")
    return scores


def summarise(
    rank_of_query: Float[np.ndarray, " queries"], recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """R@K in percent, median and mean rank: {'R@1': ..., 'MedR': ..., 'MeanR': ...}.

    Raises EmbeddingError for no queries.
    """
    if not len(rank_of_query):
        raise EmbeddingError("no queries to summarise")
    summary = {f"R@{k}": 100.0 * float((rank_of_query <= k).mean()) for k in recall_at}
    return summary | {
        "MedR": float(np.median(rank_of_query)),
        "MeanR": float(rank_of_query.mean()),
    }
