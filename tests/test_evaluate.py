"""The evaluate stage around given embeddings: protocols, the audit, what is refused."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from configs import MACHINE
from data_fixtures import ENGLISH
from evaluation_fixtures import (
    KEYS,
    SET,
    clip_of,
    close,
    config,
    dot,
    embeddings_of,
    queries_of,
    several_sentences,
    slow_text_to_video,
    text_video,
)

from trimodal.core.config import ConfigError
from trimodal.core.records import DataError
from trimodal.core.text import build_vocabulary
from trimodal.data.clip_index import IndexedClip
from trimodal.evaluation import evaluate as module
from trimodal.evaluation import task as task_module
from trimodal.evaluation import text_video as kind_module
from trimodal.evaluation.embeddings import Embeddings
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.evaluation.task import Inputs
from trimodal.training.leaks import Leaks, LeaksConfig

NO_MATCHES: dict[Any, dict[str, str]] = {
    "same_clip": {}, "same_youtube_video": {}, "same_picture": {},
}  # fmt: skip
NO_LEAKS = Leaks(test_videos=frozenset(), by_reason=NO_MATCHES, unknown_origin=frozenset())
A_LEAK = Leaks(
    test_videos=frozenset(f"video{i}" for i in range(12)),
    by_reason=NO_MATCHES
    | {"same_clip": {"video3": "video3"}, "same_picture": {"video3": "b", "video5": "c"}},
    unknown_origin=frozenset(["video0", "video1"]),
)


class Clips(list[IndexedClip]):
    """In place of a ClipTable."""

    fingerprints: ClassVar[dict[Path, str]] = {}


@dataclass(kw_only=True)
class Checkpoint:
    """In place of the model's."""

    weights: str = "w"
    mel: Any = None
    audio_front_end: Any = None
    augment: Any = None
    epoch: int = 3
    loss: dict[str, str] = field(default_factory=lambda: {"margin_mode": "fixed"})


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``evaluate`` with everything before the embeddings replaced by stubs."""
    (tmp_path / "test.csv").write_text("q")
    (tmp_path / "model").write_text("m")
    vocabulary = build_vocabulary({"dog": 1}, {"dog": np.ones(300, np.float32)}, ENGLISH)

    def run(
        e: Embeddings,
        protocol: Any = "standard",
        leaks: Leaks = NO_LEAKS,
        policy: Any = "fail",
        *,
        duplicates: Any = "own",
        weights: str = "w",
        **changes: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
        stubs = {
            (module, "read_checkpoint"): Checkpoint(weights=weights),
            (module, "load_vocabulary"): vocabulary,
            (kind_module, "read_queries"): (
                list(e.queries), Counter({"msrvtt: empty sentence": 2}),
            ),
            (task_module, "load_model"): None,
            (task_module, "file_fingerprint"): "f",
            (kind_module, "file_fingerprint"): "f",
            (kind_module, "find_leaks"): leaks,
        }  # fmt: skip
        for (where, name), value in stubs.items():
            monkeypatch.setattr(where, name, lambda *_, _value=value, **__: _value)

        test_set = text_video(str(tmp_path / "test.csv"), protocol, duplicates)
        shared = {"frames_per_video": 3, "renormalise": True}
        settings = config(test_set, **(shared | changes))

        def embed(
            _network: Any, queries: Any, *_: Any,
            frames_per_video: int, renormalise: bool, **__: Any,
        ) -> Embeddings:  # fmt: skip
            assert (frames_per_video, renormalise) == (
                settings.frames_per_video, settings.renormalise,
            )  # fmt: skip
            embedded.append(len(queries))
            tested = {query.video_id for query in queries}
            order = dict.fromkeys(query.video_id for query in e.queries)
            return e.select(np.array([video in tested for video in order]))

        monkeypatch.setattr(kind_module, "embed_test_set", embed)
        silent = {
            q.video_id for q, v in zip(e.queries, e.true_video, strict=True) if not e.has_audio[v]
        }
        clips = Clips(
            clip_of(name, audio=name not in silent) for name in {q.video_id for q in e.queries}
        )
        monkeypatch.setattr(
            task_module, "read_index", lambda _, split, __: clips if split == "test" else []
        )
        monkeypatch.setattr(task_module, "open_shards", lambda *_, **__: None)
        inputs = Inputs(
            model=tmp_path / "model", av=tmp_path, captions=tmp_path, images=tmp_path,
            world=tmp_path / "world",
        )  # fmt: skip
        evaluate(
            SET, inputs, out, config=settings,
            leaks=LeaksConfig(test_in_training=policy), machine=MACHINE,
        )  # fmt: skip
        ranks = pq.read_table(out / "ranks.parquet").to_pylist()
        metrics, audit = ((out / f"{name}.json").read_text() for name in ("metrics", "audit"))
        return json.loads(metrics), json.loads(audit), ranks

    out = tmp_path / "out"
    embedded: list[int] = []
    run.embedded = embedded  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("protocol", ["standard", "authors"])
def test_both_protocols_match_slow_loops(protocol: str, stage: Any) -> None:
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
    directions = metrics["directions"]
    for name in ("text_to_audio", "audio_to_image", "image_to_audio"):
        of_direction = [row[f"rank_{name}"] for row in ranks if row[f"rank_{name}"] is not None]
        assert len(of_direction) == 37
        assert np.mean(of_direction) == pytest.approx(directions[name]["MeanR"])
    by_query = {row["query_id"]: row["rank_audio_to_image"] for row in ranks}
    with_audio = galleries["authors"]
    for video in with_audio:
        scores = {other: dot(e.audio[video], e.image[other]) for other in with_audio}
        own = scores[video]
        ties = sum(score == own for score in scores.values()) - 1
        expected = 1 + sum(score > own for score in scores.values()) + ties / 2
        assert by_query[f"r{video}"] == expected
    mean = np.mean([row["rank_image_audio"] for row in ranks])
    assert mean == pytest.approx(metrics["text_to_video"]["image_audio"]["MeanR"])


def test_authors_protocol_without_audio_is_an_error(stage: Any) -> None:
    with pytest.raises(DataError, match=r"protocol authors"):
        stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "authors")


def test_standard_protocol_does_not_need_audio(stage: Any) -> None:
    metrics, audit, _ = stage(embeddings_of(5, dim=256, silent=(0, 1, 2, 3)), "standard")
    assert set(metrics["text_to_video"]["image"]) == KEYS
    assert audit["gallery_without_audio"] == 4


@pytest.mark.parametrize("protocol", ["standard", "authors"])
def test_several_sentences_a_video_are_queries_of_their_own(
    protocol: str, stage: Any, tmp_path: Path
) -> None:
    e = several_sentences(30, videos=9, dim=256, silent=(2, 6))
    metrics, audit, ranks = stage(e, protocol)
    ranked = [i for i in range(30) if protocol == "standard" or e.has_audio[e.true_video[i]]]
    gallery = 9 if protocol == "standard" else 7
    assert (audit["queries"], audit["gallery"]) == (len(ranked), gallery)
    assert (audit["videos_asked_for"], audit["videos_found"], audit["videos_with_sound"]) == (
        9, 9, 7,
    )  # fmt: skip
    assert [row["query_id"] for row in ranks] == [e.queries[i].query_id for i in ranked]
    assert [row["has_audio"] for row in ranks] == [
        bool(e.has_audio[e.true_video[i]]) for i in ranked
    ]
    mean = np.mean([row["rank_image_audio"] for row in ranks])
    assert mean == pytest.approx(metrics["text_to_video"]["image_audio"]["MeanR"])
    assert max(row["rank_image"] for row in ranks) <= gallery
    embedded = pq.read_table(tmp_path / "out" / "embeddings.parquet").to_pylist()
    assert [row["video_id"] for row in embedded] == [query.video_id for query in e.queries]
    assert [row["image"] for row in embedded] == e.image[e.true_video].tolist()


def test_the_demos_oracle_needs_one_sentence_a_video(stage: Any, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.parquet").write_text("of other sentences")
    metrics, _, _ = stage(several_sentences(30, videos=9, dim=256), "standard")
    assert "demo" not in metrics


# What is refused


def output_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_leak_is_refused_and_an_earlier_runs_outputs_are_removed(
    stage: Any, tmp_path: Path
) -> None:
    stage(embeddings_of(12, dim=256), "standard")
    assert output_files(tmp_path) == [
        "audit.json", "curve.csv", "embeddings.parquet", "metrics.json", "ranks.parquet",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"evaluate: 2 of 12 test videos are in training"):
        stage(embeddings_of(12, dim=256), "standard", A_LEAK)
    assert output_files(tmp_path) == ["embeddings.parquet"]


@pytest.mark.parametrize(("policy", "gallery"), [("leave_out", 10), ("keep", 12)])
def test_leaked_videos_are_left_out_or_kept_and_counted(
    policy: str, gallery: int, stage: Any
) -> None:
    e = embeddings_of(12, dim=256)
    metrics, audit, ranks = stage(e, "standard", A_LEAK, policy)
    kept = [i for i in range(12) if policy == "keep" or i not in (3, 5)]
    assert [row["video_id"] for row in ranks] == [f"video{i}" for i in kept]
    selected = e.select(np.isin(np.arange(12), kept))
    expected = slow_text_to_video(selected, 0.25, list(range(gallery)))
    assert metrics["text_to_video"]["image_audio"] == close(expected)
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


def test_leaks_of_videos_outside_the_test_file_do_not_count(stage: Any) -> None:
    _, audit, _ = stage(embeddings_of(3, dim=256, silent=()), "standard", A_LEAK)
    assert audit["videos_in_training_same_picture"] == 0
    assert audit["test_videos_of_unknown_origin"] == 2


@pytest.mark.parametrize("part", ["image", "audio", "text"])
def test_collapse_leaves_the_audit_and_no_metrics(part: str, stage: Any, tmp_path: Path) -> None:
    stage(embeddings_of(12, dim=256), "standard")
    e = embeddings_of(12, dim=256)
    getattr(e, part)[:] = 1
    with pytest.raises(EmbeddingError, match=rf"{part} embeddings have collapsed.*rank 1\.000"):
        stage(e, "standard", weights="other")
    assert output_files(tmp_path) == ["audit.json", "embeddings.parquet"]
    geometry = json.loads((tmp_path / "out" / "audit.json").read_text())["geometry"]
    assert geometry[part]["mean_cosine"] == pytest.approx(1)
    assert all(geometry[other]["mean_cosine"] < 0.5 for other in geometry if other != part)


@pytest.mark.parametrize("part", ["image", "audio", "text"])
def test_rows_that_are_not_finite_are_refused_before_the_audit(
    part: str, stage: Any, tmp_path: Path
) -> None:
    e = embeddings_of(12, dim=256, silent=())
    getattr(e, part)[5, 7] = np.nan
    with pytest.raises(EmbeddingError, match=f"1 of 12 {part} embeddings are not finite"):
        stage(e, "standard")
    assert output_files(tmp_path) == []


# Embeddings that are kept


def test_another_protocol_or_weight_embeds_nothing_again(stage: Any) -> None:
    e = several_sentences(30, videos=9, dim=256, silent=(2, 6))
    first = stage(e)
    assert stage(e) == first
    metrics, _, _ = stage(e, "authors")
    assert metrics["text_to_video"] == first[0]["other_protocol"]
    _, audit, _ = stage(e, audio_weight=0.75, min_effective_rank=1.0, duplicates="any")
    assert audit["audio_weight"] == 0.75
    assert stage.embedded == [30]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "other"},
        {"frames_per_video": 4},
        {"renormalise": False},
        {"leaks": A_LEAK, "policy": "leave_out"},
    ],
)
def test_what_embeddings_are_of_embeds_again(change: dict[str, Any], stage: Any) -> None:
    e = embeddings_of(12, dim=256)
    stage(e)
    stage(e, **change)
    assert len(stage.embedded) == 2


def test_another_sentence_embeds_again(stage: Any) -> None:
    e = embeddings_of(12, dim=256)
    stage(e)
    stage(replace(e, queries=queries_of(12, sentence="a cat")))
    assert len(stage.embedded) == 2


def test_damaged_embeddings_are_made_again(stage: Any, tmp_path: Path) -> None:
    e = embeddings_of(12, dim=256)
    first = stage(e)
    path = tmp_path / "out" / "embeddings.parquet"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert stage(e) == first
    assert len(stage.embedded) == 2


def test_an_unknown_set_is_named_with_those_there_are(tmp_path: Path) -> None:
    inputs = Inputs(model=tmp_path, av=tmp_path, captions=tmp_path, images=tmp_path, world=tmp_path)
    with pytest.raises(ConfigError, match=r"has no 'nowhere' \(it has: tested, other\)"):
        evaluate(
            "nowhere", inputs, tmp_path, config=config(), machine=MACHINE,
            leaks=LeaksConfig(test_in_training="fail"),
        )  # fmt: skip
