"""Significance tests find real differences, no others, and refuse what they cannot pair."""

import numpy as np
import pytest
from scipy import stats

from trimodal.report import significance
from trimodal.report.significance import (
    PER_QUERY,
    Difference,
    PairingError,
    false_alarms,
    mean_over_seeds,
    paired_over_queries,
    paired_over_seeds,
)


def ranks_of(rng: np.random.Generator, hardness: np.ndarray) -> np.ndarray:
    """Ranks of a model: each sentence has a hardness of its own, which all models share."""
    return np.ceil(np.exp(hardness + 0.7 * rng.standard_normal(len(hardness))))


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to count how often a test fires."""
    monkeypatch.setattr(significance, "RESAMPLES", 499)


@pytest.mark.usefixtures("few_resamples")
def test_where_nothing_differs_few_are_called_different() -> None:
    """Two models of which it is chance who is better at which sentence: 5 % at the level 5 %."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        hardness = rng.normal(2, 1, 100)
        first, second = (PER_QUERY["R@10"](ranks_of(rng, hardness)) for _ in range(2))
        alarms += paired_over_queries(first, second).p < 0.05
    low, high = stats.binom.interval(0.999, 200, 0.05)
    assert low <= alarms <= high


@pytest.mark.usefixtures("few_resamples")
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        values = rng.exponential(1.0, (2, 80))
        difference = paired_over_queries(values[0], values[1] + 0.3)
        covered += difference.low <= 0.3 <= difference.high
    assert covered >= stats.binom.ppf(0.001, 200, 0.93)


def test_a_large_difference_is_found() -> None:
    rng = np.random.default_rng(3)
    hardness = rng.normal(2, 1, 300)
    first = ranks_of(rng, hardness)
    second = ranks_of(rng, hardness - 0.5)
    difference = paired_over_queries(first, second)
    assert difference.p < 0.001
    assert difference.high < 0
    assert difference.mean == pytest.approx((second - first).mean())


def test_few_pairs_are_tested_exactly() -> None:
    """All 2^6 ways of giving six sentences' ranks to two models: 2 are as extreme."""
    difference = paired_over_queries(np.zeros(6), np.array([1.0, 2, 3, 4, 5, 6]))
    assert difference.p == pytest.approx(2 / 64)


def test_hits_are_tested_as_mcnemar_would() -> None:
    """On R@1 only sentences that one model alone finds count: a binomial test of a coin."""
    first = np.array([100.0] * 9 + [0.0] * 3 + [0.0] * 40)
    second = np.array([0.0] * 9 + [100.0] * 3 + [0.0] * 40)
    exact = stats.binomtest(3, 12).pvalue
    assert paired_over_queries(first, second).p == pytest.approx(exact, abs=0.015)


def test_the_same_ranks_are_no_difference() -> None:
    same = np.array([1.0, 5, 9])
    assert paired_over_queries(same, same) == Difference(mean=0, low=0, high=0, p=1)


def test_the_same_runs_always_have_the_same_p() -> None:
    values = np.random.default_rng(5).standard_normal((2, 200))
    assert paired_over_queries(*values) == paired_over_queries(*values)


def test_seeds_are_paired_by_student() -> None:
    first, second = np.array([10.0, 12, 11]), np.array([11.0, 13.5, 11.5])
    difference = paired_over_seeds(first, second)
    assert difference.p == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert difference.low < difference.mean == 1.0 < difference.high
    mean, half = mean_over_seeds(first)
    assert (mean, half) == pytest.approx((11.0, 4.302653 / np.sqrt(3)), rel=1e-5)


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (3, 0.25), (5, 0.0625)])
def test_equal_differences_of_few_seeds_prove_little(seeds: int, p: float) -> None:
    first = np.linspace(10.1, 11.3, seeds)
    difference = paired_over_seeds(first, first - 1.0)
    assert difference.p == p
    assert (difference.mean, difference.low, difference.high) == pytest.approx((-1.0, -1.0, -1.0))
    assert paired_over_seeds(first, first).p == 1.0


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(PairingError, match="cannot be paired by query"):
        paired_over_queries(np.zeros(3), np.zeros(4))
    with pytest.raises(PairingError, match="cannot be paired by query"):
        paired_over_queries(np.zeros(1), np.zeros(1))
    for call in (lambda: paired_over_seeds(np.zeros(1), np.zeros(1)),
                 lambda: mean_over_seeds(np.zeros(1))):  # fmt: skip
        with pytest.raises(PairingError, match="seeds"):
            call()


def test_seeds_models_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(6)
    hardness = rng.normal(2, 1, 400)
    alike = [ranks_of(rng, hardness) for _ in range(3)]
    assert false_alarms(alike, "MeanR") == (0, 3)
    assert false_alarms([*alike, ranks_of(rng, hardness + 1)], "MeanR") == (3, 6)


def test_it_reads_as_a_sentence() -> None:
    assert str(Difference(mean=0.44, low=-0.21, high=1.04, p=0.21)) == (
        "+0.4 (95 % CI -0.2..+1.0), p = 0.21"
    )
    assert str(Difference(mean=-2, low=-3, high=-1, p=0.0002)).endswith("p < 0.001")
