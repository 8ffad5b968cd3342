"""How the paper's comparison reads: means over seeds, differences with their tests."""

from typing import Any

import numpy as np

from trimodal.report.significance import Difference, mean_over_seeds

METRICS = ("R@1", "R@5", "R@10", "MedR", "MeanR")
_TESTED = ("R@1", "R@5", "R@10", "MeanR")
_NAMES = {
    ("fixed", "image"): "simple loss, image alone",
    ("fixed", "image_audio"): "simple loss, image + audio",
    ("variable", "image"): "VM-ranking loss, image alone",
    ("variable", "image_audio"): "VM-ranking loss, image + audio",
}


def comparison_table(comparison: dict[str, Any]) -> str:
    """Markdown, from what :func:`trimodal.report.comparison.table1` made."""
    seeds = len(comparison["seeds"])
    lines = [
        f"| text to video, {comparison['queries']} queries, {seeds} seeds | "
        f"{' | '.join(METRICS)} |",
        f"|---|{'---:|' * len(METRICS)}",
    ]
    for (mode, search), name in _NAMES.items():
        own = [
            run
            for run in comparison["runs"]
            if (run["margin_mode"], run["search"]) == (mode, search)
        ]
        cells = [_mean(np.array([run[metric] for run in own])) for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Means over {seeds} seeds ± the 95 % interval's half width (Student's t).",
        "",
        "| difference | metric | over queries | over seeds |",
        "|---|---|---|---|",
    ]
    for pair in comparison["differences"]:
        name = f"{_NAMES[tuple(pair['second'])]} minus {_NAMES[tuple(pair['first'])]}"
        for metric in _TESTED:
            tests = pair["tests"][metric]
            told = [str(Difference(**tests[over])) for over in ("over_queries", "over_seeds")]
            lines.append(f"| {name} | {metric} | {' | '.join(told)} |")
    return "\n".join([*lines, "", *_reading(comparison)])


def _mean(values: np.ndarray) -> str:
    mean, half = mean_over_seeds(values)
    return f"{mean:.1f} ± {half:.1f}"


def _reading(comparison: dict[str, Any]) -> list[str]:
    alarms = ", ".join(
        f"{metric} {fired} of {pairs}"
        for metric, (fired, pairs) in comparison["false_alarms"].items()
    )
    return [
        "*Over queries*: each sentence's mean over seeds, sentences drawn anew (bootstrap) and "
        "ranks swapped at random (permutation): would other sentences agree? *Over seeds*: runs "
        "paired by seed (t): would other seeds agree? Believe a difference that both confirm.",
        "",
        "Two runs of one recipe that differ by seed alone, called different by the test over "
        f"queries at the level 5 %: {alarms}. So often does a single pair of runs mislead.",
    ]
