"""Retrieval metrics (docs/method.md, Evaluation), with ranks that ties and NaN cannot improve."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.sparse import csr_array

from trimodal.core.errors import UserError

RECALL_AT = (1, 5, 10)
NDCG_AT = 10
_BLOCK_ROWS = 1024  # queries whose scores are in memory together
_PAIRS = 256  # of a query and a true item, whose scores are in memory together

Truth: TypeAlias = csr_array  # of bool, (queries, items)


class EmbeddingError(UserError, ValueError):
    """Embeddings or scores from which ranks cannot be computed."""


def similarity(
    queries: Float[np.ndarray, "queries dim"], gallery: Float[np.ndarray, "items dim"]
) -> Float[np.ndarray, "queries items"]:
    """Dot products in float32; rows are not normalised."""
    return queries.astype(np.float32) @ gallery.astype(np.float32).T


def row_blocks(queries: int) -> Iterator[slice]:
    """Blocks of queries whose scores are in memory together: the full score matrix would grow with
    the square of the test set.
    """
    for start in range(0, queries, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, queries))


def mix(
    first: Float[np.ndarray, "queries items"],
    second: Float[np.ndarray, "queries items"],
    weight: float,
    has_second: npt.NDArray[np.bool_] | None = None,
) -> Float[np.ndarray, "queries items"]:
    """(1 - weight) * first + weight * second; for an item (column) without a second score,
    the first alone. Raises ValueError for a weight outside [0, 1].
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"a weight must be between 0 and 1, not {weight}")
    mixed = np.float32(1.0 - weight) * first + np.float32(weight) * second
    if has_second is None:
        return mixed
    scores: npt.NDArray[np.float32] = np.where(has_second[None, :], mixed, first)
    return scores


def ranks(
    scores: Float[np.ndarray, "queries items"], true_items: npt.NDArray[np.int64] | None = None
) -> Float[np.ndarray, " queries"]:
    """The rank of each query's true item, counted from 1; float32 scores, higher is better.

    rank = 1 + (items with a greater score) + (other items with the same score) / 2.
    ``true_items``, (queries,), has the true column of each row; None means the diagonal. Raises
    EmbeddingError for a score that is not finite and for an empty gallery.
    """
    best, worst = rank_bounds(scores, true_items)
    rank_of_query: npt.NDArray[np.float64] = (best + worst) / 2.0
    return rank_of_query


def rank_bounds(
    scores: Float[np.ndarray, "queries items"], true_items: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The ranks of each query's true item if it wins all ties and if it loses all, (queries,) each.
    Arguments and errors as of :func:`ranks`.
    """
    scores = _rankable(scores)
    if true_items is None:
        true_items = np.arange(len(scores))
    true_scores = scores[np.arange(len(scores)), true_items][:, None]
    best: npt.NDArray[np.int64] = 1 + (scores > true_scores).sum(axis=1)
    worst: npt.NDArray[np.int64] = best + (scores == true_scores).sum(axis=1) - 1
    return best, worst


def best_true_ranks(
    scores: Float[np.ndarray, "queries items"], is_true: npt.NDArray[np.bool_]
) -> Float[np.ndarray, " queries"]:
    """The rank of the best of each query's true items; ``is_true`` is (queries, items).

    rank = 1 + (items with a greater score) + (items that are not true with the same score) / 2;
    with one true item for each query this is :func:`ranks`. Raises EmbeddingError as that does, and
    for a query without a true item.
    """
    scores = _rankable(scores)
    if (itemless := ~is_true.any(axis=1)).any():
        raise EmbeddingError(f"{int(itemless.sum())} of {len(scores)} queries have no item")
    best = np.where(is_true, scores, -np.inf).max(axis=1)[:, None]
    greater = (scores > best).sum(axis=1)
    ties = ((scores == best) & ~is_true).sum(axis=1)
    rank_of_query: npt.NDArray[np.float64] = 1.0 + greater + ties / 2.0
    return rank_of_query


def ndcg(
    scores: Float[np.ndarray, "queries items"], is_true: npt.NDArray[np.bool_], k: int = NDCG_AT
) -> Float[np.ndarray, " queries"]:
    """nDCG@k of each query (Järvelin and Kekäläinen 2002) with gain 1 for true items and discount
    1 / log2(1 + position); tied items share the mean discount of their positions (McSherry and
    Najork 2008), as in scikit-learn's ``ndcg_score``. Every query has a true item.
    """
    scores = _rankable(scores)
    k = min(k, scores.shape[1])
    gain_of_first = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    kth = np.partition(scores, -k, axis=1)[:, -k]
    queries, items = np.nonzero(is_true & (scores >= kth[:, None]))
    gains = np.zeros(len(scores))
    for start in range(0, len(queries), _PAIRS):
        rows, columns = queries[start : start + _PAIRS], items[start : start + _PAIRS]
        own = scores[rows, columns][:, None]
        before = (scores[rows] > own).sum(axis=1)
        tied = (scores[rows] == own).sum(axis=1)
        last = np.minimum(before + tied, k)
        np.add.at(gains, rows, (gain_of_first[last] - gain_of_first[before]) / tied)
    values: npt.NDArray[np.float64] = gains / gain_of_first[np.minimum(is_true.sum(axis=1), k)]
    return values


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What is known of each query, (queries,) each: the rank of the best of its true items, and its
    nDCG@10.
    """

    ranks: npt.NDArray[np.float64]
    ndcg: npt.NDArray[np.float64]


def rank_queries(scores_of: Callable[[slice], npt.NDArray[np.float32]], truth: Truth) -> Ranking:
    """Ranks in blocks of queries. ``scores_of`` gives the scores of some queries, (queries, items);
    ``truth``, (queries, items), is true where an item is right. Errors as of
    :func:`best_true_ranks`.
    """
    if not truth.shape[0]:
        raise EmbeddingError("nothing to rank: no queries or an empty gallery")
    ranks_of_blocks, ndcg_of_blocks = [], []
    for rows in row_blocks(truth.shape[0]):
        scores, is_true = scores_of(rows), truth[rows].toarray()
        ranks_of_blocks.append(best_true_ranks(scores, is_true))
        ndcg_of_blocks.append(ndcg(scores, is_true))
    return Ranking(ranks=np.concatenate(ranks_of_blocks), ndcg=np.concatenate(ndcg_of_blocks))


def truth_of(
    owner: npt.NDArray[np.int64], sentences: Sequence[str], *, any_duplicate: bool = False
) -> Truth:
    """Which items are right for each sentence, (sentences, items): its own, ``owner``, (sentences,)
    of 0 to items - 1; with ``any_duplicate`` also those of every equal sentence.
    """
    count = len(owner)
    shape = (count, int(owner.max(initial=-1)) + 1)
    own = csr_array((np.ones(count, bool), (np.arange(count), owner)), shape=shape)
    if not any_duplicate:
        return own
    group = np.unique([sentence.strip() for sentence in sentences], return_inverse=True)[1]
    groups = csr_array((np.ones(count, np.int32), (np.arange(count), group)))
    any_equal: Truth = ((groups @ (groups.T @ own.astype(np.int32))) > 0).tocsr()
    return any_equal


def best_of_owners(
    scores: Float[np.ndarray, "queries items"], owner: npt.NDArray[np.int64], owners: int
) -> Float[np.ndarray, "queries owners"]:
    """The greatest score among the items of each owner; ``owner``, (items,), is in 0 to ``owners``
    - 1. Raises EmbeddingError for an owner without an item.
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
    scores: Float[np.ndarray, "queries items"], true_items: npt.NDArray[np.int64] | None = None
) -> int:
    """The number of queries with another item of exactly the same score as the true one."""
    scores = scores.astype(np.float32, copy=False)
    columns = np.arange(len(scores)) if true_items is None else true_items
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
