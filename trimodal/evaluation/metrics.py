"""From embeddings to metrics: text->video, the six directions, the demo's oracle (docs/method.md,
Evaluation). Scores are computed for a block of queries at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.embedding import Embeddings, Matrix
from trimodal.evaluation.oracle import Oracle, TruthRow
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
RankRows = npt.NDArray[np.float64]


def measure(embeddings: Embeddings, audio_weight: float, text_weight: float) -> Metrics:
    """Text->video with and without audio, all six directions, and audio->image helped by text.

    Directions with audio are among the videos that have sound; a set without any has none. Where a
    video has several sentences, each is a query of its own; among the sentences a video finds the
    best of its own, and it is helped by that of its sentences which fits best.
    """
    metrics: Metrics = {"text_to_video": text_to_video(embeddings, audio_weight)}
    heard = embeddings.select(embeddings.has_audio)
    text, image, truth = embeddings.text, embeddings.image, embeddings.truth
    directions = {
        "text_to_image": _ranked(len(text), lambda rows: similarity(text[rows], image), truth),
        "image_to_text": _best_ranked(image, text, truth),
    }
    if len(heard.image) >= 2:
        videos = len(heard.image)
        directions |= {
            "text_to_audio": _ranked(
                len(heard.text), lambda rows: similarity(heard.text[rows], heard.audio), heard.truth
            ),
            "audio_to_text": _best_ranked(heard.audio, heard.text, heard.truth),
            "image_to_audio": _ranked(
                videos, lambda rows: similarity(heard.image[rows], heard.audio)
            ),
            "audio_to_image": _ranked(
                videos, lambda rows: similarity(heard.audio[rows], heard.image)
            ),
        }
        helped = _ranked(videos, lambda rows: _helped_by_text(heard, rows, text_weight))
        metrics["audio_to_image_text"] = summarise(helped)
    metrics["directions"] = {name: summarise(found) for name, found in directions.items()}
    return metrics


def _ranked(
    queries: int, scores: Callable[[slice], Matrix], truth: npt.NDArray[np.int64] | None = None
) -> RankRows:
    """:func:`~trimodal.evaluation.retrieval.ranks` in blocks of queries."""
    columns = np.arange(queries) if truth is None else truth
    return np.concatenate([ranks(scores(rows), columns[rows]) for rows in row_blocks(queries)])


def _best_ranked(queries: Matrix, items: Matrix, owner: npt.NDArray[np.int64]) -> RankRows:
    """:func:`~trimodal.evaluation.retrieval.best_ranks` in blocks of queries."""
    return np.concatenate(
        [
            best_ranks(similarity(queries[rows], items), owner, rows.start)
            for rows in row_blocks(len(queries))
        ]
    )


def _helped_by_text(heard: Embeddings, rows: slice, text_weight: float) -> Matrix:
    by_text = similarity(heard.audio[rows], heard.text)
    told = best_of_owners(by_text, heard.truth, len(heard.image))
    mixed: Matrix = mix(similarity(heard.audio[rows], heard.image), told, text_weight)
    return mixed


def text_to_video(embeddings: Embeddings, audio_weight: float) -> Metrics:
    """The paper's table: each sentence against all videos, by image alone and with audio."""
    image, image_audio = video_ranks(embeddings, (0.0, audio_weight))
    return {"image": summarise(image), "image_audio": summarise(image_audio)}


def against_oracle(
    embeddings: Embeddings, truth: tuple[TruthRow, ...], audio_weight: float
) -> Metrics:
    """The demo's own: an all-knowing observer's score beside the model's, and the model on the
    captions that mention a sound. Every video has one sentence.
    """
    by_id = {row.video_id: row for row in truth}
    rows = [by_id[query.video_id] for query in embeddings.queries]
    heard = np.array([bool(row.caption_heard) for row in rows])
    metrics: Metrics = {"oracle": _oracle_metrics(Oracle(rows), len(rows))}
    if heard.any():
        image, image_audio = video_ranks(embeddings, (0.0, audio_weight))[:, heard]
        metrics["sound_captions"] = {
            "queries": int(heard.sum()),
            "image": summarise(image),
            "image_audio": summarise(image_audio),
        }
    return metrics


def _oracle_metrics(oracle: Oracle, queries: int) -> Metrics:
    """By sense; ties, of which there are many, are broken at random 20 times and averaged."""
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
    """CSV of R@1, R@5, R@10 and MedR by audio weight 0..1: a diagnosis, not a way to choose."""
    lines = ["audio_weight,R@1,R@5,R@10,MedR"]
    weights = [step / steps for step in range(steps + 1)]
    for weight, found in zip(weights, video_ranks(embeddings, weights), strict=True):
        summary = summarise(found)
        numbers = [summary[key] for key in ("R@1", "R@5", "R@10", "MedR")]
        lines.append(",".join(f"{number:g}" for number in (weight, *numbers)))
    return "\n".join(lines) + "\n"


def video_ranks(embeddings: Embeddings, audio_weights: Sequence[float]) -> RankRows:
    """(weights, queries): the rank of each sentence's video."""
    found = np.empty((len(audio_weights), len(embeddings.queries)))
    for rows in row_blocks(len(embeddings.queries)):
        by_weight = embeddings.scores(audio_weights, rows)
        found[:, rows] = [ranks(scores, embeddings.truth[rows]) for scores in by_weight]
    return found
