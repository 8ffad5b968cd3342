"""Is a difference between two runs more than chance? Paired tests over queries, intervals over
seeds.

These are two questions, and an answer to one does not answer the other. *Would other sentences say
the same of these two models?* Each sentence has a rank from both models; if the models were
equally good, swapping a sentence's two ranks would change nothing (a sign-flip permutation test;
Smucker, Allan and Carterette 2007 compare it with other tests for retrieval). The interval comes
from resampling sentences (percentile bootstrap, Efron 1979). *Would other seeds say the same of
these two recipes?* Runs paired by seed have one difference each, which Student's paired t-test
takes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from trimodal.core.errors import UserError

RankArray = npt.NDArray[np.float64]  # (queries,), from 1; a tied rank can end in .5
Values = npt.NDArray[np.float64]
RESAMPLES = 10_000
_INTERVAL_RESAMPLES = 1000
ONE_SEED = "one seed, no interval"
_ROUNDING = 1e-9  # of means of percents and ranks
_SEED = 1  # of the resampling: the same runs always have the same p


def _hit_at(k: int) -> Callable[[RankArray], Values]:
    return lambda ranks: np.where(ranks <= k, 100.0, 0.0)


# The value of each query whose mean is the metric; MedR is not a mean and has no such test.
PER_QUERY: Mapping[str, Callable[[RankArray], Values]] = {
    "R@1": _hit_at(1),
    "R@5": _hit_at(5),
    "R@10": _hit_at(10),
    "MeanR": lambda ranks: ranks.astype(np.float64),
}


class PairingError(UserError, ValueError):
    """Runs that cannot be compared query by query, or too few seeds for an interval."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Second minus first: the mean, its 95 % interval and the two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        """'+0.4 (95 % CI -0.2..+1.0), p = 0.21'."""
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
        return f"{self.mean:+.1f} (95 % CI {self.low:+.1f}..{self.high:+.1f}), {p}"


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises PairingError, before hours of training, for seeds that are not different numbers from
    0 to 2^32 - 1: a seed twice is one run counted twice.
    """
    if len(set(seeds)) < len(seeds):
        raise PairingError(f"seeds {' '.join(map(str, seeds))}: one of them is given twice")
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise PairingError(f"seed {wrong[0]}: not from 0 to 2^32 - 1")


def paired_over_queries(first: Values, second: Values) -> Difference:
    """The difference of per-query values (or of their means over seeds), (queries,) each, in the
    same order.

    Raises PairingError for different numbers of queries or fewer than two.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise PairingError(f"{first.shape} and {second.shape} values cannot be paired by query")
    differences = second - first
    mean = float(differences.mean())
    if not differences.any():
        return Difference(mean=0.0, low=0.0, high=0.0, p=1.0)
    rng = np.random.default_rng(_SEED)
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=500,
        random_state=rng,
    ).confidence_interval  # fmt: skip
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, batch=500,
        random_state=rng, vectorized=True,
    )  # fmt: skip
    return Difference(
        mean=mean, low=float(interval.low), high=float(interval.high), p=float(test.pvalue)
    )


def paired_over_seeds(first: Values, second: Values) -> Difference:
    """The difference of one value per run, (seeds,) each, in the order of the seeds. Where all
    differences are equal, as recalls of few seeds can be, there is no spread for a t-test; p is
    then the sign test's, 2^(1 - seeds).

    Raises PairingError for different numbers of runs or fewer than two.
    """
    if first.shape != second.shape or len(first) < 2:
        raise PairingError("an interval over seeds needs two or more runs of each, paired by seed")
    differences = second - first
    mean = float(differences.mean())
    if np.ptp(differences) < _ROUNDING:
        p = 2.0 ** (1 - len(differences)) if abs(mean) >= _ROUNDING else 1.0
        return Difference(mean=mean, low=mean, high=mean, p=p)
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Difference(
        mean=mean, low=float(interval.low), high=float(interval.high), p=float(test.pvalue)
    )


class BothTests(NamedTuple):
    """The difference between two recipes, tested for each of the two questions."""

    over_queries: Difference
    over_seeds: Difference


def both_tests(first: Sequence[RankArray], second: Sequence[RankArray], metric: str) -> BothTests:
    """Compares the runs of two recipes, paired by seed: each query's mean over seeds, and each
    run's mean over queries.

    Raises PairingError as :func:`paired_over_queries` and :func:`paired_over_seeds` do.
    """
    first_values, second_values = (
        np.stack([PER_QUERY[metric](ranks) for ranks in runs]) for runs in (first, second)
    )  # (seeds, queries)
    return BothTests(
        over_queries=paired_over_queries(first_values.mean(axis=0), second_values.mean(axis=0)),
        over_seeds=paired_over_seeds(first_values.mean(axis=1), second_values.mean(axis=1)),
    )


def intervals_over_queries(ranks: RankArray) -> dict[str, list[float]]:
    """The 95 % intervals, [low, high], of the metrics of :data:`PER_QUERY` over queries: bootstrap,
    percentiles.
    """
    rng = np.random.default_rng(_SEED)
    chosen = rng.integers(len(ranks), size=(_INTERVAL_RESAMPLES, len(ranks)))
    return {
        metric: np.percentile(per_query(ranks)[chosen].mean(axis=1), [2.5, 97.5]).tolist()
        for metric, per_query in PER_QUERY.items()
    }


def mean_over_seeds(values: Values) -> tuple[float, float]:
    """The mean of one value per run and the half width of its 95 % interval (Student's t).

    Raises PairingError for fewer than two runs.
    """
    if len(values) < 2:
        raise PairingError("an interval over seeds needs at least two runs")
    half_width = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half_width)


def false_alarms(runs: Sequence[RankArray], metric: str, level: float = 0.05) -> tuple[int, int]:
    """Of all pairs of runs that differ by seed alone: how many the test over queries calls
    different at this level, and how many pairs there are.

    The test asks about two models, and the models of two seeds do differ: a share above ``level``
    is not a fault of the test, but the share to compare a difference between single runs of two
    recipes with.
    """
    value = PER_QUERY[metric]
    pairs = list(combinations(runs, 2))
    alarms = sum(paired_over_queries(value(a), value(b)).p < level for a, b in pairs)
    return alarms, len(pairs)
