"""Hubness against a slow count, SciPy's skewness and sets with known values."""

import numpy as np
import pytest
from scipy.stats import skew

from trimodal.evaluation.hubness import hubness, occurrences
from trimodal.evaluation.retrieval import EmbeddingError


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_slow_loop(seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((30, 12))
    counts = [0] * 12
    for row in scores.tolist():
        for item in sorted(range(12), key=lambda i: -row[i])[:3]:
            counts[item] += 1
    assert occurrences([scores[:7], scores[7:]], k=3).tolist() == counts
    found = hubness([scores[:7], scores[7:]], k=3)
    assert found["N_3_skewness"] == pytest.approx(skew(counts))
    assert found["never_retrieved"] == pytest.approx(100 * counts.count(0) / 12)


def test_ten_is_the_default() -> None:
    scores = np.random.default_rng(0).standard_normal((40, 25))
    assert hubness([scores]) == hubness([scores], k=10)
    assert set(hubness([scores])) == {"N_10_skewness", "never_retrieved"}
    assert occurrences([scores]).sum() == 400


def test_ties_share_the_last_places_whatever_the_order() -> None:
    scores = np.array([[3.0, 1, 1, 1, 0]])
    assert occurrences([scores], k=2).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert occurrences([scores[:, ::-1]], k=2).tolist() == pytest.approx(
        [0, 1 / 3, 1 / 3, 1 / 3, 1]
    )
    coarse = np.random.default_rng(0).integers(0, 3, (20, 9)).astype(np.float32)
    assert occurrences([coarse], k=4).sum() == pytest.approx(80)


def test_one_item_that_is_near_to_all_is_a_hub() -> None:
    """Item 0 is first for each of 10 queries, each of which has an item of its own behind it."""
    scores = np.eye(10, 21, k=1) + 2 * (np.arange(21) == 0) - 0.1
    scores[:, 11:] = -5
    counts = occurrences([scores], k=2)
    assert counts.tolist() == [10] + [1] * 10 + [0] * 10
    found = hubness([scores], k=2)
    assert found["N_2_skewness"] == pytest.approx(skew(counts))
    assert found["N_2_skewness"] > 3
    assert found["never_retrieved"] == pytest.approx(100 * 10 / 21)


def test_without_hubs_there_is_no_skew() -> None:
    scores = np.eye(6)
    assert hubness([scores], k=1) == {"N_1_skewness": 0.0, "never_retrieved": 0.0}


def test_what_has_no_hubness_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="no queries"):
        hubness([])
    with pytest.raises(EmbeddingError, match="10 items; more than 10"):
        hubness([np.zeros((3, 10))])
    with pytest.raises(EmbeddingError, match="not finite"):
        hubness([np.full((3, 20), np.nan)])
