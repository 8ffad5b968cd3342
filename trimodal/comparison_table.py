"""How a comparison over seeds reads: means, paired differences with intervals, verdicts."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

MODES = ("fixed", "variable")
METRICS = ("R@1", "R@5", "R@10", "MedR", "MeanR")
_JUDGED_BY = METRICS.index("MeanR")  # every query moves it; lower is better
_SEARCHES = {"image": "image alone", "image_audio": "image + audio"}

Values = npt.NDArray[np.float64]


def comparison_table(comparison: dict[str, Any]) -> str:
    """Markdown: variable against fixed margin on all sentences and, where it is known which mention
    a sound (the demo), with against without audio on those. Differences are paired by seed.
    """
    runs = comparison["runs"]
    rows: list[str] = []
    verdicts: list[str] = []
    for search, name in _SEARCHES.items():
        pair = [(m, _values(runs, m, "text_to_video", search)) for m in MODES]
        rows += _pair_rows(f"all sentences, {name}", pair)
        verdicts.append(f"- variable against fixed margin, {name}: {_verdict(pair)}")
    if all("sound_captions" in run for run in runs):
        for margin in MODES:
            pair = [
                (name, _values(runs, margin, "sound_captions", search))
                for search, name in _SEARCHES.items()
            ]
            rows += _pair_rows(f"sentences that mention a sound, {margin} margin", pair)
            verdicts.append(f"- with against without audio, {margin} margin: {_verdict(pair)}")
    head = [
        f"| text to video | | {' | '.join(METRICS)} |",
        f"|---|---|{'---:|' * len(METRICS)}",
    ]
    explanation = (
        f"Means over {len(comparison['seeds'])} seeds; ± is the 95 % interval (t) of the mean "
        "difference paired by seed. It holds the spread of training, not of the test set. By mean "
        "rank, which every query moves:"
    )
    return "\n".join([*head, *rows, "", explanation, "", *verdicts])


def _values(runs: list[dict[str, Any]], margin: str, sentences: str, search: str) -> Values:
    """(seeds, metrics) of the runs with one margin mode, in seed order."""
    chosen = sorted((r for r in runs if r["margin_mode"] == margin), key=lambda r: int(r["seed"]))
    return np.array([[run[sentences][search][metric] for metric in METRICS] for run in chosen])


def _pair_rows(what: str, pair: list[tuple[str, Values]]) -> list[str]:
    rows = [
        f"| {what} | {name} | {' | '.join(f'{v:.1f}' for v in values.mean(axis=0))} |"
        for name, values in pair
    ]
    mean, half = _interval(pair)
    cells = " | ".join(f"{m:+.1f} ± {h:.1f}" for m, h in zip(mean, half, strict=True))
    return [*rows, f"| | difference | {cells} |"]


def _interval(pair: list[tuple[str, Values]]) -> tuple[Values, Values]:
    difference = pair[1][1] - pair[0][1]
    seeds = len(difference)
    error = difference.std(axis=0, ddof=1) / np.sqrt(seeds)
    return difference.mean(axis=0), stats.t.ppf(0.975, seeds - 1) * error


def _verdict(pair: list[tuple[str, Values]]) -> str:
    mean, half = (part[_JUDGED_BY] for part in _interval(pair))
    if abs(mean) <= half:
        return "a tie: these runs cannot tell it from a win or a loss"
    return "a win" if mean < 0 else "a loss"
