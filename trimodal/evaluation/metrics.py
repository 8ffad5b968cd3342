"""From embeddings to metrics: text->video, the six directions, the demo's oracle (docs/method.md,
Evaluation). Scores are computed for one block of queries at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.embedding import Embeddings, Matrix
from trimodal.evaluation.oracle import GroundTruth, Oracle
from trimodal.evaluation.retrieval import (
    best_of_owners,
    best_ranks,
    mix,
    rank_bounds,
    ranks,
    row_blocks,
    similarity,
    summarise,
)

Metrics = dict[str, Any]
Ranks = npt.NDArray[np.float64]


def compute_metrics(embeddings: Embeddings, audio_weight: float, text_weight: float) -> Metrics:
    """Text->video with and without audio, all six directions, and audio->image mixed with text.

    Directions with audio are among the videos that have audio, and are left out if there are fewer
    than two. If a video has several sentences, each is a query; in ->text directions the rank is
    that of the video's best sentence, and audio->image is mixed with a video's best sentence.
    """
    metrics: Metrics = {"text_to_video": text_to_video(embeddings, audio_weight)}
    with_audio = embeddings.select(embeddings.has_audio)
    text, image, true_video = embeddings.text, embeddings.image, embeddings.true_video
    directions = {
        "text_to_image": _ranked(len(text), lambda rows: similarity(text[rows], image), true_video),
        "image_to_text": _best_ranked(image, text, true_video),
    }
    if len(with_audio.image) >= 2:
        videos = len(with_audio.image)
        directions |= {
            "text_to_audio": _ranked(
                len(with_audio.text),
                lambda rows: similarity(with_audio.text[rows], with_audio.audio),
                with_audio.true_video,
            ),
            "audio_to_text": _best_ranked(with_audio.audio, with_audio.text, with_audio.true_video),
            "image_to_audio": _ranked(
                videos, lambda rows: similarity(with_audio.image[rows], with_audio.audio)
            ),
            "audio_to_image": _ranked(
                videos, lambda rows: similarity(with_audio.audio[rows], with_audio.image)
            ),
        }
        mixed_ranks = _ranked(
            videos, lambda rows: _audio_to_image_with_text(with_audio, rows, text_weight)
        )
        metrics["audio_to_image_text"] = summarise(mixed_ranks)
    metrics["directions"] = {
        name: summarise(rank_of_query) for name, rank_of_query in directions.items()
    }
    return metrics


def _ranked(
    queries: int, scores: Callable[[slice], Matrix], true_items: npt.NDArray[np.int64] | None = None
) -> Ranks:
    """:func:`~trimodal.evaluation.retrieval.ranks` in blocks of queries."""
    columns = np.arange(queries) if true_items is None else true_items
    return np.concatenate([ranks(scores(rows), columns[rows]) for rows in row_blocks(queries)])


def _best_ranked(queries: Matrix, items: Matrix, owner: npt.NDArray[np.int64]) -> Ranks:
    """:func:`~trimodal.evaluation.retrieval.best_ranks` in blocks of queries."""
    return np.concatenate(
        [
            best_ranks(similarity(queries[rows], items), owner, rows.start)
            for rows in row_blocks(len(queries))
        ]
    )


def _audio_to_image_with_text(embeddings: Embeddings, rows: slice, text_weight: float) -> Matrix:
    by_sentence = similarity(embeddings.audio[rows], embeddings.text)
    by_text = best_of_owners(by_sentence, embeddings.true_video, len(embeddings.image))
    by_image = similarity(embeddings.audio[rows], embeddings.image)
    mixed: Matrix = mix(by_image, by_text, text_weight)
    return mixed


def text_to_video(embeddings: Embeddings, audio_weight: float) -> Metrics:
    """The paper's table 1: every sentence against all videos, by image alone and with audio."""
    image, image_audio = video_ranks(embeddings, (0.0, audio_weight))
    return {"image": summarise(image), "image_audio": summarise(image_audio)}


def demo_metrics(
    embeddings: Embeddings, ground_truth: tuple[GroundTruth, ...], audio_weight: float
) -> Metrics:
    """The demo's own metrics: the oracle's, and the model's on the captions that mention a sound.
    Every video has one sentence.
    """
    by_id = {row.video_id: row for row in ground_truth}
    rows = [by_id[query.video_id] for query in embeddings.queries]
    mentions_sound = np.array([bool(row.caption_heard) for row in rows])
    metrics: Metrics = {"oracle": _oracle_metrics(Oracle(rows), len(rows))}
    if mentions_sound.any():
        image, image_audio = video_ranks(embeddings, (0.0, audio_weight))[:, mentions_sound]
        metrics["sound_captions"] = {
            "queries": int(mentions_sound.sum()),
            "image": summarise(image),
            "image_audio": summarise(image_audio),
        }
    return metrics


def _oracle_metrics(oracle: Oracle, queries: int) -> Metrics:
    """By sense. There are many ties: they are broken at random, and 20 such draws are averaged."""
    blocks = [
        {
            sense: rank_bounds(scores, np.arange(rows.start, rows.stop))
            for sense, scores in oracle.scores(rows).items()
        }
        for rows in row_blocks(queries)
    ]
    rng = np.random.default_rng(0)
    metrics: Metrics = {}
    for sense in blocks[0]:
        best, worst = np.concatenate([block[sense] for block in blocks], axis=1)
        draws = [
            summarise(rng.integers(best, worst, endpoint=True).astype(np.float64))
            for _ in range(20)
        ]
        metrics[sense] = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
    return metrics


def audio_weight_curve(embeddings: Embeddings, steps: int) -> str:
    """CSV of R@1, R@5, R@10 and MedR by audio weight, 0..1: a diagnosis, not a way to choose it."""
    lines = ["audio_weight,R@1,R@5,R@10,MedR"]
    weights = [step / steps for step in range(steps + 1)]
    for weight, rank_of_query in zip(weights, video_ranks(embeddings, weights), strict=True):
        summary = summarise(rank_of_query)
        numbers = [summary[key] for key in ("R@1", "R@5", "R@10", "MedR")]
        lines.append(",".join(f"{number:g}" for number in (weight, *numbers)))
    return "\n".join(lines) + "\n"


def video_ranks(embeddings: Embeddings, audio_weights: Sequence[float]) -> Ranks:
    """The rank of each query's video by audio weight, (weights, queries)."""
    all_ranks = np.empty((len(audio_weights), len(embeddings.queries)))
    for rows in row_blocks(len(embeddings.queries)):
        by_weight = embeddings.scores(audio_weights, rows)
        all_ranks[:, rows] = [ranks(scores, embeddings.true_video[rows]) for scores in by_weight]
    return all_ranks
