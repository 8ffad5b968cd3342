"""Retrieval figures against slow loops: silent videos, ties, protocols, the audit."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_fixtures import (
    KEYS,
    clip,
    close,
    config,
    dot,
    embeddings_of,
    queries_of,
    several_sentences,
    slow_summary,
    slow_text_to_video,
)

from trimodal import evaluation as module
from trimodal.embedding import Embeddings
from trimodal.embedding import MatchedVideos as VideosToTest
from trimodal.evaluation import (
    Outputs,
    audio_weight_curve,
    audit_counts,
    evaluate,
    measure,
    text_to_video,
)
from trimodal.records import DataError, Query
from trimodal.retrieval import EmbeddingError
from trimodal.text import build_vocabulary

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


# Audit


def test_audit_counts_by_hand() -> None:
    vocabulary = build_vocabulary({"dog": 1}, {"dog": np.ones(300, np.float32)})
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
    test = VideosToTest(
        queries=[], clips=[], asked_for=9, found=7, with_sound=6,
        left_out={"missing": 2, "seen in training": 1},
    )  # fmt: skip
    counts = audit_counts(test, everything, kept, {"video3", "elsewhere"}, vocabulary, config())
    assert counts == {
        "videos_asked_for": 9,
        "videos_found": 7,
        "videos_with_sound": 6,
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


# The whole stage around ready-made embeddings


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``evaluate`` with everything before the embeddings replaced."""
    (tmp_path / "test.csv").write_text("q")
    (tmp_path / "model").write_text("m")
    checkpoint = SimpleNamespace(
        mel=None, augment=None, epoch=3, loss=SimpleNamespace(margin_mode="fixed")
    )
    vocabulary = build_vocabulary({"dog": 1}, {"dog": np.ones(300, np.float32)})

    def run(e: Embeddings, protocol: str) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        stubs = {
            "read_checkpoint": checkpoint, "read_vocabulary": vocabulary,
            "read_queries": (list(e.queries), Counter({"msrvtt: empty sentence": 2})),
            "load_model": None, "file_fingerprint": "f", "embed_test_set": e,
        }  # fmt: skip
        for name, value in stubs.items():
            monkeypatch.setattr(module, name, lambda *_, _value=value, **__: _value)
        silent = {q.video_id for q, v in zip(e.queries, e.truth, strict=True) if not e.has_audio[v]}
        clips = [clip(name, sound=name not in silent) for name in {q.video_id for q in e.queries}]
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
    assert audit["videos_asked_for"] == audit["videos_found"] == 40
    assert audit["videos_with_sound"] == 37
    assert audit["bad_rows"] == 2
    mean = np.mean([row["rank_image_audio"] for row in ranks])
    assert mean == pytest.approx(metrics["text_to_video"]["image_audio"]["MeanR"])


def test_authors_protocol_without_sound_is_an_error(stage: Any) -> None:
    with pytest.raises(DataError, match=r"evaluate\.protocol authors"):
        stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "authors")


def test_standard_protocol_needs_no_sound(stage: Any) -> None:
    metrics, audit, _ = stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "standard")
    assert set(metrics["text_to_video"]["image"]) == KEYS
    assert audit["gallery_without_audio"] == 4


@pytest.mark.parametrize("protocol", ["standard", "authors"])
def test_several_sentences_a_video_are_queries_of_their_own(
    protocol: str, stage: Any, tmp_path: Path
) -> None:
    e = several_sentences(30, videos=9, dim=256, silent=(2, 6))
    metrics, audit, ranks = stage(e, protocol)
    kept = [i for i in range(30) if protocol == "standard" or e.has_audio[e.truth[i]]]
    gallery = 9 if protocol == "standard" else 7
    assert (audit["queries"], audit["gallery"]) == (len(kept), gallery)
    assert (audit["videos_asked_for"], audit["videos_found"], audit["videos_with_sound"]) == (
        9, 9, 7,
    )  # fmt: skip
    assert [row["query_id"] for row in ranks] == [e.queries[i].query_id for i in kept]
    assert [row["has_audio"] for row in ranks] == [bool(e.has_audio[e.truth[i]]) for i in kept]
    mean = np.mean([row["rank_image_audio"] for row in ranks])
    assert mean == pytest.approx(metrics["text_to_video"]["image_audio"]["MeanR"])
    assert max(row["rank_image"] for row in ranks) <= gallery
    embedded = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert [row["video_id"] for row in embedded] == [query.video_id for query in e.queries]
    assert [row["image"] for row in embedded] == e.image[e.truth].tolist()


def test_the_demos_oracle_needs_one_sentence_a_video(stage: Any, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.parquet").write_text("of other sentences")
    metrics, _, _ = stage(several_sentences(30, videos=9, dim=256), "standard")
    assert "demo" not in metrics
