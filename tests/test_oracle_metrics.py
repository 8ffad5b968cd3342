"""The demo's oracle beside the model, and the model on sentences that mention a sound."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evaluation_fixtures import KEYS, queries_of

from trimodal.evaluation.embedding import Embeddings
from trimodal.evaluation.metrics import against_oracle, text_to_video
from trimodal.evaluation.oracle import TruthRow


def truth_and_a_model_that_knows_it(count: int) -> tuple[tuple[TruthRow, ...], Embeddings]:
    rng = np.random.default_rng(5)
    see, hear = (rng.random((count, 9)) < 0.4).astype(np.float32), np.eye(4, dtype=np.float32)
    heard = hear[rng.integers(0, 4, count)]
    told = see * (rng.random(see.shape) < 0.7)
    mentions = np.arange(count) % 3 == 0

    def facts(row: Any, kind: str) -> tuple[str, ...]:
        return tuple(f"{kind}{i}" for i in np.flatnonzero(row))

    truth = tuple(
        TruthRow(
            video_id=f"video{i}", video_seen=facts(see[i], "s"), video_heard=facts(heard[i], "h"),
            caption_seen=facts(told[i], "s"),
            caption_heard=facts(heard[i], "h") if mentions[i] else (), has_audio=True,
        )
        for i in range(count)
    )  # fmt: skip
    said = heard * mentions[:, None]
    none = np.zeros_like
    e = Embeddings(
        queries=queries_of(count), text=np.hstack([told, said]).astype(np.float32),
        image=np.hstack([see, none(heard)]), audio=np.hstack([none(see), heard]),
        has_audio=np.ones(count, bool), padded_points=0,
    )  # fmt: skip
    return truth, e


def test_model_that_knows_the_truth_scores_like_the_oracle() -> None:
    truth, e = truth_and_a_model_that_knows_it(60)
    demo = against_oracle(e, truth[::-1], audio_weight=0.5)
    model = text_to_video(e, 0.5)
    for ours, name in (("image", "image"), ("image_audio", "both")):
        assert set(demo["oracle"][name]) == KEYS
        assert model[ours]["MeanR"] == pytest.approx(demo["oracle"][name]["MeanR"], rel=0.05)
        assert model[ours]["R@10"] == pytest.approx(demo["oracle"][name]["R@10"], abs=12)
    assert demo["oracle"]["both"]["MeanR"] < demo["oracle"]["image"]["MeanR"]
    assert demo["oracle"]["both"]["MeanR"] < demo["oracle"]["audio"]["MeanR"]


def test_sound_captions_are_ranked_among_all_videos() -> None:
    truth, e = truth_and_a_model_that_knows_it(30)
    demo = against_oracle(e, truth, audio_weight=0.5)
    heard = demo["sound_captions"]
    assert heard["queries"] == 10
    scores = (e.text @ e.image.T).tolist()
    ranks = []
    for i in range(0, 30, 3):
        ties = sum(s == scores[i][i] for s in scores[i]) - 1
        ranks.append(1 + sum(s > scores[i][i] for s in scores[i]) + ties / 2)
    assert heard["image"]["MeanR"] == pytest.approx(np.mean(ranks))
    assert heard["image_audio"]["MeanR"] < heard["image"]["MeanR"]


def test_oracle_is_the_same_twice() -> None:
    truth, e = truth_and_a_model_that_knows_it(20)
    assert against_oracle(e, truth, 0.5) == against_oracle(e, truth, 0.5)


def test_sentences_without_a_sound_leave_no_empty_mean() -> None:
    truth, e = truth_and_a_model_that_knows_it(12)
    quiet = tuple(replace(row, caption_heard=()) for row in truth)
    assert set(against_oracle(e, quiet, 0.5)) == {"oracle"}
