"""Ranks against a brute-force count; ties, NaN and empty galleries cannot improve them."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from evaluation_fixtures import embeddings_of, several_sentences
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimodal.evaluation import retrieval
from trimodal.evaluation.metrics import audio_weight_curve, compute_metrics, video_ranks
from trimodal.evaluation.retrieval import (
    EmbeddingError,
    mix,
    ranks,
    similarity,
    summarise,
    tied_queries,
)

Scores = npt.NDArray[np.float64]


def oracle_rank(row: Scores, true: int) -> float:
    """The mean position of the true item over all ways to order the ties, counted one by one."""
    better = ties = 0
    for item, score in enumerate(row.astype(np.float32)):
        if score > np.float32(row[true]):
            better += 1
        elif item != true and score == np.float32(row[true]):
            ties += 1
    return (better + 1 + better + 1 + ties) / 2


@st.composite
def scores_and_true_items(draw: st.DrawFn) -> tuple[Scores, npt.NDArray[np.int64]]:
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    score = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6, width=32))
    scores = draw(arrays(np.float64, (queries, items), elements=score))
    return scores, draw(arrays(np.int64, queries, elements=st.integers(0, items - 1)))


@given(scores_and_true_items())
def test_ranks_are_those_of_a_brute_force_count(
    case: tuple[Scores, npt.NDArray[np.int64]],
) -> None:
    scores, true_items = case
    expected = [oracle_rank(row, true) for row, true in zip(scores, true_items, strict=True)]
    assert ranks(scores, true_items).tolist() == expected
    tied = sum(
        any(item != true and row[item] == row[true] for item in range(len(row)))
        for row, true in zip(scores.astype(np.float32), true_items, strict=True)
    )
    assert tied_queries(scores, true_items) == tied


def test_ranks_of_the_diagonal() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert ranks(scores).tolist() == [1, 3, 2]


def test_true_items_has_the_true_column_of_each_query() -> None:
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert ranks(scores, np.array([2, 2])).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("row", "rank"),
    [([1.0, 1.0], 1.5), ([1.0, 1.0, 1.0], 2.0), ([1.0, 2.0, 1.0], 2.5), ([1.0, 0.0, 0.0], 1.0)],
)
def test_ties_share_their_mean_rank(row: list[float], rank: float) -> None:
    assert ranks(np.array([row]), np.array([0])).tolist() == [rank]


def test_constant_embeddings_score_as_random() -> None:
    constant = np.ones((100, 8), np.float32)
    rank_of_query = ranks(similarity(constant, constant))
    assert rank_of_query.tolist() == [50.5] * 100
    assert summarise(rank_of_query) == {"R@1": 0, "R@5": 0, "R@10": 0, "MedR": 50.5, "MeanR": 50.5}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_raise_and_are_counted(bad: float) -> None:
    scores = np.eye(4)
    scores[0, 2] = scores[0, 3] = scores[3, 3] = bad
    with pytest.raises(EmbeddingError, match="2 queries"):
        ranks(scores)


def test_scores_that_overflow_float32_raise() -> None:
    with pytest.raises(EmbeddingError), np.errstate(over="ignore"):
        ranks(np.array([[1.0, 1e300]]))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_empty_galleries_and_no_queries_raise(shape: tuple[int, int]) -> None:
    with pytest.raises(EmbeddingError, match="nothing to rank"):
        ranks(np.zeros(shape))


def test_scores_are_compared_in_float32() -> None:
    """Differences below float32's resolution are ties, the next float32 is not."""
    same = np.array([[0.5, 0.5 + 1e-12]])
    above = np.array([[0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))]])
    true_items = np.array([0])
    assert ranks(same, true_items).tolist() == [1.5]
    assert tied_queries(same, true_items) == 1
    assert ranks(above, true_items).tolist() == [2.0]
    assert tied_queries(above, true_items) == 0


def test_similarity_is_the_float32_dot_product_without_normalising() -> None:
    queries, gallery = np.array([[1.0, 2.0], [0.0, 3.0]]), np.array([[4.0, 0.5], [1.0, 1.0]])
    scores = similarity(queries, gallery)
    assert scores.dtype == np.float32
    assert scores.tolist() == [[5.0, 3.0], [1.5, 3.0]]


def test_mix_weighs_the_second_similarity() -> None:
    first = np.array([[1.0, 0.0], [0.5, -1.0]], np.float32)
    second = np.array([[0.0, 1.0], [0.5, 1.0]], np.float32)
    np.testing.assert_allclose(mix(first, second, 0.2), [[0.8, 0.2], [0.5, -0.6]], rtol=1e-6)
    assert mix(first, second, 0.0).tolist() == first.tolist()
    assert mix(first, second, 1.0).tolist() == second.tolist()
    assert mix(first, second, 0.3).dtype == np.float32


@pytest.mark.parametrize("silence", [0.0, 9.0, np.nan])
def test_items_without_a_second_score_have_the_first_alone(silence: float) -> None:
    first = np.array([[1.0, 0.5], [0.5, -1.0]], np.float32)
    second = np.array([[0.0, silence], [1.0, silence]], np.float32)
    mixed = mix(first, second, 0.5, np.array([True, False]))
    assert mixed.tolist() == [[0.5, 0.5], [0.75, -1.0]]


@pytest.mark.parametrize("weight", [-0.01, 1.01, np.nan])
def test_weights_outside_0_to_1_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        mix(np.eye(2), np.eye(2), weight)


def test_summary_by_hand() -> None:
    summary = summarise(np.array([1.0, 1.5, 5.0, 5.5, 10.0, 11.0, 100.0, 2.0]))
    assert summary == {"R@1": 12.5, "R@5": 50.0, "R@10": 75.0, "MedR": 5.25, "MeanR": 17.0}


def test_recall_is_counted_at_the_given_ranks() -> None:
    assert summarise(np.array([1.0, 2.0, 3.0, 4.0]), recall_at=(2, 3)) == {
        "R@2": 50.0, "R@3": 75.0, "MedR": 2.5, "MeanR": 2.5,
    }  # fmt: skip


def test_tied_queries_are_counted_once_each() -> None:
    scores = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [2.0, 1.0, 2.0]])
    assert tied_queries(scores) == 2
    assert tied_queries(scores, np.array([0, 0, 1])) == 2


def test_blocks_of_queries_give_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several sentences a video, silent ones among them: every metric, and the curve."""
    e = several_sentences(60, videos=20, silent=(3, 4, 18))
    in_one_block = compute_metrics(e, 0.25, 0.5), audio_weight_curve(e, 4)
    monkeypatch.setattr(retrieval, "_BLOCK_ROWS", 7)
    assert (compute_metrics(e, 0.25, 0.5), audio_weight_curve(e, 4)) == in_one_block


def test_memory_does_not_grow_with_the_square_of_the_test_set() -> None:
    e = embeddings_of(6000)
    square = 6000**2 * 4
    tracemalloc.start()
    video_ranks(e, (0.0, 0.25, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < square
