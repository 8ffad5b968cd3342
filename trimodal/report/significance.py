"""Is a difference between two runs more than chance? Paired tests over queries, intervals over
seeds.

Two questions, and an answer to one is none to the other. *Would other sentences say the same of
these two models?* Each sentence has a rank under both; if the models were alike, it would be
chance which of a sentence's two ranks is whose (a sign-flip permutation test; Smucker, Allan and
Carterette 2007 compare it with others for retrieval), and the interval comes from drawing sentences
anew (percentile bootstrap, Efron 1979). *Would other seeds say the same of these two recipes?* Runs
paired by seed have one difference each, and Student's t (paired) takes it from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from trimodal.core.errors import UserError

Ranks = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]
RESAMPLES = 10_000
_ROUNDING = 1e-9  # of means of percents and ranks
_SEED = 1  # of the resampling: the same runs always have the same p


def _hit_at(k: int) -> Callable[[Ranks], Values]:
    return lambda ranks: np.where(ranks <= k, 100.0, 0.0)


# What each metric is the mean of, over queries; MedR is no mean and has no such test.
PER_QUERY: Mapping[str, Callable[[Ranks], Values]] = {
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
        told = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.2g}"
        return f"{self.mean:+.1f} (95 % CI {self.low:+.1f}..{self.high:+.1f}), {told}"


def paired_over_queries(first: Values, second: Values) -> Difference:
    """Of per-query values, (queries,) both, in the same order (or their means over seeds).

    Raises PairingError for different numbers of queries or fewer than two.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise PairingError(f"{first.shape} and {second.shape} values are not pairs of queries")
    differences = second - first
    mean = float(differences.mean())
    if not differences.any():
        return Difference(mean=0.0, low=0.0, high=0.0, p=1.0)
    rng = np.random.default_rng(_SEED)
    drawn = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=500,
        random_state=rng,
    ).confidence_interval  # fmt: skip
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, batch=500,
        random_state=rng, vectorized=True,
    )  # fmt: skip
    return Difference(mean=mean, low=float(drawn.low), high=float(drawn.high), p=float(test.pvalue))


def paired_over_seeds(first: Values, second: Values) -> Difference:
    """Of one value a run, (seeds,) both, in the order of their seeds. Where all differences are
    equal, as recalls of few seeds can be, t knows no spread; p is then the sign test's,
    2^(1 - seeds).

    Raises PairingError for different numbers of runs or fewer than two: there is no spread then.
    """
    if first.shape != second.shape or len(first) < 2:
        raise PairingError("an interval over seeds takes two or more runs of each, paired by seed")
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
    """A difference between two recipes, for either question."""

    over_queries: Difference
    over_seeds: Difference


def both_tests(first: Sequence[Ranks], second: Sequence[Ranks], metric: str) -> BothTests:
    """Of two recipes' runs, paired by seed: of each query's mean over seeds, and of each run's over
    queries. Raises PairingError as :func:`paired_over_queries` and :func:`paired_over_seeds` do.
    """
    one, other = (
        np.stack([PER_QUERY[metric](ranks) for ranks in runs]) for runs in (first, second)
    )  # (seeds, queries)
    return BothTests(
        over_queries=paired_over_queries(one.mean(axis=0), other.mean(axis=0)),
        over_seeds=paired_over_seeds(one.mean(axis=1), other.mean(axis=1)),
    )


def mean_over_seeds(values: Values) -> tuple[float, float]:
    """The mean of one value a run and the half width of its 95 % interval (Student's t).

    Raises PairingError for fewer than two runs.
    """
    if len(values) < 2:
        raise PairingError("an interval over seeds takes at least two runs")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(half)


def false_alarms(runs: Sequence[Ranks], metric: str, level: float = 0.05) -> tuple[int, int]:
    """Of all pairs of runs that differ by seed alone: how many the test over queries calls
    different at this level, and how many pairs there are.

    It asks about two models, and two seeds' models do differ: more of them than ``level`` are no
    fault of the test, but what a difference between single runs of two recipes has to be held
    against.
    """
    value = PER_QUERY[metric]
    pairs = list(combinations(runs, 2))
    alarms = sum(paired_over_queries(value(a), value(b)).p < level for a, b in pairs)
    return alarms, len(pairs)
