"""QB-Norm against the formulas of its paper and authors' code, dual softmax against a slow loop."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from trimodal.evaluation.query_bank import BETA, dual_softmax_over_test_queries, query_bank
from trimodal.evaluation.retrieval import EmbeddingError, ranks


def slow_qb_norm(
    scores: list[list[float]], bank: list[list[float]], beta: float
) -> list[list[float]]:
    """Equations 1 to 4 of the paper: exp(beta s) / sum over the bank, where the query's first item
    is in the activation set, else s.
    """
    items = range(len(bank[0]))
    sums = [sum(math.exp(beta * row[j]) for row in bank) for j in items]
    active = {max(items, key=lambda j: row[j]) for row in bank}
    return [
        [math.exp(beta * s) / sums[j] for j, s in enumerate(row)]
        if max(items, key=lambda j: row[j]) in active
        else row
        for row in scores
    ]


def draw(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Scores of 30 queries and of a bank of 8 with 30 items, of which item 3 is a hub."""
    rng = np.random.default_rng(seed)
    scores, bank = rng.standard_normal((30, 30)), rng.standard_normal((8, 30))
    scores += 1.5 * np.eye(30)
    scores[:, 3] += 1.5
    bank[:, 3] += 1.5
    return (scores / 4).astype(np.float32), (bank / 4).astype(np.float32)


@pytest.mark.parametrize("beta", [1.0, BETA, 200.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_is_that_of_the_paper(seed: int, beta: float) -> None:
    scores, bank = draw(seed)
    found = query_bank([bank[:3], bank[3:]], beta).normalise(scores)
    expected = np.array(slow_qb_norm(scores.tolist(), bank.tolist(), beta))
    np.testing.assert_array_equal(np.argsort(-found, axis=1), np.argsort(-expected, axis=1))


def test_some_queries_are_normalised_and_the_others_are_not() -> None:
    scores, bank = draw(0)
    found = query_bank([bank]).normalise(scores)
    is_changed = (found != scores).any(axis=1)
    assert 0 < is_changed.sum() < 30
    active = set(bank.argmax(axis=1))
    assert is_changed.tolist() == [row.argmax() in active for row in scores]


def test_a_hub_is_put_in_its_place() -> None:
    """By the bank alone: no other test query is looked at."""
    scores, bank = draw(1)
    found = query_bank([bank]).normalise(scores)
    assert (ranks(found) <= 1).mean() > (ranks(scores) <= 1).mean()
    one_by_one = [query_bank([bank]).normalise(row[None])[0] for row in scores]
    np.testing.assert_array_equal(found, one_by_one)


def test_in_a_tie_any_first_item_counts() -> None:
    bank = query_bank([np.array([[1.0, 1.0, 0.0]])])
    assert bank.is_retrieved.tolist() == [True, True, False]
    scores = np.array([[0.5, 0.0, 0.5], [0.0, 0.0, 0.5]])
    found = bank.normalise(scores)
    assert (found != scores).any(axis=1).tolist() == [True, False]


def test_large_betas_and_banks_do_not_overflow() -> None:
    scores, bank = draw(2)
    found = query_bank([bank] * 50, 5000.0).normalise(scores)
    assert np.isfinite(found).all()


def test_dual_softmax_is_that_of_a_slow_loop() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 4))
    found = dual_softmax_over_test_queries(scores, 0.1)
    for q in range(5):
        for j in range(4):
            share = math.exp(scores[q, j] / 0.1) / sum(math.exp(s / 0.1) for s in scores[:, j])
            assert found[q, j] == pytest.approx(scores[q, j] * share)


def test_dual_softmax_depends_on_the_other_test_queries() -> None:
    scores = np.random.default_rng(0).standard_normal((5, 4))
    alone = dual_softmax_over_test_queries(scores[:1], 0.1)
    assert not np.allclose(alone, dual_softmax_over_test_queries(scores, 0.1)[:1])


def test_what_cannot_be_normalised_is_refused() -> None:
    good = np.ones((2, 3))
    for bad in (np.full((2, 3), np.nan), np.zeros((0, 3)), np.zeros((2, 0))):
        for use in (
            lambda scores: query_bank([scores]),
            query_bank([good]).normalise,
            lambda scores: dual_softmax_over_test_queries(scores, 1.0),
        ):
            with pytest.raises(EmbeddingError, match="not finite"):
                use(bad)
    with pytest.raises(EmbeddingError, match="no queries"):
        query_bank([])
    with pytest.raises(ValueError, match="beta"):
        query_bank([good], 0.0)
    with pytest.raises(ValueError, match="temperature"):
        dual_softmax_over_test_queries(good, 0.0)
