"""The half-supervised method on 60 clips with audio and Flickr8k's captions, cross-validated over
clips: a clip is searched by networks that were not trained on it, among the clips of its fold.

Audio is learned from the other clips alone, without text; text and image from Flickr8k. The results
of a clip are means over divisions into folds; intervals and tests are over clips.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from benchmarks.measuring import say
from experiments.real.prepared import CaptionedClip, RealData
from experiments.real.recipes import (
    Moments,
    Recipe,
    best_recipe,
    moments_of,
    papers_recipe,
    train,
    with_margin,
)
from trimodal.core.text import Vocabulary
from trimodal.core.timing import evenly_spaced_positions
from trimodal.data.readers import read_windows
from trimodal.evaluation.retrieval import mix, ranks, similarity
from trimodal.models.networks import TrimodalNet
from trimodal.report.significance import PER_QUERY, paired_over_queries

Values = npt.NDArray[np.float64]  # (clips,)
Embeddings = npt.NDArray[np.float32]
FOLDS = 5
_FRAMES_PER_VIDEO = 4  # as in the authors' code
_AUDIO_WEIGHT = 0.2  # for text to video, as in the authors' code
SEARCHES = {
    "text_to_image": "text → video, image alone",
    "text_to_video": "text → video, image + audio",
    "text_to_audio": "text → audio",
    "audio_to_image": "audio → image",
    "image_to_audio": "image → audio",
}
METRICS = ("R@1", "R@5", "MeanR")


def run(
    data: RealData, seeds: Sequence[int], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Trains a model for each recipe, division and fold; prints the table and returns numbers.
    ``keep`` is given those of the recipes so far, after each.
    """
    moments = [moments_of(clip, data.front_end) for clip in data.clips]
    recipes = [with_margin(papers_recipe(), mode) for mode in ("fixed", "variable")]
    results: dict[str, dict[str, dict[str, Values]]] = {}
    for full in (*recipes, best_recipe()):
        recipe = replace(full, epochs=full.epochs // 2)  # to train all models within an hour
        began = time.monotonic()
        results[recipe.name] = _mean_over(
            [_cross_validate(recipe, data, moments, seed) for seed in seeds]
        )
        say(f"{recipe.name}: {FOLDS * len(seeds)} models, {time.monotonic() - began:.0f} s")
        keep({"divisions": len(seeds), "recipes": _all_intervals(results)})
    gallery = len(data.clips) // FOLDS
    tests = _tests(results, gallery)
    _print_table(results, gallery)
    say("\n| difference | metric | over clips |\n| --- | --- | --- |")
    for name, test in tests.items():
        say(f"| {name} | MeanR | {test} |")
    return {
        "clips": len(data.clips),
        "gallery": gallery,
        "divisions": len(seeds),
        "recipes": _all_intervals(results),
        "tests": tests,
    }


def folds(clips: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """The clips in random order, divided into folds of equal size, or differing by one."""
    return np.array_split(np.random.default_rng(seed).permutation(clips), FOLDS)


def _cross_validate(
    recipe: Recipe, data: RealData, moments: Sequence[Moments], seed: int
) -> dict[str, Values]:
    """By search: the rank of each clip's true item, (clips,)."""
    clip_ranks = {search: np.zeros(len(data.clips)) for search in SEARCHES}
    for fold in folds(len(data.clips), seed):
        training = [clip for row, clip in enumerate(moments) if row not in fold]
        network = train(recipe, data.train, data.vocabulary.vectors, seed, training)
        for search, values in _test(network, data, [data.clips[row] for row in fold]).items():
            clip_ranks[search][fold] = values
    return clip_ranks


@torch.inference_mode()
def _test(
    network: TrimodalNet, data: RealData, clips: Sequence[CaptionedClip]
) -> dict[str, Values]:
    text = network.text(_word_ids(clips, data.vocabulary)).numpy()
    means = [_mean_embeddings(network, clip, data) for clip in clips]
    image, audio = (np.stack(rows) for rows in zip(*means, strict=True))
    by_image, by_audio = similarity(text, image), similarity(text, audio)
    return {
        "text_to_image": ranks(by_image),
        "text_to_video": ranks(mix(by_image, by_audio, _AUDIO_WEIGHT)),
        "text_to_audio": ranks(by_audio),
        "audio_to_image": ranks(similarity(audio, image)),
        "image_to_audio": ranks(similarity(image, audio)),
    }


def _word_ids(clips: Sequence[CaptionedClip], vocabulary: Vocabulary) -> torch.Tensor:
    words = vocabulary.tokeniser.words
    rows = [vocabulary.token_ids(words(clip.query.sentence)) for clip in clips]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def _mean_embeddings(
    network: TrimodalNet, captioned: CaptionedClip, data: RealData
) -> tuple[Embeddings, Embeddings]:
    """The mean image and the mean audio embedding of a clip's evenly spaced frames and of the
    windows centred on them, as in the evaluate stage.
    """
    clip, front_end = captioned.clip, data.front_end
    duration = min(clip.sound_s, clip.duration_s)
    positions = evenly_spaced_positions(
        clip.frames, duration, front_end.window.seconds, _FRAMES_PER_VIDEO
    )
    centres = [position.centre_seconds for position in positions]
    windows, _ = read_windows([clip] * len(positions), centres, front_end)
    rows = [position.frame - 1 for position in positions]
    features = torch.from_numpy(captioned.features[rows, 0]).float()
    image, audio = network.image.from_features(features), network.audio(windows)
    return image.mean(dim=0).numpy(), audio.mean(dim=0).numpy()


def _mean_over(divisions: Sequence[Mapping[str, Values]]) -> dict[str, dict[str, Values]]:
    """By search and metric: each clip's value, the mean over divisions."""
    return {
        search: {
            metric: np.mean([PER_QUERY[metric](d[search]) for d in divisions], axis=0)
            for metric in METRICS
        }
        for search in SEARCHES
    }


def _all_intervals(results: Mapping[str, Mapping[str, Mapping[str, Values]]]) -> dict[str, Any]:
    return {name: _intervals(values) for name, values in results.items()}


def _intervals(
    values: Mapping[str, Mapping[str, Values]],
) -> dict[str, dict[str, dict[str, float]]]:
    """By search and metric: the mean over clips and its 95 % interval (bootstrap)."""
    return {
        search: {metric: _interval(of_clips) for metric, of_clips in by_metric.items()}
        for search, by_metric in values.items()
    }


def _interval(of_clips: Values) -> dict[str, float]:
    interval = stats.bootstrap(
        (of_clips,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    return {
        "mean": float(of_clips.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _tests(
    results: Mapping[str, Mapping[str, Mapping[str, Values]]], gallery: int
) -> dict[str, str]:
    """Tests of the mean rank: with against without audio, against chance, and the margins."""
    tests = {}
    chance = np.full(len(next(iter(results.values()))["text_to_video"]["MeanR"]), (gallery + 1) / 2)
    for name, values in results.items():
        rank = {search: by_metric["MeanR"] for search, by_metric in values.items()}
        tests[f"{name}: with against without sound"] = str(
            paired_over_queries(rank["text_to_image"], rank["text_to_video"])
        )
        for search in ("text_to_audio", "audio_to_image", "image_to_audio"):
            tests[f"{name}: {SEARCHES[search]} against chance"] = str(
                paired_over_queries(chance, rank[search])
            )
    fixed, variable, _ = results.values()
    for search, description in SEARCHES.items():
        tests[f"variable against fixed: {description}"] = str(
            paired_over_queries(fixed[search]["MeanR"], variable[search]["MeanR"])
        )
    return tests


def _print_table(results: Mapping[str, Mapping[str, Mapping[str, Values]]], gallery: int) -> None:
    chance = f"R@1 {100 / gallery:.1f}, R@5 {500 / gallery:.1f}, MeanR {(gallery + 1) / 2}"
    say(f"\nAmong {gallery} clips (chance: {chance}); 95 % intervals over clips:\n")
    say(f"| recipe | search | {' | '.join(METRICS)} |\n| --- | --- |{' ---: |' * len(METRICS)}")
    for name, values in results.items():
        for search, by_metric in _intervals(values).items():
            cells = [
                f"{by_metric[m]['mean']:.1f} ({by_metric[m]['low']:.1f} to "
                f"{by_metric[m]['high']:.1f})"
                for m in METRICS
            ]
            say(f"| {name} | {SEARCHES[search]} | {' | '.join(cells)} |")
