"""Effective rank and mean cosine against slow loops and sets with known values."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from trimodal.evaluation.geometry import effective_rank, mean_cosine


def slow_effective_rank(rows: Any) -> float:
    """From the definition, by the eigenvalues of the rows' own products."""
    rows = np.asarray(rows, np.float64)
    values = [math.sqrt(max(0.0, v)) for v in np.linalg.eigvalsh(rows.T @ rows)]
    shares = [value / sum(values) for value in values]
    return math.exp(-sum(share * math.log(share) for share in shares if share > 0))


def slow_mean_cosine(rows: Any) -> float:
    rows = np.asarray(rows, np.float64).tolist()
    cosines = []
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            if i != j:
                dot = sum(a * b for a, b in zip(one, other, strict=True))
                cosines.append(dot / (math.hypot(*one) * math.hypot(*other)))
    return sum(cosines) / len(cosines)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("items", "dim"), [(40, 5), (5, 40), (2, 3), (30, 30)])
def test_both_match_slow_loops(items: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((items, dim)) + rng.random() * 3).astype(np.float32)
    assert effective_rank(rows) == pytest.approx(slow_effective_rank(rows), rel=1e-5)
    assert mean_cosine(rows) == pytest.approx(slow_mean_cosine(rows), abs=1e-6)


@pytest.mark.parametrize("items", [2, 3, 16])
def test_orthogonal_rows_have_full_rank(items: int) -> None:
    eye = np.eye(items, dtype=np.float32)
    assert effective_rank(eye) == pytest.approx(items)
    assert effective_rank(5 * eye) == pytest.approx(items)
    assert mean_cosine(eye) == pytest.approx(0)


@pytest.mark.parametrize("value", [1.0, 0.1, 1e-20, 1e15])
def test_constant_rows_have_rank_one(value: float) -> None:
    rows = np.full((1000, 256), value, np.float32)
    rows[:, 7] *= -3
    assert effective_rank(rows) == pytest.approx(1, abs=1e-6)
    assert mean_cosine(rows) == pytest.approx(1, abs=1e-9)
    assert mean_cosine(rows) <= 1.0


def test_opposite_rows_have_rank_one_and_cosine_minus_one() -> None:
    rows = np.array([[3, 4], [-6, -8]], np.float32)
    assert effective_rank(rows) == pytest.approx(1)
    assert mean_cosine(rows) == pytest.approx(-1)


def test_half_of_the_rows_in_each_of_two_directions() -> None:
    rows = np.repeat(np.eye(2, dtype=np.float32), 50, axis=0)
    assert effective_rank(rows) == pytest.approx(2)
    assert mean_cosine(rows) == pytest.approx(49 / 99)


def test_lengths_matter_for_the_rank_but_not_for_the_cosine() -> None:
    rows = np.diag([3.0, 1.0]).astype(np.float32)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert effective_rank(rows) == pytest.approx(math.exp(entropy))
    rows = np.array([[1, 0], [10, 10]], np.float32)
    assert mean_cosine(rows) == pytest.approx(math.sqrt(0.5))


def test_no_matrix_of_all_pairs_is_made() -> None:
    rows = np.random.default_rng(0).standard_normal((20_000, 8)).astype(np.float32)
    tracemalloc.start()
    mean_cosine(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 20_000 * 8


def test_single_row_has_a_rank_and_no_cosine() -> None:
    row = np.ones((1, 4), np.float32)
    assert effective_rank(row) == pytest.approx(1)
    with pytest.raises(ValueError, match="two rows"):
        mean_cosine(row)


def test_zeros_have_neither() -> None:
    rows = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="not zero"):
        effective_rank(rows)
    rows[:2] = 1
    assert effective_rank(rows) == pytest.approx(1)
    with pytest.raises(ValueError, match="none of them zero"):
        mean_cosine(rows)
    with pytest.raises(ValueError, match="not zero"):
        effective_rank(np.zeros((0, 4), np.float32))
