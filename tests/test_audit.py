"""The audit's counts by hand; embeddings that are refused, and the messages."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from data_fixtures import ENGLISH
from evaluation_fixtures import embeddings_of, several_sentences

from trimodal.core.records import Query
from trimodal.core.text import build_vocabulary
from trimodal.evaluation.audit import (
    audit_counts,
    check_collapse,
    check_rows,
    geometry_of,
    identical_videos,
)
from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.geometry import effective_rank, mean_cosine
from trimodal.evaluation.matching import MatchedVideos
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.training.leaks import Leaks


def test_audit_counts_by_hand() -> None:
    vocabulary = build_vocabulary({"dog": 1}, {"dog": np.ones(300, np.float32)}, ENGLISH)
    sentences = ("a dog dog", "unicorn", "it is", "dog unicorn")
    eye = np.eye(4, dtype=np.float32)
    eye[3] = eye[2]  # queries 2 and 3 tie with each other's video
    ranked = Embeddings(
        queries=tuple(
            Query(query_id=f"r{i}", video_id=f"video{i}", sentence=s)
            for i, s in enumerate(sentences)
        ),
        image=eye, text=eye, audio=np.diag([1, 0, 1, 2]).astype(np.float32),
        has_audio=np.array([True, False, True, True]), padded_windows=5,
    )  # fmt: skip
    all_embeddings = embeddings_of(6)
    test = MatchedVideos(
        queries=[], clips=[], in_test_file=9, available=7, with_audio=6,
        left_out={"missing": 2, "seen in training": 1},
    )  # fmt: skip
    leaks = Leaks(
        test_videos=frozenset(f"video{i}" for i in range(7)),
        by_reason={
            "same_clip": {"video3": "video3"},
            "same_youtube_video": {},
            "same_picture": {"video3": "a", "video6": "b"},
        },
        unknown_origin=frozenset(f"video{i}" for i in range(5)),
    )
    counts = audit_counts(test, all_embeddings, ranked, leaks, vocabulary, 0.25)
    assert counts == {
        "videos_asked_for": 9,
        "videos_found": 7,
        "videos_with_sound": 6,
        "videos_missing": 2,
        "videos_in_training_same_clip": 1,
        "videos_in_training_same_youtube_video": 0,
        "videos_in_training_same_picture": 2,
        "test_videos_of_unknown_origin": 5,
        "videos_seen_in_training_left_out": 1,
        "videos_seen_in_training_kept": 1,
        "queries": 4,
        "distinct_sentences": 4,
        "gallery": 4,
        "gallery_without_audio": 1,
        "silent_videos_left_out": 2,
        "points_padded_with_silence": 3,
        "videos_with_identical_embedding": 0,
        "queries_tied_image": 2,
        "queries_tied_image_audio": 0,
        "unknown_word_share": pytest.approx(2 / 5),
        "queries_without_known_word": 2,
    }


def test_videos_are_identical_where_image_and_audio_are() -> None:
    e = embeddings_of(9, dim=8, silent=(7, 8))
    assert identical_videos(e) == 0
    e.image[4] = e.image[2]  # the same image, another audio
    e.audio[5] = e.audio[3]  # the same audio, another image
    assert identical_videos(e) == 0
    e.image[8] = e.image[7]
    assert identical_videos(e) == 2
    e.image[0] = e.image[1] = e.image[6]
    e.audio[0] = e.audio[1] = e.audio[6]
    assert identical_videos(e) == 5


# Rows


def test_valid_rows_pass() -> None:
    check_rows(embeddings_of(12, dim=64))
    check_rows(several_sentences(30, videos=9, dim=64, silent=(2, 6)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("part", "named"), [("image", "video4"), ("audio", "video4"), ("text", "r4")]
)
def test_rows_that_are_not_finite_are_named(part: str, named: str, value: float) -> None:
    e = embeddings_of(12, dim=64)
    for row in (9, 4):
        getattr(e, part)[row, 3] = value
    message = f"2 of 12 {part} embeddings are not finite, the first is that of {named}$"
    with pytest.raises(EmbeddingError, match=message):
        check_rows(e)


@pytest.mark.parametrize(
    ("part", "named"), [("image", "video2"), ("audio", "video2"), ("text", "r2")]
)
def test_rows_of_zeros_are_named(part: str, named: str) -> None:
    e = embeddings_of(12, dim=64)
    getattr(e, part)[2] = 0
    message = f"1 of 12 {part} embeddings are all zeros, the first is that of {named}$"
    with pytest.raises(EmbeddingError, match=message):
        check_rows(e)


def test_row_is_named_by_its_video_where_videos_have_several_sentences() -> None:
    e = several_sentences(30, videos=9, dim=64)
    order = list(dict.fromkeys(query.video_id for query in e.queries))
    e.image[5] = np.nan
    with pytest.raises(EmbeddingError, match=f"1 of 9 image .* {order[5]}$"):
        check_rows(e)
    text = e.text.copy()
    text[20] = np.nan
    e.image[5] = 1
    with pytest.raises(EmbeddingError, match=r"1 of 30 text .* s20$"):
        check_rows(replace(e, text=text))


# Geometry


def test_geometry_is_of_the_rows_in_use() -> None:
    e = several_sentences(30, videos=9, dim=16, silent=(2, 6))
    rows = {"image": e.image, "audio": e.audio[[0, 1, 3, 4, 5, 7, 8]], "text": e.text}
    assert geometry_of(e) == {
        name: {
            "rows": len(of),
            "effective_rank": pytest.approx(effective_rank(of)),
            "mean_cosine": pytest.approx(mean_cosine(of)),
        }
        for name, of in rows.items()
    }


def test_a_single_audio_row_has_no_geometry() -> None:
    assert set(geometry_of(embeddings_of(4, dim=16, silent=(0, 1, 2)))) == {"image", "text"}


def values(rows: int = 100, rank: float = 30.0, cosine: float = 0.1) -> dict[str, Any]:
    return {"rows": rows, "effective_rank": rank, "mean_cosine": cosine}


def refusal(modality: str, collapsed: dict[str, Any]) -> str:
    others = {"image": values(), "audio": values(), "text": values()}
    check_collapse(others, min_effective_rank=2.0, max_mean_cosine=0.99)
    with pytest.raises(EmbeddingError) as caught:
        check_collapse(others | {modality: collapsed}, min_effective_rank=2.0, max_mean_cosine=0.99)
    return str(caught.value)


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_collapse_is_reported_with_its_figures_and_bounds(modality: str) -> None:
    message = refusal(modality, values(rank=1.25, cosine=0.5))
    assert f"the 100 {modality} embeddings have collapsed" in message
    assert "effective rank 1.250, mean cosine 0.50000" in message
    assert "(evaluate.min_effective_rank is 2)" in message
    assert "max_mean_cosine" not in message
    message = refusal(modality, values(cosine=0.995))
    assert "effective rank 30.000, mean cosine 0.99500" in message
    assert "(evaluate.max_mean_cosine is 0.99)" in message
    assert "min_effective_rank" not in message
    assert " and evaluate.max_mean_cosine" in refusal(modality, values(rank=1.0, cosine=1.0))


def test_at_the_bounds_nothing_has_collapsed() -> None:
    geometry = {"image": values(rank=2.0, cosine=0.99)}
    check_collapse(geometry, min_effective_rank=2.0, max_mean_cosine=0.99)


def test_few_rows_are_judged_by_their_cosine_alone() -> None:
    few = {"audio": values(rows=3, rank=1.5)}
    check_collapse(few, min_effective_rank=2.0, max_mean_cosine=0.99)
    assert "min_effective_rank" in refusal("audio", values(rows=4, rank=1.5))
    assert "max_mean_cosine" in refusal("audio", values(rows=3, rank=1.5, cosine=1.0))


def test_random_embeddings_have_not_collapsed() -> None:
    rng = np.random.default_rng(0)
    e = embeddings_of(200, dim=256)
    rows = {
        name: rng.standard_normal((200, 256), np.float32) for name in ("image", "audio", "text")
    }
    check_collapse(geometry_of(replace(e, **rows)), min_effective_rank=100.0, max_mean_cosine=0.01)
