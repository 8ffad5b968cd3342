"""Zero-shot text->video retrieval and its kin, with an audit (docs/method.md, Evaluation)."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, Share
from trimodal.core.files import write_json, write_table, write_text
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import log, summary_line
from trimodal.core.records import DataError
from trimodal.core.text import read_vocabulary
from trimodal.evaluation.audit import audit_counts, check_rows, check_spread, geometry
from trimodal.evaluation.embedding import Embeddings, embed_test_set, match_videos, write_embeddings
from trimodal.evaluation.metrics import (
    Metrics,
    against_oracle,
    audio_weight_curve,
    measure,
    text_to_video,
    video_ranks,
)
from trimodal.evaluation.oracle import load_truth
from trimodal.models.checkpoint import Checkpoint, load_model, read_checkpoint
from trimodal.models.devices import pick_device
from trimodal.sources.msrvtt import read_queries
from trimodal.training.clip_index import read_index
from trimodal.training.distributed import World
from trimodal.training.leaks import LeaksConfig, check_leaks, find_leaks

Protocol = Literal["standard", "authors"]


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class EvaluateConfig:
    """Section ``evaluate``. Protocol ``standard`` keeps every video and searches a silent one by
    its image alone; ``authors`` leaves silent videos out. ``audio_weight`` mixes text->video,
    ``text_weight`` audio->image (the authors' code: 0.2 and 0.3). The curve has ``curve_steps``
    intervals. At least ``min_coverage`` of the test file's videos must be there. Embeddings of an
    effective rank below ``min_effective_rank`` or a mean cosine above ``max_mean_cosine`` have
    collapsed. A video's image and audio embeddings are means over ``frames_per_video`` frames; with
    ``renormalise`` they are made unit vectors again (the authors' code does not).
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

    Raises EmbeddingError for embeddings that are not finite or have collapsed (the audit is written
    then, nothing else; an earlier run's outputs are removed first), DataError for test videos that
    are in training, missing or there twice. All ranks of ``world`` call this alike and the main
    one writes; None is this process alone.
    """
    world = world or World(device=pick_device(machine.device))
    if world.is_main:
        for field in fields(outputs):
            getattr(outputs, field.name).unlink(missing_ok=True)
    checkpoint = read_checkpoint(model_path)
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    asked, bad_rows = read_queries(Path(config.test_csv))
    leaked = find_leaks(av_dir, images_dir).among({query.video_id for query in asked})
    check_leaks("evaluate", leaked, leaks)
    test = match_videos(
        asked,
        read_index(av_dir, "test", checkpoint.mel),
        leaked.videos if leaks.test_in_training == "leave_out" else (),
        config.min_coverage,
    )
    embeddings = embed_test_set(
        load_model(model_path, checkpoint, vocabulary),
        vocabulary,
        test.queries,
        test.clips,
        frames_per_video=config.frames_per_video,
        renormalise=config.renormalise,
        front_end=checkpoint.audio_front_end,
        augment=checkpoint.augment,
        world=world,
    )
    if not world.is_main:
        return
    check_rows(embeddings)
    kept = _under(config.protocol, embeddings)
    spread = geometry(kept)
    audit = {
        **_made_from(checkpoint, model_path, av_dir, config),
        "bad_rows": bad_rows.total(),
        **audit_counts(test, embeddings, kept, leaked, vocabulary, config.audio_weight),
        "geometry": spread,
    }
    write_json(outputs.audit, audit)
    check_spread(
        spread,
        min_effective_rank=config.min_effective_rank,
        max_mean_cosine=config.max_mean_cosine,
    )
    metrics = _metrics(embeddings, kept, world_dir / "truth.parquet", config)
    write_embeddings(outputs.embeddings, embeddings)
    _write_ranks(outputs.ranks, kept, config.audio_weight)
    write_text(outputs.curve, audio_weight_curve(kept, config.curve_steps))
    write_json(outputs.metrics, metrics)
    silent = len(embeddings.image) - len(kept.image)
    log.info(
        summary_line(_made(kept, metrics), bad_rows | test.left_out | {"without sound": silent})
    )


def _made_from(
    checkpoint: Checkpoint, model_path: Path, av_dir: Path, config: EvaluateConfig
) -> dict[str, str | int | float]:
    return {
        "margin_mode": checkpoint.loss["margin_mode"],
        "protocol": config.protocol,
        "audio_weight": config.audio_weight,
        "epoch": checkpoint.epoch,
        "data": file_fingerprint(av_dir / "index.parquet"),
        "test_csv": file_fingerprint(Path(config.test_csv)),
        "model": file_fingerprint(model_path),
    }


def _metrics(
    embeddings: Embeddings, kept: Embeddings, truth: Path, config: EvaluateConfig
) -> Metrics:
    metrics = measure(kept, config.audio_weight, config.text_weight)
    other: Protocol = "authors" if config.protocol == "standard" else "standard"
    if embeddings.has_audio.sum() >= 2:
        metrics["other_protocol"] = text_to_video(_under(other, embeddings), config.audio_weight)
    if truth.exists() and len(kept.queries) == len(kept.image):
        metrics["demo"] = against_oracle(kept, load_truth(truth), config.audio_weight)
    return metrics


def _made(kept: Embeddings, metrics: Metrics) -> str:
    mixed = metrics["text_to_video"]["image_audio"]
    return (
        f"evaluate: {len(kept.queries)} queries over {len(kept.image)} videos "
        f"({int((~kept.has_audio).sum())} without sound), "
        f"R@1 {mixed['R@1']:.1f}, R@10 {mixed['R@10']:.1f}, MedR {mixed['MedR']:g} with audio"
    )


def _under(protocol: Protocol, embeddings: Embeddings) -> Embeddings:
    if protocol == "standard":
        return embeddings
    if embeddings.has_audio.sum() < 2:
        raise DataError("evaluate.protocol authors: fewer than two test videos have sound")
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
                "has_audio": pa.array(embeddings.has_audio[embeddings.truth]),
                "rank_image": image,
                "rank_image_audio": image_audio,
            }
        ),
    )
