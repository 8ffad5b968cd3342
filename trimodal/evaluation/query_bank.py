"""Scores corrected for hubs, by a bank of other queries or by the test queries themselves.

- QB-Norm (Bogolin et al., CVPR 2022): the dynamic inverted softmax with a bank of training
  captions. A query's scores do not depend on the other test queries.
- Dual softmax (Cheng et al. 2021, CAMoE): uses all test queries at once, which a search engine does
  not have; results with it are no retrieval results in the usual sense and must say so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp

from trimodal.evaluation.retrieval import EmbeddingError

BETA = 20.0  # the inverse temperature of the authors' code
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class QueryBank:
    """What a bank of queries says about each item, (items,) each: the logarithm of the sum of
    exp(beta * score) over the bank, and whether any query of the bank has it first.
    """

    beta: float
    log_sums: npt.NDArray[np.float64]
    is_retrieved: npt.NDArray[np.bool_]

    def normalise(self, scores: Scores) -> npt.NDArray[np.float64]:
        """The scores of test queries, (queries, items), as the dynamic inverted softmax ranks them:
        if the query's first item (any of them, in a tie) is one that the bank retrieves,
        score - log_sum / beta, which is in the order of exp(beta * score) / sum; else unchanged.
        Only scores of one query can be compared with each other.
        """
        _check(scores)
        scores = scores.astype(np.float64)
        is_first = scores == scores.max(axis=1, keepdims=True)
        is_hub_query = (is_first & self.is_retrieved).any(axis=1)
        return np.where(is_hub_query[:, None], scores - self.log_sums / self.beta, scores)


def query_bank(score_blocks: Iterable[Scores], beta: float = BETA) -> QueryBank:
    """The bank whose queries have these scores with the test items, (queries, items) a block; one
    of hundreds of thousands of captions need not be in memory at once.

    Raises EmbeddingError for an empty bank, an empty gallery, and scores that are not finite,
    ValueError unless ``beta`` is positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")
    log_sums: npt.NDArray[np.float64] | None = None
    is_retrieved: npt.NDArray[np.bool_] = np.zeros(0, bool)
    for scores in score_blocks:
        _check(scores)
        scores = scores.astype(np.float64)
        log_sum = logsumexp(beta * scores, axis=0)
        first = (scores == scores.max(axis=1, keepdims=True)).any(axis=0)
        if log_sums is None:
            log_sums, is_retrieved = log_sum, first
        else:
            log_sums, is_retrieved = np.logaddexp(log_sums, log_sum), is_retrieved | first
    if log_sums is None:
        raise EmbeddingError("query bank: no queries")
    return QueryBank(beta=beta, log_sums=log_sums, is_retrieved=is_retrieved)


def dual_softmax_over_test_queries(scores: Scores, temperature: float) -> npt.NDArray[np.float64]:
    """score * softmax(score / temperature) over the test queries, (queries, items). It uses the
    test queries, so every row of a table with it must say so.

    Raises EmbeddingError for scores that are empty or not finite, ValueError unless
    ``temperature`` is positive.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature must be positive, not {temperature}")
    _check(scores)
    scores = scores.astype(np.float64)
    corrected: npt.NDArray[np.float64] = scores * np.exp(log_softmax(scores / temperature, axis=0))
    return corrected


def _check(scores: Scores) -> None:
    if not scores.size or not np.isfinite(scores).all():
        raise EmbeddingError("query bank: no scores, or scores that are not finite")
