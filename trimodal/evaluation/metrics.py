"""From embeddings to metrics: text->video, the six directions, the demo's oracle (docs/method.md,
Evaluation). Scores are computed for one block of queries at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.config import Duplicates
from trimodal.evaluation.embeddings import Embeddings, Matrix
from trimodal.evaluation.measures import Measured, measure, sum_of_recalls
from trimodal.evaluation.oracle import GroundTruth, Oracle
from trimodal.evaluation.retrieval import (
    Truth,
    best_of_owners,
    best_true_ranks,
    mix,
    rank_bounds,
    rank_queries,
    row_blocks,
    similarity,
    summarise,
    truth_of,
)

Metrics = dict[str, Any]
Ranks = npt.NDArray[np.float64]


def compute_metrics(
    embeddings: Embeddings,
    audio_weight: float,
    text_weight: float,
    *,
    duplicates: Duplicates = "own",
    resamples: int = 0,
) -> Metrics:
    """Text->video with and without audio, all six directions, audio->image mixed with text, and
    rsum of each pair of directions. Intervals come from ``resamples`` of the queries.

    Directions with audio are among the videos that have audio, and are left out if there are fewer
    than two. If a video has several sentences, each is a query; in ->text directions the rank is
    that of the video's best sentence, and audio->image is mixed with a video's best sentence. With
    ``duplicates: any`` an equal sentence of another video is as right as an own one.
    """
    with_audio = embeddings.select(embeddings.has_audio)
    measured = both_ways(
        "text", "image", embeddings.text, embeddings.image, embeddings.truth(duplicates), resamples
    )
    metrics: Metrics = {
        "text_to_video": text_to_video(
            embeddings, audio_weight, duplicates=duplicates, resamples=resamples
        )
    }
    if len(with_audio.image) >= 2:
        text, image, audio = with_audio.text, with_audio.image, with_audio.audio
        itself = truth_of(np.arange(len(image)), [])
        measured |= both_ways("text", "audio", text, audio, with_audio.truth(duplicates), resamples)
        measured |= both_ways("image", "audio", image, audio, itself, resamples)
        mixed = rank_queries(
            lambda rows: _audio_to_image_with_text(with_audio, rows, text_weight), itself
        )
        metrics["audio_to_image_text"] = measure(mixed, resamples).summary()
    metrics["directions"] = {name: of.summary() for name, of in measured.items()}
    metrics["rsum"] = rsums(measured)
    return metrics


def direction_ranks(embeddings: Embeddings, duplicates: Duplicates) -> dict[str, Ranks]:
    """Of each direction with audio, (queries,): the rank of a query's own sound, and, on the row of
    a video's first query, that of its picture by its sound and of its sound by its picture. NaN
    where there is none, and nothing at all with fewer than two videos that have audio.
    """
    with_audio = embeddings.select(embeddings.has_audio)
    if len(with_audio.image) < 2:
        return {}
    has_audio = embeddings.has_audio[embeddings.true_video]
    first_rows = np.unique(embeddings.true_video, return_index=True)[1][embeddings.has_audio]
    itself = truth_of(np.arange(len(with_audio.image)), [])
    image, audio, text = with_audio.image, with_audio.audio, with_audio.text
    found = {
        "text_to_audio": (has_audio, text, audio, with_audio.truth(duplicates)),
        "audio_to_image": (first_rows, audio, image, itself),
        "image_to_audio": (first_rows, image, audio, itself),
    }
    ranks: dict[str, Ranks] = {}
    for name, (rows, one, other, truth) in found.items():
        ranks[name] = np.full(len(embeddings.queries), np.nan)
        ranks[name][rows] = _ranks(one, other, truth)
    return ranks


def _ranks(one: Matrix, other: Matrix, truth: Truth) -> Ranks:
    return rank_queries(lambda rows: similarity(one[rows], other), truth).ranks


def both_ways(
    first: str, second: str, one: Matrix, other: Matrix, truth: Truth, resamples: int
) -> dict[str, Measured]:
    """Both directions between two modalities by name; ``truth`` is (rows of one, rows of other)."""
    there = rank_queries(lambda rows: similarity(one[rows], other), truth)
    back = rank_queries(lambda rows: similarity(other[rows], one), truth.T.tocsr())
    return {
        f"{first}_to_{second}": measure(there, resamples),
        f"{second}_to_{first}": measure(back, resamples),
    }


def rsums(measured: Mapping[str, Measured]) -> Metrics:
    """The sum of recalls of each pair of opposite directions."""
    sums: Metrics = {}
    for name, there in measured.items():
        first, second = name.split("_to_")
        if f"{second}_{first}" not in sums:
            back = measured[f"{second}_to_{first}"]
            sums[f"{first}_{second}"] = sum_of_recalls(there, back).summary()
    return sums


def _audio_to_image_with_text(embeddings: Embeddings, rows: slice, text_weight: float) -> Matrix:
    by_sentence = similarity(embeddings.audio[rows], embeddings.text)
    by_text = best_of_owners(by_sentence, embeddings.true_video, len(embeddings.image))
    by_image = similarity(embeddings.audio[rows], embeddings.image)
    mixed: Matrix = mix(by_image, by_text, text_weight)
    return mixed


def text_to_video(
    embeddings: Embeddings,
    audio_weight: float,
    *,
    duplicates: Duplicates = "own",
    resamples: int = 0,
) -> Metrics:
    """The paper's table 1: every sentence against all videos, by image alone and with audio."""
    truth = embeddings.truth(duplicates)

    def by_weight(weight: float) -> Metrics:
        ranking = rank_queries(lambda rows: next(embeddings.scores((weight,), rows)), truth)
        return measure(ranking, resamples).summary()

    return {"image": by_weight(0.0), "image_audio": by_weight(audio_weight)}


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


def video_ranks(
    embeddings: Embeddings, audio_weights: Sequence[float], *, duplicates: Duplicates = "own"
) -> Ranks:
    """The rank of each query's video by audio weight, (weights, queries)."""
    truth = embeddings.truth(duplicates)
    all_ranks = np.empty((len(audio_weights), len(embeddings.queries)))
    for rows in row_blocks(len(embeddings.queries)):
        is_true = truth[rows].toarray()
        by_weight = embeddings.scores(audio_weights, rows)
        all_ranks[:, rows] = [best_true_ranks(scores, is_true) for scores in by_weight]
    return all_ranks
