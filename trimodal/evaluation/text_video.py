"""Test sets of kind ``text_video``: text->video retrieval and the other directions, with an audit
(docs/method.md, Evaluation).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from trimodal.core.files import write_json, write_table, write_text
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.progress import log, summary_line
from trimodal.core.records import DataError, Query
from trimodal.core.shards import read_extents
from trimodal.data.clip_index import ClipTable, IndexedClip
from trimodal.data.shard_files import ReadShard
from trimodal.evaluation.audit import audit_counts, check_collapse, check_rows, geometry_of
from trimodal.evaluation.config import Protocol, TextVideoSet
from trimodal.evaluation.embedding import embed_clips, embed_sentences
from trimodal.evaluation.embeddings import Embeddings, Matrix, read_embeddings, write_embeddings
from trimodal.evaluation.hubs import bank_of, hub_metrics
from trimodal.evaluation.matching import MatchedVideos, match_videos
from trimodal.evaluation.metrics import (
    Metrics,
    audio_weight_curve,
    compute_metrics,
    demo_metrics,
    direction_ranks,
    text_to_video,
    video_ranks,
)
from trimodal.evaluation.oracle import read_ground_truth
from trimodal.evaluation.results import CURVE, EMBEDDINGS, METRICS, RANKS
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.sources.msrvtt import read_queries
from trimodal.training.distributed import World
from trimodal.training.leaks import Leaks, check_leaks, find_leaks


def evaluate_text_video(task: Task, test_set: TextVideoSet) -> None:
    """Embeds the test videos and sentences, ranks them and writes the results.

    Raises EmbeddingError for embeddings that are not finite or have collapsed (then embeddings and
    audit alone are written), and DataError for test videos that are in the training data, missing
    or repeated, and for shards that are not those of the index.
    """
    clips = task.clips()
    tested = _read_test_set(task, clips, Path(test_set.path))
    embeddings = _embeddings(task, clips, tested.matched)
    bank = bank_of(task)
    if task.world.is_main:
        _write_results(task, test_set, tested, embeddings, bank)


@dataclass(frozen=True, kw_only=True)
class _TestSet:
    """The test queries and clips, and what was left out or leaked."""

    matched: MatchedVideos
    bad_rows: Counter[str]
    leaks: Leaks


def _read_test_set(task: Task, clips: ClipTable, path: Path) -> _TestSet:
    queries, bad_rows = read_queries(path)
    leaked = find_leaks(task.inputs.av, task.inputs.images)
    leaked = leaked.among({query.video_id for query in queries})
    check_leaks("evaluate", leaked, task.leaks)
    matched = match_videos(
        queries,
        clips,
        leaked.videos if task.leaks.test_in_training == "leave_out" else (),
        task.config.min_coverage,
    )
    return _TestSet(matched=matched, bad_rows=bad_rows, leaks=leaked)


def _embeddings(task: Task, clips: ClipTable, matched: MatchedVideos) -> Embeddings:
    """Those of an earlier run if they are of the same videos, sentences and model."""
    identity = task.identity(
        queries=[[query.query_id, query.video_id, query.sentence] for query in matched.queries],
        data=data_fingerprint(task.inputs.av),
        frames_per_video=task.config.frames_per_video,
    )
    path = task.out / EMBEDDINGS
    if cached := task.on_all_ranks(read_embeddings(path, identity, matched.queries)):
        return cached
    embeddings = embed_test_set(
        task.network(),
        matched.queries,
        matched.clips,
        frames_per_video=task.config.frames_per_video,
        renormalise=task.config.renormalise,
        front_end=task.checkpoint.audio_front_end,
        augment=task.checkpoint.augment,
        world=task.world,
        read=task.open_shards(clips),
    )
    check_rows(embeddings)
    if task.world.is_main:
        write_embeddings(path, embeddings, identity)
    return embeddings


def embed_test_set(
    network: TrimodalNet,
    queries: Sequence[Query],
    clips: Sequence[IndexedClip],
    *,
    frames_per_video: int,
    renormalise: bool,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    world: World,
    read: ReadShard = read_extents,
) -> Embeddings:
    """Embeds sentences and videos as :func:`~trimodal.evaluation.embedding.embed_clips` does;
    ``clips`` are those of the queries, each once, in the order of their first query.
    """
    videos = embed_clips(
        network, clips, frames_per_video=frames_per_video, renormalise=renormalise,
        front_end=front_end, augment=augment, world=world, read=read,
    )  # fmt: skip
    sentences = [query.sentence for query in queries]
    return Embeddings(
        queries=tuple(queries),
        image=videos.image,
        audio=videos.audio,
        text=embed_sentences(network, sentences, world.device),
        has_audio=np.array([clip.has_audio for clip in clips]),
        padded_windows=videos.padded_windows,
    )


def _write_results(
    task: Task,
    test_set: TextVideoSet,
    tested: _TestSet,
    embeddings: Embeddings,
    bank: Matrix | None,
) -> None:
    """Writes the audit; then, if the embeddings have not collapsed, everything else."""
    config = task.config
    ranked = _apply_protocol(test_set.protocol, embeddings)
    geometry = geometry_of(ranked)
    counts = audit_counts(
        tested.matched, embeddings, ranked, tested.leaks, task.vocabulary, config.audio_weight
    )
    task.write_audit(
        {
            "protocol": test_set.protocol,
            "duplicates": test_set.duplicates,
            "audio_weight": config.audio_weight,
            "data": data_fingerprint(task.inputs.av),
            "test_csv": file_fingerprint(Path(test_set.path)),
            "bad_rows": tested.bad_rows.total(),
        },
        counts,
        {"geometry": geometry},
    )
    check_collapse(
        geometry,
        min_effective_rank=config.min_effective_rank,
        max_mean_cosine=config.max_mean_cosine,
    )
    metrics = _metrics(task, test_set, embeddings, ranked, bank)
    _write_ranks(task.out / RANKS, ranked, test_set, config.audio_weight)
    write_text(task.out / CURVE, audio_weight_curve(ranked, config.curve_steps))
    write_json(task.out / METRICS, metrics)
    silent = len(embeddings.image) - len(ranked.image)
    left_out = tested.bad_rows | tested.matched.left_out | {"without audio": silent}
    log.info(summary_line(_summary(task.name, ranked, metrics), left_out))


def _metrics(
    task: Task,
    test_set: TextVideoSet,
    embeddings: Embeddings,
    ranked: Embeddings,
    bank: Matrix | None,
) -> Metrics:
    config, truth_path = task.config, task.inputs.world / "truth.parquet"
    duplicates, resamples = test_set.duplicates, config.bootstrap_resamples
    metrics = compute_metrics(
        ranked,
        config.audio_weight,
        config.text_weight,
        duplicates=duplicates,
        resamples=resamples,
    )
    metrics["text_to_video"] |= hub_metrics(
        ranked.text,
        bank,
        lambda text: next(ranked.scores_of(text, (config.audio_weight,))),
        ranked.truth(duplicates),
        resamples,
    )
    other: Protocol = "authors" if test_set.protocol == "standard" else "standard"
    if embeddings.has_audio.sum() >= 2:
        metrics["other_protocol"] = text_to_video(
            _apply_protocol(other, embeddings),
            config.audio_weight,
            duplicates=duplicates,
            resamples=resamples,
        )
    if truth_path.exists() and len(ranked.queries) == len(ranked.image):
        ground_truth = read_ground_truth(truth_path)
        if {q.video_id for q in ranked.queries} <= {row.video_id for row in ground_truth}:
            metrics["demo"] = demo_metrics(ranked, ground_truth, config.audio_weight)
    return metrics


def _summary(name: str, ranked: Embeddings, metrics: Metrics) -> str:
    mixed = metrics["text_to_video"]["image_audio"]
    return (
        f"evaluate {name}: {len(ranked.queries)} queries over {len(ranked.image)} videos "
        f"({int((~ranked.has_audio).sum())} without audio), "
        f"R@1 {mixed['R@1']:.1f}, R@10 {mixed['R@10']:.1f}, MedR {mixed['MedR']:g} with audio"
    )


def _apply_protocol(protocol: Protocol, embeddings: Embeddings) -> Embeddings:
    if protocol == "standard":
        return embeddings
    if embeddings.has_audio.sum() < 2:
        raise DataError("evaluate: protocol authors: fewer than two test videos have audio")
    return embeddings.select(embeddings.has_audio)


def _write_ranks(
    path: Path, embeddings: Embeddings, test_set: TextVideoSet, audio_weight: float
) -> None:
    image, image_audio = video_ranks(
        embeddings, (0.0, audio_weight), duplicates=test_set.duplicates
    )
    directions = direction_ranks(embeddings, test_set.duplicates)
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
                **{
                    f"rank_{name}": pa.array(of_queries, mask=np.isnan(of_queries))
                    for name, of_queries in directions.items()
                },
            }
        ),
    )
