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
from configs import MACHINE
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

from trimodal.core.records import DataError
from trimodal.core.text import build_vocabulary
from trimodal.evaluation import evaluate as module
from trimodal.evaluation.embedding import Embeddings
from trimodal.evaluation.evaluate import Outputs, evaluate
from trimodal.evaluation.metrics import audio_weight_curve, measure, text_to_video
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.training.leaks import Leaks, LeaksConfig

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
    metrics = measure(e, 0.25, 0.5)
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
    metrics = measure(embeddings_of(5, silent=(0, 1, 2, 3, 4)), 0.25, 0.5)
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
    metrics = measure(perfect(12, silent=(3,)), 0.25, 0.5)
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
        measure(e, 0.25, 0.5)


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


# The whole stage around ready-made embeddings


NOTHING: dict[Any, dict[str, str]] = {
    "same_clip": {}, "same_youtube_video": {}, "same_picture": {},
}  # fmt: skip
NO_LEAKS = Leaks(test_videos=frozenset(), by_reason=NOTHING, unknown_origin=frozenset())
A_LEAK = Leaks(
    test_videos=frozenset(f"video{i}" for i in range(12)),
    by_reason=NOTHING
    | {"same_clip": {"video3": "video3"}, "same_picture": {"video3": "b", "video5": "c"}},
    unknown_origin=frozenset(["video0", "video1"]),
)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``evaluate`` with everything before the embeddings replaced."""
    (tmp_path / "test.csv").write_text("q")
    (tmp_path / "model").write_text("m")
    checkpoint = SimpleNamespace(
        mel=None, audio_front_end=None, augment=None, epoch=3, loss={"margin_mode": "fixed"}
    )
    vocabulary = build_vocabulary({"dog": 1}, {"dog": np.ones(300, np.float32)})

    def run(
        e: Embeddings, protocol: str, found: Leaks = NO_LEAKS, policy: Any = "fail"
    ) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        stubs = {
            "read_checkpoint": checkpoint, "read_vocabulary": vocabulary,
            "read_queries": (list(e.queries), Counter({"msrvtt: empty sentence": 2})),
            "load_model": None, "file_fingerprint": "f", "find_leaks": found,
        }  # fmt: skip
        for name, value in stubs.items():
            monkeypatch.setattr(module, name, lambda *_, _value=value, **__: _value)

        settings = config(
            test_csv=str(tmp_path / "test.csv"),
            protocol=protocol,
            frames_per_video=3,
            renormalise=True,
        )

        def embed(
            _network: Any, _vocabulary: Any, queries: Any, *_: Any,
            frames_per_video: int, renormalise: bool, **__: Any,
        ) -> Embeddings:  # fmt: skip
            assert (frames_per_video, renormalise) == (
                settings.frames_per_video, settings.renormalise,
            )  # fmt: skip
            asked = {query.video_id for query in queries}
            order = dict.fromkeys(query.video_id for query in e.queries)
            return e.select(np.array([video in asked for video in order]))

        monkeypatch.setattr(module, "embed_test_set", embed)
        silent = {q.video_id for q, v in zip(e.queries, e.truth, strict=True) if not e.has_audio[v]}
        clips = [clip(name, sound=name not in silent) for name in {q.video_id for q in e.queries}]
        monkeypatch.setattr(
            module, "read_index", lambda _, split, __: clips if split == "test" else []
        )
        out = Outputs(
            embeddings=tmp_path / "e.parquet", ranks=tmp_path / "r.parquet",
            metrics=tmp_path / "m.json", audit=tmp_path / "a.json", curve=tmp_path / "c.csv",
        )  # fmt: skip
        evaluate(
            tmp_path / "model", tmp_path, tmp_path, tmp_path, tmp_path / "world", out,
            config=settings, leaks=LeaksConfig(test_in_training=policy), machine=MACHINE,
        )  # fmt: skip
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


# What is refused


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("test.csv", "model"))


def test_leak_is_refused_and_leaves_nothing_of_an_earlier_run(stage: Any, tmp_path: Path) -> None:
    stage(embeddings_of(12, dim=256), "standard")
    assert written(tmp_path) == ["a.json", "c.csv", "e.parquet", "m.json", "r.parquet"]
    with pytest.raises(DataError, match=r"evaluate: 2 of 12 test videos are in training"):
        stage(embeddings_of(12, dim=256), "standard", A_LEAK)
    assert written(tmp_path) == []


@pytest.mark.parametrize(("policy", "gallery"), [("leave_out", 10), ("keep", 12)])
def test_leaked_videos_are_left_out_or_kept_and_counted(
    policy: str, gallery: int, stage: Any
) -> None:
    e = embeddings_of(12, dim=256)
    metrics, audit, ranks = stage(e, "standard", A_LEAK, policy)
    kept = [i for i in range(12) if policy == "keep" or i not in (3, 5)]
    assert [row["video_id"] for row in ranks] == [f"video{i}" for i in kept]
    heard = e.select(np.isin(np.arange(12), kept))
    wanted = slow_text_to_video(heard, 0.25, list(range(gallery)))
    assert metrics["text_to_video"]["image_audio"] == close(wanted)
    counts = {name: audit[name] for name in audit if "training" in name or "origin" in name}
    assert counts == {
        "videos_in_training_same_clip": 1,
        "videos_in_training_same_youtube_video": 0,
        "videos_in_training_same_picture": 2,
        "test_videos_of_unknown_origin": 2,
        "videos_seen_in_training_left_out": 12 - gallery,
        "videos_seen_in_training_kept": gallery - 10,
    }
    assert audit["videos_found"] == 12
    assert audit["gallery"] == gallery


def test_leaks_of_videos_that_nobody_asks_for_do_not_count(stage: Any) -> None:
    _, audit, _ = stage(embeddings_of(3, dim=256, silent=()), "standard", A_LEAK)
    assert audit["videos_in_training_same_picture"] == 0
    assert audit["test_videos_of_unknown_origin"] == 2


@pytest.mark.parametrize("part", ["image", "audio", "text"])
def test_collapse_leaves_the_audit_and_no_metrics(part: str, stage: Any, tmp_path: Path) -> None:
    stage(embeddings_of(12, dim=256), "standard")
    e = embeddings_of(12, dim=256)
    getattr(e, part)[:] = 1
    with pytest.raises(EmbeddingError, match=rf"{part} embeddings have collapsed.*rank 1\.000"):
        stage(e, "standard")
    assert written(tmp_path) == ["a.json"]
    found = json.loads((tmp_path / "a.json").read_text())["geometry"]
    assert found[part]["mean_cosine"] == pytest.approx(1)
    assert all(found[other]["mean_cosine"] < 0.5 for other in found if other != part)


@pytest.mark.parametrize("part", ["image", "audio", "text"])
def test_rows_that_are_not_finite_are_refused_before_the_audit(
    part: str, stage: Any, tmp_path: Path
) -> None:
    e = embeddings_of(12, dim=256, silent=())
    getattr(e, part)[5, 7] = np.nan
    with pytest.raises(EmbeddingError, match=f"1 of 12 {part} embeddings are not finite"):
        stage(e, "standard")
    assert written(tmp_path) == []
