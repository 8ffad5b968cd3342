"""Retrieval figures against slow loops: silent videos, ties, protocols, the oracle, the audit."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimodal import evaluation as module
from trimodal.av_index import AvClip
from trimodal.demo.oracle import TruthRow
from trimodal.embedding import Embeddings, write_embeddings
from trimodal.evaluation import (
    EvaluateConfig,
    Outputs,
    against_oracle,
    audio_weight_curve,
    audit_counts,
    evaluate,
    match_videos,
    measure,
    text_to_video,
)
from trimodal.evaluation import MatchedVideos as VideosToTest
from trimodal.records import DataError, Query
from trimodal.retrieval import EmbeddingError
from trimodal.text import build_vocabulary

KEYS = {"R@1", "R@5", "R@10", "MedR", "MeanR"}


def config(**changes: Any) -> EvaluateConfig:
    values: dict[str, Any] = {
        "test_csv": "test.csv", "protocol": "standard", "points": 4, "audio_weight": 0.25,
        "text_weight": 0.5, "curve_steps": 4, "leave_out_seen": True, "device": "cpu",
    }  # fmt: skip
    return EvaluateConfig(**(values | changes))


def queries_of(count: int, sentence: str = "a dog") -> tuple[Query, ...]:
    return tuple(
        Query(query_id=f"r{i}", video_id=f"video{i}", sentence=sentence) for i in range(count)
    )


def embeddings_of(
    count: int = 40, dim: int = 3, seed: int = 0, silent: tuple[int, ...] = (1, 4, 7)
) -> Embeddings:
    """Small whole numbers: exact in float32, with many ties. Silent rows are zero."""
    rng = np.random.default_rng(seed)
    image, audio, text = rng.integers(-3, 4, (3, count, dim)).astype(np.float32)
    has_audio = ~np.isin(np.arange(count), silent)
    return Embeddings(
        queries=queries_of(count), image=image, audio=audio * has_audio[:, None], text=text,
        has_audio=has_audio, padded_points=3,
    )  # fmt: skip


def slow_summary(scores: list[list[float]]) -> dict[str, float]:
    """From the definition: 1 + greater + other ties / 2, query by query."""
    ranks = []
    for i, row in enumerate(scores):
        greater = sum(score > row[i] for score in row)
        ties = sum(score == row[i] for j, score in enumerate(row) if j != i)
        ranks.append(1 + greater + ties / 2)
    ordered = sorted(ranks)
    middle = len(ordered) // 2
    summary = {f"R@{k}": 100 * sum(r <= k for r in ranks) / len(ranks) for k in (1, 5, 10)}
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return summary | {"MedR": median, "MeanR": sum(ranks) / len(ranks)}


def dot(one: Any, other: Any) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def slow_text_to_video(e: Embeddings, weight: float, videos: list[int]) -> dict[str, float]:
    def score(query: int, video: int) -> float:
        seen = dot(e.text[query], e.image[video])
        if not e.has_audio[video]:
            return seen
        return (1 - weight) * seen + weight * dot(e.text[query], e.audio[video])

    return slow_summary([[score(q, v) for v in videos] for q in videos])


def close(summary: dict[str, float]) -> Any:
    return pytest.approx(summary, abs=1e-6)


# Matching


def clip(name: str) -> AvClip:
    return AvClip(
        shard=Path("test.tar"), clip_id=name, label="", duration_s=4.0, sound_s=4.0,
        frame_offsets=(0,), frame_sizes=(1,), mel_offset=0, mel_columns=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("leave_out_seen", "kept", "seen"), [(True, [0, 3], 1), (False, [0, 2, 3], 0)]
)
def test_missing_and_seen_videos_are_left_out_and_counted(
    leave_out_seen: bool, kept: list[int], seen: int
) -> None:
    clips = [clip(f"video{i}") for i in (3, 2, 0, 9)]
    test = match_videos(list(queries_of(4)), clips, {"video2", "video1", "other"}, leave_out_seen)
    assert [query.video_id for query in test.queries] == [f"video{i}" for i in kept]
    assert [found.clip_id for found in test.clips] == [f"video{i}" for i in kept]
    assert test.left_out == {"missing": 1, "seen in training": seen}


def test_fewer_than_two_videos_are_an_error_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"1 test videos.*'missing': 2"):
        match_videos(list(queries_of(3)), [clip("video1")], set(), True)


# Metrics


@pytest.mark.parametrize("seed", range(3))
def test_text_to_video_is_what_slow_loops_say(seed: int) -> None:
    e = embeddings_of(seed=seed)
    everything = list(range(40))
    assert text_to_video(e, 0.25) == {
        "image": close(slow_text_to_video(e, 0.0, everything)),
        "image_audio": close(slow_text_to_video(e, 0.25, everything)),
    }


@pytest.mark.parametrize("count", [39, 40])
def test_directions_are_what_slow_loops_say(count: int) -> None:
    e = embeddings_of(count)
    metrics = measure(e, config())
    heard = [i for i in range(count) if e.has_audio[i]]
    parts = {"text": e.text, "image": e.image, "audio": e.audio}
    assert len(metrics["directions"]) == 6
    for name, summary in metrics["directions"].items():
        one, other = name.split("_to_")
        rows = heard if "audio" in name else list(range(count))
        scores = [[dot(parts[one][i], parts[other][j]) for j in rows] for i in rows]
        assert summary == close(slow_summary(scores)), name
    helped = [
        [0.5 * dot(e.audio[i], e.image[j]) + 0.5 * dot(e.audio[i], e.text[j]) for j in heard]
        for i in heard
    ]
    assert metrics["audio_to_image_text"] == close(slow_summary(helped))


def test_set_without_sound_has_no_directions_with_audio() -> None:
    metrics = measure(embeddings_of(5, silent=(0, 1, 2, 3, 4)), config())
    assert set(metrics["directions"]) == {"text_to_image", "image_to_text"}
    assert "audio_to_image_text" not in metrics
    assert metrics["text_to_video"]["image"] == metrics["text_to_video"]["image_audio"]


def perfect(count: int, silent: tuple[int, ...] = ()) -> Embeddings:
    eye = np.eye(count, dtype=np.float32)
    has_audio = ~np.isin(np.arange(count), silent)
    return Embeddings(
        queries=queries_of(count), image=eye, audio=eye * has_audio[:, None], text=eye,
        has_audio=has_audio, padded_points=0,
    )  # fmt: skip


def test_perfect_embeddings_score_everything() -> None:
    metrics = measure(perfect(12, silent=(3,)), config())
    best = {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "MedR": 1.0, "MeanR": 1.0}
    assert metrics["text_to_video"] == {"image": best, "image_audio": best}
    assert all(summary == best for summary in metrics["directions"].values())


def test_constant_embeddings_are_not_flattered() -> None:
    ones = np.ones((21, 4), np.float32)
    e = Embeddings(
        queries=queries_of(21), image=ones, audio=ones, text=ones,
        has_audio=np.ones(21, bool), padded_points=0,
    )  # fmt: skip
    chance = {"R@1": 0.0, "R@5": 0.0, "R@10": 0.0, "MedR": 11.0, "MeanR": 11.0}
    assert text_to_video(e, 0.2) == {"image": chance, "image_audio": chance}


@pytest.mark.parametrize("part", ["image", "audio", "text"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embedding_that_is_not_finite_is_an_error(part: str, value: float) -> None:
    e = embeddings_of(6, silent=())
    getattr(e, part)[2, 0] = value
    with np.errstate(invalid="ignore"), pytest.raises(EmbeddingError, match="not finite"):
        measure(e, config())


def test_curve_begins_with_the_image_and_passes_the_metric() -> None:
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


# The demo's oracle


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


# Audit and files


def test_audit_counts_by_hand() -> None:
    vocabulary = build_vocabulary([["dog"]], {"dog": np.ones(300, np.float32)})
    asked = list(queries_of(9))
    sentences = ("a dog dog", "unicorn", "it is", "dog unicorn")
    eye = np.eye(4, dtype=np.float32)
    eye[3] = eye[2]  # queries 2 and 3 tie with each other's video
    kept = Embeddings(
        queries=tuple(
            Query(query_id=f"r{i}", video_id=f"video{i}", sentence=s)
            for i, s in enumerate(sentences)
        ),
        image=eye, text=eye, audio=np.diag([1, 0, 1, 2]).astype(np.float32),
        has_audio=np.array([True, False, True, True]), padded_points=5,
    )  # fmt: skip
    everything = embeddings_of(6)
    test = VideosToTest(queries=[], clips=[], left_out={"missing": 2, "seen in training": 1})
    counts = audit_counts(
        asked, test, everything, kept, {"video3", "elsewhere"}, vocabulary, config()
    )
    assert counts == {
        "videos_asked_for": 9,
        "videos_missing": 2,
        "videos_seen_in_training_left_out": 1,
        "videos_seen_in_training_kept": 1,
        "queries": 4,
        "gallery": 4,
        "gallery_without_audio": 1,
        "silent_videos_left_out": 2,
        "points_padded_with_silence": 3,
        "queries_tied_image": 2,
        "queries_tied_image_audio": 0,
        "unknown_word_share": pytest.approx(2 / 5),
        "queries_without_known_word": 2,
    }


def test_embeddings_are_written_with_null_audio_for_silent_videos(tmp_path: Path) -> None:
    e = embeddings_of(8, dim=256, silent=(2, 5))
    write_embeddings(tmp_path / "e.parquet", e)
    table = pq.read_table(tmp_path / "e.parquet")
    vector = pa.list_(pa.float32(), 256)
    assert {field.name: field.type for field in table.schema} == {
        "query_id": pa.string(), "video_id": pa.string(), "has_audio": pa.bool_(),
        "image": vector, "audio": vector, "text": vector,
    }  # fmt: skip
    rows = table.to_pylist()
    assert [row["audio"] is None for row in rows] == (~e.has_audio).tolist()
    assert [row["video_id"] for row in rows] == [f"video{i}" for i in range(8)]
    for part in ("image", "text", "audio"):
        for row, expected in zip(rows, getattr(e, part), strict=True):
            assert row[part] is None or row[part] == expected.tolist()


# The whole stage around ready-made embeddings


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``evaluate`` with everything before the embeddings replaced."""
    (tmp_path / "test.csv").write_text("q")
    (tmp_path / "model").write_text("m")
    checkpoint = SimpleNamespace(
        mel=None, augment=None, epoch=3, loss=SimpleNamespace(margin_mode="fixed")
    )
    vocabulary = build_vocabulary([["dog"]], {"dog": np.ones(300, np.float32)})

    def run(e: Embeddings, protocol: str) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        stubs = {
            "read_checkpoint": checkpoint, "read_vocabulary": vocabulary,
            "read_queries": list(e.queries), "load_model": None, "file_fingerprint": "f",
            "embed_test_set": e,
        }  # fmt: skip
        for name, value in stubs.items():
            monkeypatch.setattr(module, name, lambda *_, _value=value, **__: _value)
        clips = [clip(query.video_id) for query in e.queries]
        monkeypatch.setattr(
            module, "read_index", lambda _, split, __: clips if split == "test" else []
        )
        out = Outputs(
            embeddings=tmp_path / "e.parquet", ranks=tmp_path / "r.parquet",
            metrics=tmp_path / "m.json", audit=tmp_path / "a.json", curve=tmp_path / "c.csv",
        )  # fmt: skip
        settings = config(test_csv=str(tmp_path / "test.csv"), protocol=protocol)
        evaluate(tmp_path / "model", tmp_path, tmp_path, tmp_path / "world", out, settings)
        ranks = pq.read_table(out.ranks).to_pylist()
        return json.loads(out.metrics.read_text()), json.loads(out.audit.read_text()), ranks

    return run


@pytest.mark.parametrize("protocol", ["standard", "authors"])
def test_both_protocols_are_what_slow_loops_say(protocol: str, stage: Any) -> None:
    e = embeddings_of(40, dim=256)
    metrics, audit, ranks = stage(e, protocol)
    galleries = {
        "standard": list(range(40)),
        "authors": [i for i in range(40) if e.has_audio[i]],
    }
    other = "authors" if protocol == "standard" else "standard"
    for part, name in (("text_to_video", protocol), ("other_protocol", other)):
        for mode, weight in (("image", 0.0), ("image_audio", 0.25)):
            expected = slow_text_to_video(e, weight, galleries[name])
            assert metrics[part][mode] == close(expected)
    assert audit["gallery"] == len(ranks) == len(galleries[protocol])
    assert audit["silent_videos_left_out"] == 40 - len(galleries[protocol])
    mean = np.mean([row["rank_image_audio"] for row in ranks])
    assert mean == pytest.approx(metrics["text_to_video"]["image_audio"]["MeanR"])


def test_authors_protocol_without_sound_is_an_error(stage: Any) -> None:
    with pytest.raises(DataError, match=r"evaluate\.protocol authors"):
        stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "authors")


def test_standard_protocol_needs_no_sound(stage: Any) -> None:
    metrics, audit, _ = stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "standard")
    assert set(metrics["text_to_video"]["image"]) == KEYS
    assert audit["gallery_without_audio"] == 4


def test_sentences_without_a_sound_leave_no_empty_mean() -> None:
    truth, e = truth_and_a_model_that_knows_it(12)
    quiet = tuple(replace(row, caption_heard=()) for row in truth)
    assert set(against_oracle(e, quiet, 0.5)) == {"oracle"}
