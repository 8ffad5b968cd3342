"""Several sentences a video, as in MSR-VTT's full test set, against slow loops."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from evaluation_fixtures import close, dot, several_sentences, slow_summary
from hypothesis import given
from hypothesis import strategies as st

from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.metrics import audio_weight_curve, compute_metrics, text_to_video
from trimodal.evaluation.retrieval import (
    EmbeddingError,
    best_of_owners,
    best_true_ranks,
    ranks,
    tied_queries,
)

COUNT, VIDEOS, SILENT = 40, 11, (1, 4)


def owned(e: Embeddings, videos: list[int], sentences: list[int]) -> list[set[int]]:
    """For each video, the positions of its sentences among the given ones."""
    return [{n for n, i in enumerate(sentences) if e.true_video[i] == video} for video in videos]


@pytest.mark.parametrize("seed", range(4))
def test_directions_match_slow_loops(seed: int) -> None:
    e = several_sentences(COUNT, videos=VIDEOS, seed=seed, silent=SILENT)
    directions = compute_metrics(e, 0.25, 0.5)["directions"]
    assert len(directions) == 6
    for name, summary in directions.items():
        one, other = name.split("_to_")
        videos = [v for v in range(VIDEOS) if "audio" not in name or v not in SILENT]
        sentences = [i for i in range(COUNT) if e.true_video[i] in videos]
        rows = {"text": sentences, "image": videos, "audio": videos}
        scores = [
            [dot(getattr(e, one)[i], getattr(e, other)[j]) for j in rows[other]] for i in rows[one]
        ]
        true = {
            "text": [{videos.index(e.true_video[i])} for i in sentences],
            "image": owned(e, videos, sentences) if other == "text" else None,
            "audio": owned(e, videos, sentences) if other == "text" else None,
        }[one]
        assert summary == close(slow_summary(scores, true)), name


@pytest.mark.parametrize("seed", range(4))
def test_text_to_video_ranks_every_sentence_among_the_videos(seed: int) -> None:
    e = several_sentences(COUNT, videos=VIDEOS, seed=seed, silent=SILENT)

    def score(i: int, video: int, weight: float) -> float:
        by_image = dot(e.text[i], e.image[video])
        by_audio = dot(e.text[i], e.audio[video])
        return (1 - weight) * by_image + weight * by_audio if e.has_audio[video] else by_image

    true = [{int(video)} for video in e.true_video]
    for mode, weight in (("image", 0.0), ("image_audio", 0.25)):
        scores = [[score(i, v, weight) for v in range(VIDEOS)] for i in range(COUNT)]
        assert text_to_video(e, 0.25)[mode] == close(slow_summary(scores, true))
    assert audio_weight_curve(e, 4).splitlines()[2].startswith("0.25,")


def test_audio_to_image_is_mixed_with_the_best_sentence() -> None:
    e = several_sentences(COUNT, videos=VIDEOS, silent=SILENT)
    with_audio = [v for v in range(VIDEOS) if v not in SILENT]

    def by_text(i: int, video: int) -> float:
        return max(dot(e.audio[i], e.text[n]) for n in range(COUNT) if e.true_video[n] == video)

    scores = [
        [0.5 * dot(e.audio[i], e.image[j]) + 0.5 * by_text(i, j) for j in with_audio]
        for i in with_audio
    ]
    assert compute_metrics(e, 0.25, 0.5)["audio_to_image_text"] == close(slow_summary(scores))


def is_own(owner: npt.NDArray[np.int64], videos: int) -> npt.NDArray[np.bool_]:
    """(videos, sentences): whose each sentence is."""
    is_true: npt.NDArray[np.bool_] = owner == np.arange(videos)[:, None]
    return is_true


@st.composite
def scores_and_owners(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    videos = draw(st.integers(1, 5))
    more = draw(st.lists(st.integers(0, videos - 1), max_size=6))
    owner = np.array(draw(st.permutations([*range(videos), *more])), np.int64)
    number = st.integers(-2, 2)
    line = st.lists(number, min_size=len(owner), max_size=len(owner))
    scores = draw(st.lists(line, min_size=videos, max_size=videos))
    return np.array(scores, np.float32), owner


@given(scores_and_owners())
def test_best_ranks_are_those_of_a_brute_force_count(case: Any) -> None:
    scores, owner = case
    true = [set(np.flatnonzero(owner == video).tolist()) for video in range(len(scores))]
    summary = slow_summary(scores.tolist(), true)
    computed = best_true_ranks(scores, is_own(owner, len(scores)))
    assert computed.mean() == pytest.approx(summary["MeanR"])
    assert np.median(computed) == summary["MedR"]
    best = best_of_owners(scores, owner, len(scores))
    for row, line in enumerate(scores.tolist()):
        assert best[row].tolist() == [max(line[j] for j in own) for own in true]


def test_best_rank_without_ties_is_the_least_rank_of_the_true_sentences() -> None:
    rng = np.random.default_rng(3)
    owner = rng.permutation(np.repeat(np.arange(12), 5))
    scores = rng.standard_normal((12, 60)).astype(np.float32)
    for video in range(12):
        own_ranks = [
            ranks(scores[[video]], np.array([j]))[0] for j in np.flatnonzero(owner == video)
        ]
        assert best_true_ranks(scores, is_own(owner, len(scores)))[video] == min(own_ranks)


def test_a_videos_own_sentences_do_not_tie() -> None:
    scores = np.array([[5, 5, 5, 0], [0, 3, 0, 3]], np.float32)
    assert best_true_ranks(scores, is_own(np.array([0, 0, 0, 1]), 2)).tolist() == [1.0, 1.5]


def test_one_sentence_a_video_is_the_plain_rank() -> None:
    rng = np.random.default_rng(4)
    scores = rng.integers(-3, 4, (30, 30)).astype(np.float32)
    owner = np.arange(30)
    assert best_true_ranks(scores, is_own(owner, len(scores))).tolist() == ranks(scores).tolist()
    assert best_of_owners(scores, owner, 30).tolist() == scores.tolist()
    assert tied_queries(scores, owner) == tied_queries(scores)


def test_video_without_a_sentence_is_an_error() -> None:
    with pytest.raises(EmbeddingError, match="1 of 3 queries have no item"):
        best_true_ranks(np.ones((3, 4)), is_own(np.array([0, 2, 2, 0]), 3))


def test_best_ranks_of_scores_that_are_not_finite_raise() -> None:
    with pytest.raises(EmbeddingError, match="1 queries"):
        best_true_ranks(np.array([[1.0, np.nan], [1.0, 2.0]]), np.eye(2, dtype=bool))
