"""nDCG, ranks of any true item, duplicate sentences and bootstrap intervals against oracles."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_fixtures import close, dot, several_sentences, slow_summary
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT
from sklearn.metrics import ndcg_score

from trimodal.core.records import Query
from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.measures import Measured, mean_of, measure, sum_of_recalls
from trimodal.evaluation.metrics import compute_metrics, text_to_video
from trimodal.evaluation.retrieval import (
    EmbeddingError,
    Ranking,
    best_true_ranks,
    ndcg,
    rank_queries,
    truth_of,
)
from trimodal.sources.msrvtt import read_queries

ANNOTATIONS = ROOT.parent / "shared" / "data" / "annotations"


@settings(max_examples=30)
@given(st.integers(1, 25), st.integers(2, 40), st.integers(0, 10**6))
def test_ndcg_is_scikit_learns(queries: int, items: int, seed: int) -> None:
    """With ties, several true items, and galleries of fewer than ten."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (queries, items)).astype(np.float32)
    is_true = rng.random((queries, items)) < 0.2
    is_true[np.arange(queries), rng.integers(0, items, queries)] = True
    expected = [ndcg_score(is_true[i : i + 1], scores[i : i + 1], k=10) for i in range(queries)]
    np.testing.assert_allclose(ndcg(scores, is_true), expected, atol=1e-12)


def test_ndcg_of_one_true_item_by_hand() -> None:
    scores = np.array([[3, 2, 1], [1, 2, 3], [1, 1, 1]], np.float32)
    is_true = np.zeros((3, 3), bool)
    is_true[:, 1] = True
    second = 1 / math.log2(3)
    np.testing.assert_allclose(ndcg(scores, is_true), [second, second, (1 + second + 0.5) / 3])
    assert ndcg(np.arange(11, dtype=np.float32)[None], np.eye(1, 11, dtype=bool)) == 0.0


def test_a_query_without_a_true_item_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="1 of 2 queries have no item"):
        best_true_ranks(np.eye(2, dtype=np.float32), np.array([[True, True], [False, False]]))
    with pytest.raises(EmbeddingError, match="nothing to rank"):
        rank_queries(lambda _: np.zeros((0, 0), np.float32), truth_of(np.zeros(0, np.int64), []))


# Duplicate sentences


def with_duplicates(seed: int) -> tuple[Embeddings, list[str]]:
    e = several_sentences(24, videos=9, seed=seed)
    rng = np.random.default_rng(seed)
    sentences = [f"sentence {number}" for number in rng.integers(0, 12, 24)]
    queries = tuple(
        Query(query_id=q.query_id, video_id=q.video_id, sentence=f"{sentence} ")
        for q, sentence in zip(e.queries, sentences, strict=True)
    )
    return replace(e, queries=queries), sentences


@pytest.mark.parametrize("seed", range(3))
def test_any_video_of_an_equal_sentence_is_right(seed: int) -> None:
    e, sentences = with_duplicates(seed)
    owners = e.true_video.tolist()
    true = [
        {owner for owner, other in zip(owners, sentences, strict=True) if other == sentence}
        for sentence in sentences
    ]
    assert any(len(videos) > 1 for videos in true)
    scores = [[dot(text, image) for image in e.image] for text in e.text]
    own = [{owner} for owner in owners]
    measured = {
        duplicates: text_to_video(e, 0.0, duplicates=duplicates)["image"]
        for duplicates in ("own", "any")
    }
    assert measured["own"] == close(slow_summary(scores, own))
    assert measured["any"] == close(slow_summary(scores, true))
    assert measured["any"]["MeanR"] < measured["own"]["MeanR"]
    back = compute_metrics(e, 0.0, 0.0, duplicates="any")["directions"]["image_to_text"]
    true_sentences = [{i for i, videos in enumerate(true) if v in videos} for v in range(9)]
    transposed = [list(column) for column in zip(*scores, strict=True)]
    assert back == close(slow_summary(transposed, true_sentences))


def test_msrvtt_has_995_distinct_sentences() -> None:
    path = ANNOTATIONS / "MSRVTT_JSFUSION_test.csv"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    queries, _ = read_queries(path)
    sentences = [query.sentence for query in queries]
    truth = truth_of(np.arange(len(queries)), sentences, any_duplicate=True)
    assert (len(queries), len(set(sentences))) == (1000, 995)
    assert int((truth.sum(axis=1) > 1).sum()) == 9  # three pairs and three of one
    assert truth_of(np.arange(len(queries)), sentences).sum() == 1000


# Intervals


def ranking(count: int, seed: int = 0) -> Ranking:
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, 60, count) / rng.choice([1, 2], count) + 0.5
    return Ranking(ranks=ranks, ndcg=rng.random(count))


@pytest.mark.parametrize("count", [1, 2, 17, 40])
def test_draws_are_measures_of_resampled_queries(count: int) -> None:
    """Each draw again from the definition, with the same random numbers."""
    of = ranking(count)
    drawn = measure(of, 30).draws
    order = np.argsort(of.ranks, kind="stable")
    picked = order[np.random.default_rng(0).integers(0, count, (30, count))]
    for number, rows in enumerate(picked):
        again = measure(Ranking(ranks=of.ranks[rows], ndcg=of.ndcg[rows]), 0).values
        assert {name: draws[number] for name, draws in drawn.items()} == pytest.approx(dict(again))


def test_draws_do_not_depend_on_how_many_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(ranking(40), 50).draws
    monkeypatch.setattr("trimodal.evaluation.measures._DRAWN", 40 * 7)
    for name, draws in measure(ranking(40), 50).draws.items():
        np.testing.assert_allclose(draws, whole[name])


def test_interval_of_a_recall_is_that_of_a_share() -> None:
    ranks = np.where(np.arange(1000) < 300, 1.0, 99.0)
    summary = measure(Ranking(ranks=ranks, ndcg=ranks), 2000).summary()
    low, high = summary["intervals"]["R@1"]
    half = 196 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((30 - half, 30 + half), abs=0.3)
    assert summary["intervals"]["MedR"] == [99.0, 99.0]
    assert set(summary["intervals"]) == set(summary) - {"intervals"}


def test_without_resamples_there_are_no_intervals() -> None:
    assert "intervals" not in measure(ranking(9), 0).summary()
    with pytest.raises(EmbeddingError, match="no queries"):
        measure(Ranking(ranks=np.zeros(0), ndcg=np.zeros(0)), 5)


def test_rsum_adds_the_recalls_of_both_directions() -> None:
    one, other = measure(ranking(30), 20), measure(ranking(20, seed=3), 20)
    both = sum_of_recalls(one, other)
    names = ("R@1", "R@5", "R@10")
    assert both.values["rsum"] == sum(part.values[n] for part in (one, other) for n in names)
    assert both.draws["rsum"][7] == pytest.approx(
        sum(part.draws[n][7] for part in (one, other) for n in names)
    )


def test_the_mean_over_folds_is_of_values_and_of_draws() -> None:
    parts = [
        Measured(values={"R@1": value}, draws={"R@1": np.array([value, 2 * value])})
        for value in (1.0, 4.0)
    ]
    mean = mean_of(parts)
    assert mean.values == {"R@1": 2.5}
    assert mean.draws["R@1"].tolist() == [2.5, 5.0]
    assert mean_of([measure(ranking(9), 0)] * 2).draws == {}
