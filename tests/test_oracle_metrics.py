"""The demo's oracle beside the model, and the model on captions that mention a sound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evaluation_fixtures import queries_of

from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.metrics import demo_metrics, text_to_video
from trimodal.evaluation.oracle import GroundTruth


def ground_truth_and_a_perfect_model(count: int) -> tuple[tuple[GroundTruth, ...], Embeddings]:
    rng = np.random.default_rng(5)
    seen, sounds = (rng.random((count, 9)) < 0.4).astype(np.float32), np.eye(4, dtype=np.float32)
    heard = sounds[rng.integers(0, 4, count)]
    mentioned = seen * (rng.random(seen.shape) < 0.7)
    mentions_sound = np.arange(count) % 3 == 0

    def facts(row: Any, kind: str) -> tuple[str, ...]:
        return tuple(f"{kind}{i}" for i in np.flatnonzero(row))

    ground_truth = tuple(
        GroundTruth(
            video_id=f"video{i}", video_seen=facts(seen[i], "s"), video_heard=facts(heard[i], "h"),
            caption_seen=facts(mentioned[i], "s"),
            caption_heard=facts(heard[i], "h") if mentions_sound[i] else (), has_audio=True,
        )
        for i in range(count)
    )  # fmt: skip
    mentioned_sound = heard * mentions_sound[:, None]
    zeros = np.zeros_like
    e = Embeddings(
        queries=queries_of(count), text=np.hstack([mentioned, mentioned_sound]).astype(np.float32),
        image=np.hstack([seen, zeros(heard)]), audio=np.hstack([zeros(seen), heard]),
        has_audio=np.ones(count, bool), padded_windows=0,
    )  # fmt: skip
    return ground_truth, e


def test_a_perfect_model_scores_like_the_oracle() -> None:
    ground_truth, e = ground_truth_and_a_perfect_model(60)
    demo = demo_metrics(e, ground_truth[::-1], audio_weight=0.5)
    model = text_to_video(e, 0.5)
    for ours, name in (("image", "image"), ("image_audio", "both")):
        assert set(demo["oracle"][name]) == {"R@1", "R@5", "R@10", "MedR", "MeanR"}
        assert model[ours]["MeanR"] == pytest.approx(demo["oracle"][name]["MeanR"], rel=0.05)
        assert model[ours]["R@10"] == pytest.approx(demo["oracle"][name]["R@10"], abs=12)
    assert demo["oracle"]["both"]["MeanR"] < demo["oracle"]["image"]["MeanR"]
    assert demo["oracle"]["both"]["MeanR"] < demo["oracle"]["audio"]["MeanR"]


def test_sound_captions_are_ranked_among_all_videos() -> None:
    ground_truth, e = ground_truth_and_a_perfect_model(30)
    demo = demo_metrics(e, ground_truth, audio_weight=0.5)
    sound_captions = demo["sound_captions"]
    assert sound_captions["queries"] == 10
    scores = (e.text @ e.image.T).tolist()
    ranks = []
    for i in range(0, 30, 3):
        ties = sum(s == scores[i][i] for s in scores[i]) - 1
        ranks.append(1 + sum(s > scores[i][i] for s in scores[i]) + ties / 2)
    assert sound_captions["image"]["MeanR"] == pytest.approx(np.mean(ranks))
    assert sound_captions["image_audio"]["MeanR"] < sound_captions["image"]["MeanR"]


def test_oracle_is_the_same_twice() -> None:
    ground_truth, e = ground_truth_and_a_perfect_model(20)
    assert demo_metrics(e, ground_truth, 0.5) == demo_metrics(e, ground_truth, 0.5)


def test_without_captions_of_sounds_there_are_no_metrics_of_them() -> None:
    ground_truth, e = ground_truth_and_a_perfect_model(12)
    quiet = tuple(replace(row, caption_heard=()) for row in ground_truth)
    assert set(demo_metrics(e, quiet, 0.5)) == {"oracle"}
