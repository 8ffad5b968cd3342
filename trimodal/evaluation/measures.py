"""The measures of a retrieval direction, each with a bootstrap interval over the queries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.retrieval import Ranking, summarise

RECALLS = (1, 5, 10, 50)
_INTERVAL_PERCENT = (2.5, 97.5)
_SEED = 0  # of the resampling: the same ranks always have the same interval
_DRAWN = 2**22  # numbers drawn at a time

Draws = npt.NDArray[np.float64]  # (resamples,)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measures by name, and the values of each on bootstrap resamples of the queries."""

    values: Mapping[str, float]
    draws: Mapping[str, Draws]

    def summary(self) -> dict[str, Any]:
        """The values and, if there are draws, ``intervals``: the central 95 % of each."""
        if not self.draws:
            return dict(self.values)
        bounds = {
            name: [float(bound) for bound in np.percentile(draws, _INTERVAL_PERCENT)]
            for name, draws in self.draws.items()
        }
        return {**self.values, "intervals": bounds}


def measure(ranking: Ranking, resamples: int) -> Measured:
    """R@1, R@5, R@10, R@50 and nDCG@10 in percent, MedR, MeanR, and MRR in percent.

    Queries are resampled with replacement ``resamples`` times (Efron 1979; 0: no draws); the
    gallery stays. Raises EmbeddingError for no queries.
    """
    ranks = ranking.ranks
    values = summarise(ranks, RECALLS)  # EmbeddingError
    per_query = {f"R@{k}": 100.0 * (ranks <= k) for k in RECALLS} | {
        "MeanR": ranks,
        "MRR": 100.0 / ranks,
        "nDCG@10": 100.0 * ranking.ndcg,
    }
    values |= {name: float(per_query[name].mean()) for name in ("MRR", "nDCG@10")}
    if not resamples:
        return Measured(values=values, draws={})
    order = np.argsort(ranks, kind="stable")
    in_order = np.stack([column[order] for column in per_query.values()], axis=1)
    means, medians = [], []
    for counts in _resampled_counts(len(ranks), resamples):
        means.append(counts @ in_order / len(ranks))
        medians.append(_medians(ranks[order], counts))
    drawn = np.concatenate(means)
    draws = dict(zip(per_query, drawn.T, strict=True)) | {"MedR": np.concatenate(medians)}
    return Measured(values=values, draws={name: draws[name] for name in values})


def _resampled_counts(queries: int, resamples: int) -> Iterator[npt.NDArray[np.float64]]:
    """How often each query is in each resample, (resamples of the block, queries), in blocks."""
    rng = np.random.default_rng(_SEED)
    at_a_time = max(1, _DRAWN // queries)
    for start in range(0, resamples, at_a_time):
        rows = min(at_a_time, resamples - start)
        drawn = rng.integers(0, queries, (rows, queries))
        drawn += queries * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * queries)
        yield counts.reshape(rows, queries).astype(np.float64)


def _medians(ordered: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> Draws:
    """The median of each resample, (resamples,), of values in order."""
    total = counts.cumsum(axis=1)
    queries = len(ordered)
    middle = [
        ordered[(total > position).argmax(axis=1)]
        for position in ((queries - 1) // 2, queries // 2)
    ]
    medians: Draws = (middle[0] + middle[1]) / 2
    return medians


def mean_of(parts: Sequence[Measured]) -> Measured:
    """Each measure's mean over ``parts``, such as folds, which have the same measures."""
    first = parts[0]
    return Measured(
        values={
            name: float(np.mean([part.values[name] for part in parts])) for name in first.values
        },
        draws={name: np.mean([part.draws[name] for part in parts], axis=0) for name in first.draws},
    )


def sum_of_recalls(one: Measured, other: Measured) -> Measured:
    """``rsum`` of two opposite directions: the sum of R@1, R@5 and R@10 of both, at most 600."""
    names = ("R@1", "R@5", "R@10")
    draws = {}
    if one.draws:
        draws = {"rsum": np.sum([part.draws[name] for part in (one, other) for name in names], 0)}
    value = sum(part.values[name] for part in (one, other) for name in names)
    return Measured(values={"rsum": value}, draws=draws)
