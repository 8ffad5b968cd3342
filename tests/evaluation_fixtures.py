"""Small embeddings, and retrieval metrics computed by slow loops, for the tests of evaluation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configs import MACHINE, config_for_tests
from model_fixtures import Tool
from sklearn.metrics import ndcg_score
from training_fixtures import TinyData

from trimodal.core.records import Query
from trimodal.data.clip_index import IndexedClip
from trimodal.evaluation import task as task_module
from trimodal.evaluation.config import (
    Duplicates,
    EvaluateConfig,
    Protocol,
    TestSet,
    TextVideoSet,
)
from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.task import Inputs
from trimodal.training.leaks import LeaksConfig

KEYS = {"R@1", "R@5", "R@10", "R@50", "MedR", "MeanR", "MRR", "nDCG@10"}
SET = "tested"


def config(test_set: TestSet | None = None, **changes: Any) -> EvaluateConfig:
    """Section evaluate with the test set ``SET``, by default of videos and ``test.csv``."""
    sets = {SET: test_set or text_video("test.csv"), "other": text_video("no file.csv")}
    small = {"audio_weight": 0.25, "text_weight": 0.5, "curve_steps": 4, "bootstrap_resamples": 0}
    return config_for_tests(EvaluateConfig, sets=sets, **(small | changes))


def text_video(
    path: str, protocol: Protocol = "standard", duplicates: Duplicates = "own"
) -> TextVideoSet:
    return TextVideoSet(kind="text_video", path=path, protocol=protocol, duplicates=duplicates)


def queries_of(count: int, sentence: str = "a dog") -> tuple[Query, ...]:
    return tuple(
        Query(query_id=f"r{i}", video_id=f"video{i}", sentence=sentence) for i in range(count)
    )


def embeddings_of(
    count: int = 40, dim: int = 3, seed: int = 0, silent: tuple[int, ...] = (1, 4, 7)
) -> Embeddings:
    """Small integers: exact in float32, with many ties. Audio rows of silent videos are zero."""
    rng = np.random.default_rng(seed)
    image, audio, text = rng.integers(-3, 4, (3, count, dim)).astype(np.float32)
    has_audio = ~np.isin(np.arange(count), silent)
    return Embeddings(
        queries=queries_of(count), image=image, audio=audio * has_audio[:, None], text=text,
        has_audio=has_audio, padded_windows=3,
    )  # fmt: skip


def several_sentences(
    count: int, *, videos: int, dim: int = 3, seed: int = 0, silent: tuple[int, ...] = ()
) -> Embeddings:
    """As :func:`embeddings_of`, but ``count`` sentences, at least one a video, in mixed order."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation([*range(videos), *rng.integers(0, videos, count - videos)])
    e = embeddings_of(videos, dim, seed, silent)
    queries = tuple(
        Query(query_id=f"s{i}", video_id=f"video{video}", sentence="a dog")
        for i, video in enumerate(owner)
    )
    return replace(e, queries=queries, text=rng.integers(-3, 4, (count, dim)).astype(np.float32))


def slow_summary(scores: list[list[float]], true: list[set[int]] | None = None) -> dict[str, float]:
    """From the definition, query by query: 1 + greater + other ties / 2. With several true items,
    the rank of the best, with which the others do not tie. Without ``true`` they are the diagonal.
    """
    ranks = []
    for i, row in enumerate(scores):
        true_items = {i} if true is None else true[i]
        best = max(row[j] for j in true_items)
        greater = sum(score > best for score in row)
        ties = sum(score == best for j, score in enumerate(row) if j not in true_items)
        ranks.append(1 + greater + ties / 2)
    ordered = sorted(ranks)
    middle = len(ordered) // 2
    summary = {f"R@{k}": 100 * sum(r <= k for r in ranks) / len(ranks) for k in (1, 5, 10, 50)}
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    relevance = [
        [j == i if true is None else j in true[i] for j in range(len(row))]
        for i, row in enumerate(scores)
    ]
    return summary | {
        "MedR": median,
        "MeanR": sum(ranks) / len(ranks),
        "MRR": 100 * sum(1 / rank for rank in ranks) / len(ranks),
        # scikit-learn has none for a gallery of one item
        "nDCG@10": 100 * float(ndcg_score(relevance, scores, k=10)) if len(scores[0]) > 1 else 100,
    }


def dot(one: Any, other: Any) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def slow_text_to_video(e: Embeddings, weight: float, videos: list[int]) -> dict[str, float]:
    def score(query: int, video: int) -> float:
        by_image = dot(e.text[query], e.image[video])
        if not e.has_audio[video]:
            return by_image
        return (1 - weight) * by_image + weight * dot(e.text[query], e.audio[video])

    return slow_summary([[score(q, v) for v in videos] for q in videos])


def close(summary: dict[str, float]) -> Any:
    return pytest.approx(summary, abs=1e-6)


def clip_of(name: str, *, audio: bool = True) -> IndexedClip:
    return IndexedClip(
        shard=Path("test.tar"), clip_id=name, label="", duration_s=4.0, sound_s=4.0 * audio,
        frame_offsets=(0,), frame_sizes=(1,), mel_offset=0, top_db_offset=0,
        mel_columns=int(audio),
    )  # fmt: skip


def run(
    data: TinyData,
    tool: Tool,
    test_set: TestSet,
    out: Path,
    policy: Any = "fail",
    **changes: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and audit of an evaluation by the stage."""
    inputs = Inputs(
        model=tool.path, av=data.av_dir, captions=data.captions_dir, images=data.images_dir,
        world=out / "no world",
    )  # fmt: skip
    lenient = {"min_effective_rank": 1.0, "max_mean_cosine": 1.0}
    evaluate(
        SET, inputs, out, config=config(test_set, **(lenient | changes)),
        leaks=LeaksConfig(test_in_training=policy), machine=MACHINE,
    )  # fmt: skip
    return tuple(json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "audit"))


def forbid_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        pytest.fail("the networks were loaded")

    monkeypatch.setattr(task_module, "load_model", load)
