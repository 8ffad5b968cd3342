"""Zero-shot text->video retrieval and its kin, with an audit (paper.md, Evaluation)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from trimodal.av_index import AvClip, read_index
from trimodal.checkpoint import load_model, read_checkpoint
from trimodal.demo.oracle import TruthRow, load_truth, oracle_scores
from trimodal.devices import Device, pick_device
from trimodal.embedding import Embeddings, Matrix, embed_test_set, write_embeddings
from trimodal.files import file_fingerprint, write_json, write_table, write_text
from trimodal.progress import closing_line, log
from trimodal.records import DataError, Query, Split
from trimodal.retrieval import mix, ranks, similarity, summarise, tied_queries
from trimodal.sources.msrvtt import read_queries
from trimodal.text import UNKNOWN_ID, Vocabulary, read_vocabulary, tokenise

Protocol = Literal["standard", "authors"]
Metrics = dict[str, Any]
_TRAINED_ON: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Section ``evaluate``. Protocol ``standard`` keeps every video and searches a silent one by
    its image alone; ``authors`` leaves silent videos out. ``audio_weight`` mixes text->video
    (paper.md: 0.2), ``text_weight`` audio->image (0.3). The curve has ``curve_steps`` intervals.
    ``leave_out_seen`` drops test videos that were trained on, counted in the audit.
    """

    test_csv: str
    protocol: Protocol
    points: int
    audio_weight: float
    text_weight: float
    curve_steps: int
    leave_out_seen: bool
    device: Device

    def __post_init__(self) -> None:
        if self.points < 1 or self.curve_steps < 1:
            raise ValueError("evaluate: points and curve_steps must be at least 1")
        if not (0.0 <= self.audio_weight <= 1.0 and 0.0 <= self.text_weight <= 1.0):
            raise ValueError("evaluate: audio_weight and text_weight lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class MatchedVideos:
    """Queries and their clips, row by row, and how many videos were left out and why."""

    queries: list[Query]
    clips: list[AvClip]
    left_out: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where an evaluation writes. ``metrics`` holds finite numbers only, ``audit`` counts and
    fingerprints, ``curve`` R@K by audio weight.
    """

    embeddings: Path
    ranks: Path
    metrics: Path
    audit: Path
    curve: Path


def evaluate(
    model_path: Path,
    av_dir: Path,
    captions_dir: Path,
    world_dir: Path,
    outputs: Outputs,
    config: EvaluateConfig,
) -> None:
    """Embeds the test videos and sentences, ranks them and writes everything in ``outputs``.

    Raises EmbeddingError for scores that are not finite, DataError if no video can be tested.
    """
    checkpoint = read_checkpoint(model_path)
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    asked = read_queries(Path(config.test_csv))
    trained = {
        clip.clip_id
        for part in (read_index(av_dir, split, checkpoint.mel) for split in _TRAINED_ON)
        for clip in part
    }
    test = match_videos(
        asked, read_index(av_dir, "test", checkpoint.mel), trained, config.leave_out_seen
    )
    embeddings = embed_test_set(
        load_model(model_path, checkpoint, vocabulary),
        vocabulary,
        test.queries,
        test.clips,
        points=config.points,
        mel=checkpoint.mel,
        augment=checkpoint.augment,
        device=pick_device(config.device),
    )
    kept = _under(config.protocol, embeddings)
    metrics = measure(kept, config)
    other: Protocol = "authors" if config.protocol == "standard" else "standard"
    if embeddings.has_audio.sum() >= 2:
        metrics["other_protocol"] = text_to_video(_under(other, embeddings), config.audio_weight)
    if (truth := world_dir / "truth.parquet").exists():
        metrics["demo"] = against_oracle(kept, load_truth(truth), config.audio_weight)
    audit = {
        "margin_mode": checkpoint.loss.margin_mode,
        "protocol": config.protocol,
        "audio_weight": config.audio_weight,
        "epoch": checkpoint.epoch,
        **audit_counts(asked, test, embeddings, kept, trained, vocabulary, config),
        "data": file_fingerprint(av_dir / "index.parquet"),
        "test_csv": file_fingerprint(Path(config.test_csv)),
        "model": file_fingerprint(model_path),
    }
    curve = audio_weight_curve(kept, config.curve_steps)
    write_embeddings(outputs.embeddings, embeddings)
    _write_ranks(outputs.ranks, kept, config.audio_weight)
    write_text(outputs.curve, curve)
    write_json(outputs.audit, audit)
    write_json(outputs.metrics, metrics)
    silent = len(embeddings.queries) - len(kept.queries)
    log.info(closing_line(_made(kept, metrics), test.left_out | {"without sound": silent}))


def _made(kept: Embeddings, metrics: Metrics) -> str:
    mixed = metrics["text_to_video"]["image_audio"]
    return (
        f"evaluate: {len(kept.queries)} queries over {len(kept.queries)} videos "
        f"({int((~kept.has_audio).sum())} without sound), "
        f"R@1 {mixed['R@1']:.1f}, R@10 {mixed['R@10']:.1f}, MedR {mixed['MedR']:g} with audio"
    )


def match_videos(
    queries: list[Query], clips: list[AvClip], trained: set[str], leave_out_seen: bool
) -> MatchedVideos:
    """Pairs each query with its video; a missing or trained-on video is left out and counted."""
    by_id = {clip.clip_id: clip for clip in clips}
    chosen: list[Query] = []
    left_out = {"missing": 0, "seen in training": 0}
    for query in queries:
        if query.video_id not in by_id:
            left_out["missing"] += 1
        elif leave_out_seen and query.video_id in trained:
            left_out["seen in training"] += 1
        else:
            chosen.append(query)
    if len(chosen) < 2:
        raise DataError(f"evaluate: {len(chosen)} test videos; left out: {left_out}")
    return MatchedVideos(
        queries=chosen, clips=[by_id[query.video_id] for query in chosen], left_out=left_out
    )


def measure(embeddings: Embeddings, config: EvaluateConfig) -> Metrics:
    """Text->video with and without audio, all six directions, and audio->image helped by text.

    Directions with audio are among the videos that have sound; a set without any has none.
    """
    metrics: Metrics = {"text_to_video": text_to_video(embeddings, config.audio_weight)}
    heard = embeddings.select(embeddings.has_audio)
    directions = {
        "text_to_image": (embeddings.text, embeddings.image),
        "image_to_text": (embeddings.image, embeddings.text),
    }
    if len(heard.queries) >= 2:
        directions |= {
            "text_to_audio": (heard.text, heard.audio),
            "audio_to_text": (heard.audio, heard.text),
            "image_to_audio": (heard.image, heard.audio),
            "audio_to_image": (heard.audio, heard.image),
        }
        helped = mix(
            similarity(heard.audio, heard.image),
            similarity(heard.audio, heard.text),
            config.text_weight,
        )
        metrics["audio_to_image_text"] = summarise(ranks(helped))
    metrics["directions"] = {
        name: summarise(ranks(similarity(*pair))) for name, pair in directions.items()
    }
    return metrics


def text_to_video(embeddings: Embeddings, audio_weight: float) -> Metrics:
    """The paper's table: each sentence against all videos, by image alone and with audio."""
    return {
        "image": summarise(ranks(_mixed(embeddings, 0.0))),
        "image_audio": summarise(ranks(_mixed(embeddings, audio_weight))),
    }


def against_oracle(
    embeddings: Embeddings, truth: tuple[TruthRow, ...], audio_weight: float
) -> Metrics:
    """The demo's own: an all-knowing observer's score beside the model's, and the model on the
    captions that mention a sound. The oracle's ties are broken at random, 20 times, and averaged.
    """
    by_id = {row.video_id: row for row in truth}
    rows = [by_id[query.video_id] for query in embeddings.queries]
    rng = np.random.default_rng(0)
    oracle: Metrics = {}
    for name, scores in oracle_scores(rows).items():
        draws = [summarise(ranks(scores + 0.5 * rng.random(scores.shape))) for _ in range(20)]
        oracle[name] = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
    heard = np.array([bool(row.caption_heard) for row in rows])
    metrics: Metrics = {"oracle": oracle}
    if heard.any():
        metrics["sound_captions"] = {
            "queries": int(heard.sum()),
            "image": summarise(ranks(_mixed(embeddings, 0.0))[heard]),
            "image_audio": summarise(ranks(_mixed(embeddings, audio_weight))[heard]),
        }
    return metrics


def audio_weight_curve(embeddings: Embeddings, steps: int) -> str:
    """CSV of R@1, R@5, R@10 and MedR by audio weight 0..1: a diagnosis, not a way to choose."""
    lines = ["audio_weight,R@1,R@5,R@10,MedR"]
    for step in range(steps + 1):
        weight = step / steps
        summary = summarise(ranks(_mixed(embeddings, weight)))
        numbers = [summary[key] for key in ("R@1", "R@5", "R@10", "MedR")]
        lines.append(",".join(f"{number:g}" for number in (weight, *numbers)))
    return "\n".join(lines) + "\n"


def audit_counts(
    asked: list[Query],
    test: MatchedVideos,
    embeddings: Embeddings,
    kept: Embeddings,
    trained: set[str],
    vocabulary: Vocabulary,
    config: EvaluateConfig,
) -> Mapping[str, int | float]:
    """What stands behind the numbers: how many videos were asked for, found, ranked, heard."""
    ids = [vocabulary.token_ids(tokenise(query.sentence)) for query in kept.queries]
    words = np.concatenate([row[row != 0] for row in ids]) if ids else np.zeros(0)
    return {
        "videos_asked_for": len(asked),
        "videos_missing": test.left_out["missing"],
        "videos_seen_in_training_left_out": test.left_out["seen in training"],
        "videos_seen_in_training_kept": sum(q.video_id in trained for q in kept.queries),
        "queries": len(kept.queries),
        "gallery": len(kept.queries),
        "gallery_without_audio": int((~kept.has_audio).sum()),
        "silent_videos_left_out": len(embeddings.queries) - len(kept.queries),
        "points_padded_with_silence": embeddings.padded_points,
        "queries_tied_image": tied_queries(_mixed(kept, 0.0)),
        "queries_tied_image_audio": tied_queries(_mixed(kept, config.audio_weight)),
        "unknown_word_share": float((words == UNKNOWN_ID).mean()) if len(words) else 0.0,
        "queries_without_known_word": sum(not (row > UNKNOWN_ID).any() for row in ids),
    }


def _under(protocol: Protocol, embeddings: Embeddings) -> Embeddings:
    if protocol == "standard":
        return embeddings
    if embeddings.has_audio.sum() < 2:
        raise DataError("evaluate.protocol authors: fewer than two test videos have sound")
    return embeddings.select(embeddings.has_audio)


def _mixed(embeddings: Embeddings, audio_weight: float) -> Matrix:
    scores: Matrix = mix(
        similarity(embeddings.text, embeddings.image),
        similarity(embeddings.text, embeddings.audio),
        audio_weight,
        embeddings.has_audio,
    )
    return scores


def _write_ranks(path: Path, embeddings: Embeddings, audio_weight: float) -> None:
    write_table(
        path,
        pa.table(
            {
                "query_id": [query.query_id for query in embeddings.queries],
                "video_id": [query.video_id for query in embeddings.queries],
                "sentence": [query.sentence for query in embeddings.queries],
                "has_audio": pa.array(embeddings.has_audio),
                "rank_image": ranks(_mixed(embeddings, 0.0)),
                "rank_image_audio": ranks(_mixed(embeddings, audio_weight)),
            }
        ),
    )
