"""Retrieval metrics of embeddings against slow loops: silent videos, ties, the six directions."""

import csv
import io
import math

import numpy as np
import pytest
from evaluation_fixtures import (
    KEYS,
    close,
    dot,
    embeddings_of,
    queries_of,
    slow_summary,
    slow_text_to_video,
)

from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.metrics import audio_weight_curve, compute_metrics, text_to_video
from trimodal.evaluation.retrieval import EmbeddingError


@pytest.mark.parametrize("seed", range(3))
def test_text_to_video_matches_slow_loops(seed: int) -> None:
    e = embeddings_of(seed=seed)
    all_videos = list(range(40))
    assert text_to_video(e, 0.25) == {
        "image": close(slow_text_to_video(e, 0.0, all_videos)),
        "image_audio": close(slow_text_to_video(e, 0.25, all_videos)),
    }


@pytest.mark.parametrize("count", [39, 40])
def test_directions_match_slow_loops(count: int) -> None:
    e = embeddings_of(count)
    metrics = compute_metrics(e, 0.25, 0.5)
    with_audio = [i for i in range(count) if e.has_audio[i]]
    parts = {"text": e.text, "image": e.image, "audio": e.audio}
    assert len(metrics["directions"]) == 6
    for name, summary in metrics["directions"].items():
        one, other = name.split("_to_")
        rows = with_audio if "audio" in name else list(range(count))
        scores = [[dot(parts[one][i], parts[other][j]) for j in rows] for i in rows]
        assert summary == close(slow_summary(scores)), name
    with_text = [
        [0.5 * dot(e.audio[i], e.image[j]) + 0.5 * dot(e.audio[i], e.text[j]) for j in with_audio]
        for i in with_audio
    ]
    assert metrics["audio_to_image_text"] == close(slow_summary(with_text))


def test_set_without_audio_has_no_directions_with_audio() -> None:
    metrics = compute_metrics(embeddings_of(5, silent=(0, 1, 2, 3, 4)), 0.25, 0.5)
    assert set(metrics["directions"]) == {"text_to_image", "image_to_text"}
    assert "audio_to_image_text" not in metrics
    assert metrics["text_to_video"]["image"] == metrics["text_to_video"]["image_audio"]


def perfect(count: int, silent: tuple[int, ...] = ()) -> Embeddings:
    eye = np.eye(count, dtype=np.float32)
    has_audio = ~np.isin(np.arange(count), silent)
    return Embeddings(
        queries=queries_of(count), image=eye, audio=eye * has_audio[:, None], text=eye,
        has_audio=has_audio, padded_windows=0,
    )  # fmt: skip


def test_perfect_embeddings_have_perfect_metrics() -> None:
    metrics = compute_metrics(perfect(12, silent=(3,)), 0.25, 0.5)
    best = dict.fromkeys(KEYS, 100.0) | {"MedR": 1.0, "MeanR": 1.0}
    assert metrics["text_to_video"] == {"image": best, "image_audio": best}
    assert all(summary == best for summary in metrics["directions"].values())


def test_constant_embeddings_score_as_random() -> None:
    ones = np.ones((21, 4), np.float32)
    e = Embeddings(
        queries=queries_of(21), image=ones, audio=ones, text=ones,
        has_audio=np.ones(21, bool), padded_windows=0,
    )  # fmt: skip
    random = {
        "R@1": 0.0, "R@5": 0.0, "R@10": 0.0, "R@50": 100.0, "MedR": 11.0, "MeanR": 11.0,
        "MRR": 100 / 11, "nDCG@10": 100 * sum(1 / math.log2(1 + n) for n in range(1, 11)) / 21,
    }  # fmt: skip
    assert text_to_video(e, 0.2) == {"image": close(random), "image_audio": close(random)}


@pytest.mark.parametrize("part", ["image", "audio", "text"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embedding_that_is_not_finite_is_an_error(part: str, value: float) -> None:
    e = embeddings_of(6, silent=())
    getattr(e, part)[2, 0] = value
    with np.errstate(invalid="ignore"), pytest.raises(EmbeddingError, match="not finite"):
        compute_metrics(e, 0.25, 0.5)


def test_curve_starts_at_the_image_alone_and_includes_the_metrics() -> None:
    e = embeddings_of()
    rows = list(csv.DictReader(io.StringIO(audio_weight_curve(e, 4))))
    assert [row["audio_weight"] for row in rows] == ["0", "0.25", "0.5", "0.75", "1"]
    for row in rows:
        expected = slow_text_to_video(e, float(row["audio_weight"]), list(range(40)))
        for key in ("R@1", "R@5", "R@10", "MedR"):
            assert float(row[key]) == pytest.approx(expected[key], rel=1e-5), row
    metric = text_to_video(e, 0.25)
    assert float(rows[0]["R@10"]) == pytest.approx(metric["image"]["R@10"])
    assert float(rows[1]["R@10"]) == pytest.approx(metric["image_audio"]["R@10"])
