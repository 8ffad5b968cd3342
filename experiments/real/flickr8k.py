"""Image-text retrieval on Flickr8k: official training images, 1,000 dev images, 5,000 captions.

Nothing is selected on dev: every recipe is trained for a fixed number of epochs, and the last one
counts. (The recipes themselves were selected on 1,000 images held out of training.)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measuring import say
from experiments.real.prepared import Captioned, RealData
from experiments.real.recipes import Recipe, best_recipe, ladder, papers_recipe, train, with_margin
from trimodal.evaluation.retrieval import best_ranks, ranks, similarity, summarise
from trimodal.models.networks import TrimodalNet
from trimodal.report.significance import ONE_SEED, difference_in_words, mean_over_seeds

Ranks = npt.NDArray[np.float64]
Summary = dict[str, dict[str, dict[str, float | None]]]
METRICS = ("R@1", "R@5", "R@10", "MedR")
DIRECTIONS = ("text_to_image", "image_to_text")
_TESTED_METRICS = ("R@1", "R@10")


def run(
    data: RealData, seeds: Sequence[int], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Trains and tests all recipes; prints the tables and returns the numbers. ``keep`` is given
    those of the recipes so far, after each.
    """
    papers, best = papers_recipe(), best_recipe()
    margins = [with_margin(recipe, m) for recipe in (papers, best) for m in ("fixed", "variable")]
    steps = ladder()[1:-1]
    ranks_of: dict[str, list[dict[str, Ranks]]] = {}
    for recipe in (*margins, *steps, best):
        ranks_of[recipe.name] = _train_and_test(recipe, data, seeds)
        keep({"seeds": list(seeds), "recipes": _summaries(ranks_of)})
    rungs = [margins[0].name, *(step.name for step in steps), best.name]
    pairs = [(margins[0].name, margins[1].name), (margins[2].name, margins[3].name)]
    tests = {
        f"{second} against {first}": _tests(ranks_of[first], ranks_of[second])
        for first, second in [*pairs, *pairwise(rungs)]
    }
    _print_table(ranks_of)
    _print_tests(tests)
    return {
        "queries": len(data.dev.token_ids),
        "images": len(data.dev.features),
        "training_images": len(data.train.features),
        "seeds": list(seeds),
        "recipes": _summaries(ranks_of),
        "ladder": rungs,
        "tests": tests,
    }


def _train_and_test(recipe: Recipe, data: RealData, seeds: Sequence[int]) -> list[dict[str, Ranks]]:
    began = time.monotonic()
    runs = [
        test(train(recipe, data.train, data.vocabulary.vectors, seed), data.dev) for seed in seeds
    ]
    medians = [float(np.median(run["text_to_image"])) for run in runs]
    say(f"{recipe.name}: {len(seeds)} runs, {time.monotonic() - began:.0f} s, MedR {medians}")
    return runs


@torch.inference_mode()
def test(network: TrimodalNet, images: Captioned) -> dict[str, Ranks]:
    """The rank of each caption's image, and of each image's best caption."""
    image_embeddings = network.image.from_features(
        torch.from_numpy(images.features[:, 0]).float()
    ).numpy()
    text_embeddings = network.text(torch.from_numpy(images.token_ids)).numpy()
    return {
        "text_to_image": ranks(similarity(text_embeddings, image_embeddings), images.owner),
        "image_to_text": best_ranks(similarity(image_embeddings, text_embeddings), images.owner),
    }


def _summaries(ranks_of: Mapping[str, Sequence[Mapping[str, Ranks]]]) -> dict[str, Summary]:
    return {name: _summary(runs) for name, runs in ranks_of.items()}


def _summary(runs: Sequence[Mapping[str, Ranks]]) -> Summary:
    """By direction and metric: mean over seeds and the half width of its 95 % interval, None for
    one seed.
    """
    summary: Summary = {}
    for direction in DIRECTIONS:
        each = [summarise(run[direction]) for run in runs]
        summary[direction] = {}
        for metric in METRICS:
            values = np.array([one[metric] for one in each])
            mean, half = mean_over_seeds(values) if len(values) > 1 else (float(values[0]), None)
            summary[direction][metric] = {"mean": mean, "half_width": half}
    return summary


def _tests(
    first: Sequence[Mapping[str, Ranks]], second: Sequence[Mapping[str, Ranks]]
) -> dict[str, dict[str, str]]:
    """Tests of text to image: the difference over queries (means over seeds) and over seeds."""
    one, other = ([run["text_to_image"] for run in runs] for runs in (first, second))
    return {metric: difference_in_words(one, other, metric) for metric in _TESTED_METRICS}


def _print_table(ranks_of: Mapping[str, Sequence[Mapping[str, Ranks]]]) -> None:
    seeds = len(next(iter(ranks_of.values())))
    what = "Mean over seeds ± half the 95 % interval (t)" if seeds > 1 else ONE_SEED.capitalize()
    say(f"\n{what}:\n")
    heads = [f"{direction} {metric}" for direction in ("t→i", "i→t") for metric in METRICS]
    say(f"| recipe | {' | '.join(heads)} |")
    say(f"| --- |{' ---: |' * len(heads)}")
    for name, runs in ranks_of.items():
        summary = _summary(runs)
        cells = [
            _cell(summary[direction][metric]) for direction in DIRECTIONS for metric in METRICS
        ]
        say(f"| {name} | {' | '.join(cells)} |")


def _cell(summary: Mapping[str, float | None]) -> str:
    mean, half_width = summary["mean"], summary["half_width"]
    return f"{mean:.1f}" if half_width is None else f"{mean:.1f} ± {half_width:.1f}"


def _print_tests(tests: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    say("\n| text to image | metric | over queries | over seeds |\n| --- | --- | --- | --- |")
    for name, by_metric in tests.items():
        for metric, test in by_metric.items():
            say(f"| {name} | {metric} | {test['over_queries']} | {test['over_seeds']} |")
