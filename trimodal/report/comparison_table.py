"""A series of experiments as tables: means over seeds, and differences with their tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimodal.core.records import DataError
from trimodal.report.comparison import query_counts
from trimodal.report.rendering import render
from trimodal.report.results import Results
from trimodal.report.significance import ONE_SEED, Difference, mean_over_seeds
from trimodal.report.tables import COLUMNS, Table

Comparison = Mapping[str, Any]
_METRICS = (*COLUMNS, "MeanR")


@dataclass(frozen=True, kw_only=True)
class ComparisonView:
    """What the template ``comparison.md.j2`` shows. ``false_alarms`` maps a metric to the number
    of pairs of runs called different and the number of all pairs.
    """

    seeds: int
    means: Table
    differences: Table
    false_alarms: Mapping[str, tuple[int, int]]


def comparison_table(comparison: Comparison) -> str:
    """Markdown, from what :func:`trimodal.report.comparison.compare_variants` returned."""
    return render("comparison.md.j2", comparison=comparison_view(comparison)).removesuffix("\n")


def comparison_view(comparison: Comparison) -> ComparisonView:
    """The tables of what :func:`trimodal.report.comparison.compare_variants` returned.

    Raises DataError for what another version wrote.
    """
    if "variants" not in comparison:
        raise DataError("the comparison is of another version: run make table again")
    return ComparisonView(
        seeds=len(comparison["seeds"]),
        means=_means(comparison),
        differences=_differences(comparison),
        false_alarms=comparison["false_alarms"],
    )


def own_comparison(results: Results) -> ComparisonView | None:
    """The comparison of margins if it is of the data that the results are of."""
    comparison = results.comparison
    of_this_data = bool(comparison["runs"]) and comparison["data"] == results.audit["data"]
    return comparison_view(comparison) if of_this_data else None


def _means(comparison: Comparison) -> Table:
    values: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in comparison["runs"]:
        values.setdefault((run["variant"], run["score"]), []).append(run)
    rows = []
    for row, runs in values.items():
        cells = [_cell(metric, runs) for metric in _METRICS]
        rows.append((_name(comparison, row), *cells))
    queries = query_counts(list(comparison["queries"].values()))
    seeds = len(comparison["seeds"])
    title = f"{comparison['title']}, {queries} queries, {seeds} seed{'s' * (seeds > 1)}"
    return Table(header=(title, *_METRICS), rows=rows)


def _name(comparison: Comparison, row: Sequence[str]) -> str:
    """What a variant and score, or of an only score the variant, is called."""
    variant, score = row
    name: str = comparison["variants"][variant]["name"]
    return f"{name}, {comparison['scores'][score]}" if len(comparison["scores"]) > 1 else name


def _cell(metric: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The mean over seeds and half its interval; of one seed the interval over queries."""
    values = np.array([run[metric] for run in runs])
    if len(values) == 1:
        low, high = runs[0].get("intervals", {}).get(metric, (None, None))
        interval = "" if low is None else f" ({low:.1f}..{high:.1f})"
        return f"{values[0]:.1f}{interval}"
    mean, half_width = mean_over_seeds(values)
    return f"{mean:.1f} ± {half_width:.1f}"


def _differences(comparison: Comparison) -> Table:
    rows = []
    for pair in comparison["differences"]:
        first, second = (_name(comparison, pair[row]) for row in ("first", "second"))
        for metric, tests in pair["tests"].items():
            differences = [
                str(Difference(**tests[over])) if tests[over] else ONE_SEED
                for over in ("over_queries", "over_seeds")
            ]
            rows.append((f"{second} minus {first}", metric, *differences))
    return Table(
        header=("difference", "metric", "over queries", "over seeds"),
        rows=rows,
        left_columns=frozenset(range(4)),
    )
