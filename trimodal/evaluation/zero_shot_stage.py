"""Test sets of kind ``zero_shot`` in stage ``evaluate`` (docs/zero-shot.md)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from trimodal.core.files import read_table
from trimodal.core.fingerprint import code_fingerprint
from trimodal.core.progress import log, summary_line
from trimodal.core.records import Split
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.storage import storage_path
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.evaluation.audit import Geometry, check_collapse, geometry_of_rows
from trimodal.evaluation.cache import matrix_of, read_cached, vector_column, write_cached
from trimodal.evaluation.caption_sets import content_fingerprint
from trimodal.evaluation.embedder import Embedder
from trimodal.evaluation.embedding import embed_clips
from trimodal.evaluation.results import EMBEDDINGS
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.evaluation.zero_shot import words_in
from trimodal.evaluation.zero_shot_items import (
    EmbeddedItems,
    ItemEmbeddings,
    LabelledItem,
    ZeroShotModel,
    embed_items,
)
from trimodal.evaluation.zero_shot_run import ZeroShotResult, run_zero_shot, write_zero_shot
from trimodal.evaluation.zero_shot_set import ZeroShotSet
from trimodal.training.distributed import World

# Beside that of every kind.
_EMBEDDING_CODE = (
    "trimodal.evaluation.embedder", "trimodal.evaluation.zero_shot_items", "trimodal.media.video",
)  # fmt: skip
_OF_YOUTUBE = ("vggsound", "audioset")
_ID_LENGTH = 11


def evaluate_zero_shot(task: Task, test_set: ZeroShotSet) -> None:
    """Classifies the items and writes the results. Rank 0 does it alone. Items that are clips of
    the training data are counted: no label is learned from.

    Raises what :func:`~trimodal.evaluation.zero_shot_run.run_zero_shot` does, and EmbeddingError
    for embeddings that have collapsed (then embeddings and audit alone are written).
    """
    if not task.world.is_main:
        return
    task = replace(task, world=World(device=task.world.device))
    model = zero_shot_model(task, test_set)
    result = run_zero_shot(
        task.name, test_set, model, lambda items: _embeddings(task, test_set, model, items)
    )
    geometry = _geometry(test_set, result.embeddings)
    training = training_counts(task.inputs.av, result.items["item"].to_pylist(), test_set)
    modality = {"modality": test_set.modality}
    task.write_audit(modality, result.audit, training, {"geometry": geometry})
    check_collapse(
        geometry,
        min_effective_rank=task.config.min_effective_rank,
        max_mean_cosine=task.config.max_mean_cosine,
    )
    write_zero_shot(task.out, result)
    log.info(summary_line(_summary(task.name, result), Counter(result.audit["left_out"])))


def zero_shot_model(task: Task, test_set: ZeroShotSet) -> ZeroShotModel:
    """The trained networks as a zero-shot test set needs them."""
    embedder = Embedder(task.network(), task.checkpoint, task.world.device)

    def of_clips(clips: Sequence[IndexedClip]) -> ItemEmbeddings:
        path, split = storage_path(test_set.path), cast(Split, test_set.split)
        embedded = embed_clips(
            embedder.network,
            clips,
            frames_per_video=task.config.frames_per_video,
            renormalise=task.config.renormalise,
            front_end=task.checkpoint.audio_front_end,
            augment=task.checkpoint.augment,
            world=task.world,
            read=task.open_shards(read_index(path, split, task.checkpoint.mel)),
        )
        has_audio = np.array([clip.has_audio for clip in clips])
        return ItemEmbeddings(image=embedded.image, audio=embedded.audio, has_audio=has_audio)

    return ZeroShotModel(
        embed_text=embedder.sentences,
        embed_images=embedder.pictures,
        embed_audio=embedder.sounds,
        embed_frames=embedder.frames,
        embed_clips=of_clips,
        frame_px=task.checkpoint.frame_px,
        mel=task.checkpoint.mel,
        words_of=words_in(task.vocabulary) if task.vocabulary else None,
    )


def _embeddings(
    task: Task, test_set: ZeroShotSet, model: ZeroShotModel, items: Sequence[LabelledItem]
) -> EmbeddedItems:
    """Those of an earlier run if they are of the same items and model, whatever the classes and
    prompts are.
    """
    of_shards = test_set.labels == "shards"
    identity = task.identity(
        items=[
            [
                item.name,
                "" if isinstance(item.media, IndexedClip) else content_fingerprint(item.media),
            ]
            for item in items
        ],
        modality=test_set.modality,
        data=data_fingerprint(storage_path(test_set.path)) if of_shards else "",
        frames_per_video=task.config.frames_per_video if of_shards else 0,
        reading=code_fingerprint(*_EMBEDDING_CODE),
    )
    path = task.out / EMBEDDINGS
    if cached := read_cached(path, identity):
        table = cached.table
        return EmbeddedItems(
            embeddings=ItemEmbeddings(
                image=matrix_of(table["image"]),
                audio=matrix_of(table["audio"]),
                has_audio=np.array(table["has_audio"].to_pylist(), bool),
            ),
            faults={row: why for row, why in enumerate(table["fault"].to_pylist()) if why},
        )
    embedded = embed_items(items, test_set.modality, model)
    if len(embedded.faults) < len(items):
        table = {
            "item": [item.name for item in items],
            "image": vector_column(embedded.embeddings.image),
            "audio": vector_column(embedded.embeddings.audio),
            "has_audio": pa.array(embedded.embeddings.has_audio),
            "fault": [embedded.faults.get(row, "") for row in range(len(items))],
        }
        write_cached(path, pa.table(table), identity, {})
    return embedded


def _geometry(test_set: ZeroShotSet, embeddings: ItemEmbeddings) -> Geometry:
    """Of the embeddings that count."""
    parts = {"image": embeddings.image, "audio": embeddings.audio[embeddings.has_audio]}
    unused = {"sound": "image", "picture": "audio"}.get(test_set.modality)
    return geometry_of_rows({name: rows for name, rows in parts.items() if name != unused})


def training_counts(av_dir: Path, names: Sequence[str], test_set: ZeroShotSet) -> dict[str, int]:
    """How many items are clips of the training split or of its YouTube videos, and how many of the
    validation split, which chooses the epoch. Sounds of other origin have no name in common.
    """
    columns = ["split", "clip_id", "youtube_id"]
    rows = read_table(av_dir / "index.parquet", AV_SCHEMA, columns=columns).to_pylist()
    video_of = {row["clip_id"]: row["youtube_id"] for row in rows}
    counts = {}
    for split, entry in (("train", "items_in_training"), ("val", "items_in_validation")):
        clips = {row["clip_id"] for row in rows if row["split"] == split}
        videos = {video_of[clip] for clip in clips} - {""}
        counts[entry] = sum(
            name in clips or _video(name, test_set, video_of) in videos for name in names
        )
    return counts


def _video(name: str, test_set: ZeroShotSet, video_of: dict[str, str]) -> str:
    if name in video_of:
        return video_of[name]
    return name[:_ID_LENGTH] if test_set.labels in _OF_YOUTUBE else ""


def _summary(name: str, result: ZeroShotResult) -> str:
    metrics, audit = result.metrics, result.audit
    top5 = f", top-5 {metrics['top5']:.1f}" if "top5" in metrics else ""
    unknown = (
        f", {len(audit['unknown_classes'])} of them unknown" if audit["unknown_classes"] else ""
    )
    return (
        f"evaluate {name}: {audit['items']} items, {audit['classes']} classes{unknown}: "
        f"top-1 {metrics['top1']:.1f}{top5}"
    )
