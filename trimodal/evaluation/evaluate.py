"""Zero-shot text->video retrieval and the other directions, with an audit (docs/method.md,
Evaluation).
"""

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, Share
from trimodal.core.files import check_writable, write_json, write_table, write_text
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import log, summary_line
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary
from trimodal.data.clip_index import ClipTable, read_index
from trimodal.data.shard_files import open_shards
from trimodal.evaluation.audit import audit_counts, check_collapse, check_rows, geometry_of
from trimodal.evaluation.embedding import (
    Embeddings,
    MatchedVideos,
    embed_test_set,
    match_videos,
    write_embeddings,
)
from trimodal.evaluation.metrics import (
    Metrics,
    audio_weight_curve,
    compute_metrics,
    demo_metrics,
    text_to_video,
    video_ranks,
)
from trimodal.evaluation.oracle import read_ground_truth
from trimodal.models.checkpoint import (
    Checkpoint,
    load_model,
    load_vocabulary,
    read_checkpoint,
)
from trimodal.models.devices import pick_device
from trimodal.sources.msrvtt import read_queries
from trimodal.training.distributed import World
from trimodal.training.leaks import Leaks, LeaksConfig, check_leaks, find_leaks

Protocol = Literal["standard", "authors"]


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class EvaluateConfig:
    """Section ``evaluate``. Protocol ``standard`` keeps every video and ranks a silent one by its
    image alone; ``authors`` leaves silent videos out. ``audio_weight`` is the weight of audio in
    text->video, ``text_weight`` that of text in audio->image (the authors' code: 0.2 and 0.3). The
    curve over the audio weight has ``curve_steps`` intervals. At least ``min_coverage`` of the test
    file's videos must be available. Embeddings with an effective rank below ``min_effective_rank``
    or a mean cosine above ``max_mean_cosine`` count as collapsed. A video's image and audio
    embeddings are means over ``frames_per_video`` frames and audio windows; with ``renormalise``
    they are normalised again (the authors' code does not).
    """

    test_csv: str
    protocol: Protocol
    frames_per_video: PositiveInt
    renormalise: bool
    audio_weight: Share
    text_weight: Share
    curve_steps: PositiveInt
    min_coverage: Share
    min_effective_rank: Annotated[float, Field(ge=1)]
    max_mean_cosine: Annotated[float, Field(ge=-1, le=1)]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The output files. ``metrics`` has finite numbers only, ``audit`` counts and fingerprints,
    ``curve`` R@K by audio weight.
    """

    embeddings: Path
    ranks: Path
    metrics: Path
    audit: Path
    curve: Path


def evaluate(
    model_dir: Path,
    av_dir: Path,
    images_dir: Path,
    world_dir: Path,
    outputs: Outputs,
    *,
    config: EvaluateConfig,
    leaks: LeaksConfig,
    machine: MachineConfig,
    world: World | None = None,
) -> None:
    """Embeds the test videos and sentences, ranks them and writes everything in ``outputs``.

    Raises EmbeddingError for embeddings that are not finite or have collapsed (only the audit is
    written then; an earlier run's outputs are removed first), and DataError for test videos that
    are in the training data, missing or repeated, and for shards that are not those of the index.
    All ranks of ``world`` call this and rank 0 writes; None is this process alone.
    """
    world = world or World(device=pick_device(machine.device))
    if world.is_main:
        for field in fields(outputs):
            path = getattr(outputs, field.name)
            path.unlink(missing_ok=True)
            check_writable(path)
    checkpoint = read_checkpoint(model_dir)
    vocabulary = load_vocabulary(model_dir, checkpoint)
    clips = read_index(av_dir, "test", checkpoint.mel)
    test_set = _read_test_set(clips, av_dir, images_dir, config, leaks)
    embeddings = embed_test_set(
        load_model(model_dir, checkpoint, vocabulary),
        test_set.matched.queries,
        test_set.matched.clips,
        frames_per_video=config.frames_per_video,
        renormalise=config.renormalise,
        front_end=checkpoint.audio_front_end,
        augment=checkpoint.augment,
        world=world,
        read=open_shards(
            clips.fingerprints,
            machine.shard_cache,
            local_rank=world.local_rank,
            local_size=world.local_size,
        ),
    )
    if world.is_main:
        check_rows(embeddings)
        provenance = _provenance(checkpoint, av_dir, config)
        truth_path = world_dir / "truth.parquet"
        _write_results(embeddings, test_set, vocabulary, provenance, truth_path, outputs, config)


@dataclass(frozen=True, kw_only=True)
class _TestSet:
    """The test queries and clips, and what was left out or leaked."""

    matched: MatchedVideos
    bad_rows: Counter[str]
    leaks: Leaks


def _read_test_set(
    clips: ClipTable,
    av_dir: Path,
    images_dir: Path,
    config: EvaluateConfig,
    leaks: LeaksConfig,
) -> _TestSet:
    queries, bad_rows = read_queries(Path(config.test_csv))
    leaked = find_leaks(av_dir, images_dir).among({query.video_id for query in queries})
    check_leaks("evaluate", leaked, leaks)
    matched = match_videos(
        queries,
        clips,
        leaked.videos if leaks.test_in_training == "leave_out" else (),
        config.min_coverage,
    )
    return _TestSet(matched=matched, bad_rows=bad_rows, leaks=leaked)


def _provenance(
    checkpoint: Checkpoint, av_dir: Path, config: EvaluateConfig
) -> dict[str, str | int | float]:
    return {
        "margin_mode": checkpoint.loss["margin_mode"],
        "protocol": config.protocol,
        "audio_weight": config.audio_weight,
        "epoch": checkpoint.epoch,
        "data": file_fingerprint(av_dir / "index.parquet"),
        "test_csv": file_fingerprint(Path(config.test_csv)),
        "model": checkpoint.weights,
    }


def _write_results(
    embeddings: Embeddings,
    test_set: _TestSet,
    vocabulary: Vocabulary | None,
    provenance: dict[str, str | int | float],
    truth_path: Path,
    outputs: Outputs,
    config: EvaluateConfig,
) -> None:
    """Writes the audit; then, if the embeddings have not collapsed, everything else."""
    ranked = _apply_protocol(config.protocol, embeddings)
    geometry = geometry_of(ranked)
    counts = audit_counts(
        test_set.matched, embeddings, ranked, test_set.leaks, vocabulary, config.audio_weight
    )
    bad_rows = test_set.bad_rows.total()
    write_json(outputs.audit, {**provenance, "bad_rows": bad_rows, **counts, "geometry": geometry})
    check_collapse(
        geometry,
        min_effective_rank=config.min_effective_rank,
        max_mean_cosine=config.max_mean_cosine,
    )
    metrics = _metrics(embeddings, ranked, truth_path, config)
    write_embeddings(outputs.embeddings, embeddings)
    _write_ranks(outputs.ranks, ranked, config.audio_weight)
    write_text(outputs.curve, audio_weight_curve(ranked, config.curve_steps))
    write_json(outputs.metrics, metrics)
    silent = len(embeddings.image) - len(ranked.image)
    left_out = test_set.bad_rows | test_set.matched.left_out | {"without audio": silent}
    log.info(summary_line(_summary(ranked, metrics), left_out))


def _metrics(
    embeddings: Embeddings, ranked: Embeddings, truth_path: Path, config: EvaluateConfig
) -> Metrics:
    metrics = compute_metrics(ranked, config.audio_weight, config.text_weight)
    other: Protocol = "authors" if config.protocol == "standard" else "standard"
    if embeddings.has_audio.sum() >= 2:
        metrics["other_protocol"] = text_to_video(
            _apply_protocol(other, embeddings), config.audio_weight
        )
    if truth_path.exists() and len(ranked.queries) == len(ranked.image):
        ground_truth = read_ground_truth(truth_path)
        metrics["demo"] = demo_metrics(ranked, ground_truth, config.audio_weight)
    return metrics


def _summary(ranked: Embeddings, metrics: Metrics) -> str:
    mixed = metrics["text_to_video"]["image_audio"]
    return (
        f"evaluate: {len(ranked.queries)} queries over {len(ranked.image)} videos "
        f"({int((~ranked.has_audio).sum())} without audio), "
        f"R@1 {mixed['R@1']:.1f}, R@10 {mixed['R@10']:.1f}, MedR {mixed['MedR']:g} with audio"
    )


def _apply_protocol(protocol: Protocol, embeddings: Embeddings) -> Embeddings:
    if protocol == "standard":
        return embeddings
    if embeddings.has_audio.sum() < 2:
        raise DataError("evaluate.protocol authors: fewer than two test videos have audio")
    return embeddings.select(embeddings.has_audio)


def _write_ranks(path: Path, embeddings: Embeddings, audio_weight: float) -> None:
    image, image_audio = video_ranks(embeddings, (0.0, audio_weight))
    write_table(
        path,
        pa.table(
            {
                "query_id": [query.query_id for query in embeddings.queries],
                "video_id": [query.video_id for query in embeddings.queries],
                "sentence": [query.sentence for query in embeddings.queries],
                "has_audio": pa.array(embeddings.has_audio[embeddings.true_video]),
                "rank_image": image,
                "rank_image_audio": image_audio,
            }
        ),
    )
