"""Image-text retrieval on Flickr8k: official training images, 1,000 dev images, 5,000 captions.

Nothing is selected on dev: every recipe is trained for a fixed number of epochs, and the last one
counts. (The recipes themselves were selected on 1,000 images held out of training.)
"""

import time
from collections.abc import Mapping, Sequence
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
from trimodal.report.significance import both_tests, mean_over_seeds

Ranks = npt.NDArray[np.float64]
METRICS = ("R@1", "R@5", "R@10", "MedR")
DIRECTIONS = ("text_to_image", "image_to_text")
_TESTED_METRICS = ("R@1", "R@10")


def run(data: RealData, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains and tests all recipes; prints the tables and returns the numbers."""
    papers, best = papers_recipe(), best_recipe()
    margins = [with_margin(recipe, m) for recipe in (papers, best) for m in ("fixed", "variable")]
    steps = ladder()[1:-1]
    ranks_of = {
        recipe.name: _train_and_test(recipe, data, seeds) for recipe in (*margins, *steps, best)
    }
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
        "recipes": {name: _summary(runs) for name, runs in ranks_of.items()},
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


def _summary(runs: Sequence[Mapping[str, Ranks]]) -> dict[str, dict[str, dict[str, float]]]:
    """By direction and metric: mean over seeds and the half width of its 95 % interval."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for direction in DIRECTIONS:
        each = [summarise(run[direction]) for run in runs]
        summary[direction] = {}
        for metric in METRICS:
            mean, half = mean_over_seeds(np.array([one[metric] for one in each]))
            summary[direction][metric] = {"mean": mean, "half_width": half}
    return summary


def _tests(
    first: Sequence[Mapping[str, Ranks]], second: Sequence[Mapping[str, Ranks]]
) -> dict[str, dict[str, str]]:
    """Tests of text to image: the difference over queries (means over seeds) and over seeds."""
    one, other = ([run["text_to_image"] for run in runs] for runs in (first, second))
    return {
        metric: {name: str(test) for name, test in both_tests(one, other, metric)._asdict().items()}
        for metric in _TESTED_METRICS
    }


def _print_table(ranks_of: Mapping[str, Sequence[Mapping[str, Ranks]]]) -> None:
    say("\nMean over seeds ± half the 95 % interval (t):\n")
    heads = [f"{direction} {metric}" for direction in ("t→i", "i→t") for metric in METRICS]
    say(f"| recipe | {' | '.join(heads)} |")
    say(f"| --- |{' ---: |' * len(heads)}")
    for name, runs in ranks_of.items():
        summary = _summary(runs)
        cells = [
            f"{summary[direction][metric]['mean']:.1f} ± "
            f"{summary[direction][metric]['half_width']:.1f}"
            for direction in DIRECTIONS
            for metric in METRICS
        ]
        say(f"| {name} | {' | '.join(cells)} |")


def _print_tests(tests: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    say("\n| text to image | metric | over queries | over seeds |\n| --- | --- | --- | --- |")
    for name, by_metric in tests.items():
        for metric, test in by_metric.items():
            say(f"| {name} | {metric} | {test['over_queries']} | {test['over_seeds']} |")
