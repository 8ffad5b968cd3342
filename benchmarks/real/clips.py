"""The half-supervised whole on 60 clips with sound and Flickr8k's captions, cross-validated over
clips: a clip is searched by networks that never saw it, among the clips of its fold.

A clip's sound is learned from the other clips alone, without a word; text and image from Flickr8k.
A clip's results are means over its divisions; intervals and tests draw clips.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from trimodal.training.datasets import read_windows

from benchmarks.measuring import say
from benchmarks.real.prepared import RealData, SeenClip
from benchmarks.real.recipes import (
    Moments,
    Recipe,
    best_recipe,
    moments_of,
    papers_recipe,
    train,
    with_margin,
)
from trimodal.core.text import Vocabulary, tokenise
from trimodal.core.timing import evenly_spaced_positions
from trimodal.evaluation.retrieval import mix, ranks, similarity
from trimodal.models.networks import TrimodalNet
from trimodal.report.significance import PER_QUERY, paired_over_queries

Values = npt.NDArray[np.float64]  # (clips,)
Points = npt.NDArray[np.float32]
FOLDS = 5
_POINTS = 4
_AUDIO_WEIGHT = 0.2  # the paper's, for text to video
SEARCHES = {
    "text_to_image": "text → video, image alone",
    "text_to_video": "text → video, image + audio",
    "text_to_audio": "text → audio",
    "audio_to_image": "audio → image",
    "image_to_audio": "image → audio",
}
METRICS = ("R@1", "R@5", "MeanR")


def run(data: RealData, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains a model for each recipe, division and fold; prints the table and returns numbers."""
    moments = [moments_of(seen, data.mel) for seen in data.clips]
    recipes = [with_margin(papers_recipe(), mode) for mode in ("fixed", "variable")]
    found = {}
    for whole in (*recipes, best_recipe()):
        recipe = replace(whole, epochs=whole.epochs // 2)  # so many models have an hour
        began = time.monotonic()
        found[recipe.name] = _mean_over(
            [_cross_validated(recipe, data, moments, seed) for seed in seeds]
        )
        say(f"{recipe.name}: {FOLDS * len(seeds)} models, {time.monotonic() - began:.0f} s")
    gallery = len(data.clips) // FOLDS
    tests = _tests(found, gallery)
    _say(found, gallery)
    say("\n| difference | metric | over clips |\n| --- | --- | --- |")
    for name, told in tests.items():
        say(f"| {name} | MeanR | {told} |")
    return {
        "clips": len(data.clips),
        "gallery": gallery,
        "divisions": len(seeds),
        "recipes": {name: _intervals(values) for name, values in found.items()},
        "tests": tests,
    }


def folds(clips: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """The clips in another order, dealt into folds of the same size; a remainder is dealt too."""
    return np.array_split(np.random.default_rng(seed).permutation(clips), FOLDS)


def _cross_validated(
    recipe: Recipe, data: RealData, moments: Sequence[Moments], seed: int
) -> dict[str, Values]:
    """Search: the rank of each clip's true item, (clips,)."""
    ranked = {search: np.zeros(len(data.clips)) for search in SEARCHES}
    for tested in folds(len(data.clips), seed):
        seen = [clip for row, clip in enumerate(moments) if row not in tested]
        network = train(recipe, data.train, data.vocabulary.vectors, seed, seen)
        for search, values in _test(network, data, [data.clips[row] for row in tested]).items():
            ranked[search][tested] = values
    return ranked


@torch.inference_mode()
def _test(network: TrimodalNet, data: RealData, clips: Sequence[SeenClip]) -> dict[str, Values]:
    text = network.text(_word_ids(clips, data.vocabulary)).numpy()
    means = [_means(network, seen, data) for seen in clips]
    image, audio = (np.stack(rows) for rows in zip(*means, strict=True))
    by_image, by_audio = similarity(text, image), similarity(text, audio)
    return {
        "text_to_image": ranks(by_image),
        "text_to_video": ranks(mix(by_image, by_audio, _AUDIO_WEIGHT)),
        "text_to_audio": ranks(by_audio),
        "audio_to_image": ranks(similarity(audio, image)),
        "image_to_audio": ranks(similarity(image, audio)),
    }


def _word_ids(clips: Sequence[SeenClip], vocabulary: Vocabulary) -> torch.Tensor:
    rows = [vocabulary.token_ids(tokenise(seen.query.sentence)) for seen in clips]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def _means(network: TrimodalNet, seen: SeenClip, data: RealData) -> tuple[Points, Points]:
    """The mean image and the mean audio embedding of moments spread over a clip, as evaluate's."""
    clip, mel = seen.clip, data.mel
    duration = min(clip.sound_s, clip.duration_s)
    points = evenly_spaced_positions(clip.frames, duration, mel.window_seconds, _POINTS)
    windows, _ = read_windows([clip] * len(points), [p.centre_seconds for p in points], mel)
    features = torch.from_numpy(seen.features[[p.frame - 1 for p in points], 0]).float()
    image, audio = network.image.from_features(features), network.audio(windows)
    return image.mean(dim=0).numpy(), audio.mean(dim=0).numpy()


def _mean_over(divisions: Sequence[Mapping[str, Values]]) -> dict[str, dict[str, Values]]:
    """Search, metric: each clip's value, the mean over divisions."""
    return {
        search: {
            metric: np.mean([PER_QUERY[metric](d[search]) for d in divisions], axis=0)
            for metric in METRICS
        }
        for search in SEARCHES
    }


def _intervals(
    values: Mapping[str, Mapping[str, Values]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Search, metric: the mean over clips and its 95 % interval (bootstrap)."""
    return {
        search: {metric: _interval(of_clips) for metric, of_clips in by_metric.items()}
        for search, by_metric in values.items()
    }


def _interval(of_clips: Values) -> dict[str, float]:
    drawn = stats.bootstrap(
        (of_clips,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    return {"mean": float(of_clips.mean()), "low": float(drawn.low), "high": float(drawn.high)}


def _tests(found: Mapping[str, Mapping[str, Mapping[str, Values]]], gallery: int) -> dict[str, str]:
    """Of mean rank, which every clip moves: with against without sound, against chance, margins."""
    tests = {}
    chance = np.full(len(next(iter(found.values()))["text_to_video"]["MeanR"]), (gallery + 1) / 2)
    for name, values in found.items():
        rank = {search: by_metric["MeanR"] for search, by_metric in values.items()}
        tests[f"{name}: with against without sound"] = str(
            paired_over_queries(rank["text_to_image"], rank["text_to_video"])
        )
        for search in ("text_to_audio", "audio_to_image", "image_to_audio"):
            tests[f"{name}: {SEARCHES[search]} against chance"] = str(
                paired_over_queries(chance, rank[search])
            )
    fixed, variable, _ = found.values()
    for search, told in SEARCHES.items():
        tests[f"variable against fixed: {told}"] = str(
            paired_over_queries(fixed[search]["MeanR"], variable[search]["MeanR"])
        )
    return tests


def _say(found: Mapping[str, Mapping[str, Mapping[str, Values]]], gallery: int) -> None:
    chance = f"R@1 {100 / gallery:.1f}, R@5 {500 / gallery:.1f}, MeanR {(gallery + 1) / 2}"
    say(f"\nAmong {gallery} clips (chance: {chance}); 95 % intervals over clips:\n")
    say(f"| recipe | search | {' | '.join(METRICS)} |\n| --- | --- |{' ---: |' * len(METRICS)}")
    for name, values in found.items():
        for search, by_metric in _intervals(values).items():
            cells = [
                f"{by_metric[m]['mean']:.1f} ({by_metric[m]['low']:.1f} to "
                f"{by_metric[m]['high']:.1f})"
                for m in METRICS
            ]
            say(f"| {name} | {SEARCHES[search]} | {' | '.join(cells)} |")
