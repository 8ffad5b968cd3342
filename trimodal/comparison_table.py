"""How a comparison of margin modes reads: means over seeds, paired differences, a verdict."""

from typing import Any

import numpy as np
from scipy import stats

MODES = ("fixed", "variable")
METRICS = ("R@1", "R@5", "R@10", "MedR")


def comparison_table(comparison: dict[str, Any]) -> str:
    """Markdown: means over seeds, the difference with its 95 % interval, and what it says."""
    lines = [
        "| text to video | margin | " + " | ".join(METRICS) + " |",
        "|---|---|" + "---:|" * len(METRICS),
    ]
    verdicts = []
    for mode, name in (("image", "image alone"), ("image_audio", "image + audio")):
        values = {margin: _values(comparison, margin, mode) for margin in MODES}
        for margin in MODES:
            cells = " | ".join(f"{value:.1f}" for value in values[margin].mean(axis=0))
            lines.append(f"| {name} | {margin} | {cells} |")
        difference = values["variable"] - values["fixed"]
        mean, half = _interval(difference)
        cells = " | ".join(f"{m:+.1f} ± {h:.1f}" for m, h in zip(mean, half, strict=True))
        lines.append(f"| {name} | variable - fixed | {cells} |")
        verdicts.append(f"{name}: {_verdict(mean[2], half[2])}")
    seeds = len(comparison["seeds"])
    return (
        "\n".join(lines)
        + f"\n\nMeans over {seeds} seeds; ± is the 95 % interval of the mean paired difference. "
        + f"By R@10, the variable margin is, {'; '.join(verdicts)}."
    )


def _values(comparison: dict[str, Any], margin: str, mode: str) -> Any:
    return np.array(
        [
            [run["text_to_video"][mode][metric] for metric in METRICS]
            for run in comparison["runs"]
            if run["margin_mode"] == margin
        ]
    )


def _interval(differences: Any) -> tuple[Any, Any]:
    seeds = len(differences)
    error = differences.std(axis=0, ddof=1) / np.sqrt(seeds)
    return differences.mean(axis=0), stats.t.ppf(0.975, seeds - 1) * error


def _verdict(mean: float, half: float) -> str:
    if abs(mean) <= half:
        return "a tie that these runs cannot tell from a win or a loss"
    return "a win" if mean > 0 else "a loss"
