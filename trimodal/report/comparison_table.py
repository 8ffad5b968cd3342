"""The paper's comparison as tables: means over seeds, and differences with their tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimodal.report.rendering import render
from trimodal.report.significance import PER_QUERY, Difference, mean_over_seeds
from trimodal.report.tables import COLUMNS, SEARCHES, Table

Comparison = Mapping[str, Any]
_METRICS = (*COLUMNS, "MeanR")
_LOSSES = {"fixed": "simple loss", "variable": "VM-ranking loss"}
_ROWS = {
    (mode, search): f"{loss}, {name}"
    for mode, loss in _LOSSES.items()
    for search, name in SEARCHES.items()
}


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
    """Markdown, from what :func:`trimodal.report.comparison.table1` returned."""
    return render("comparison.md.j2", comparison=comparison_view(comparison)).removesuffix("\n")


def comparison_view(comparison: Comparison) -> ComparisonView:
    """The tables of what :func:`trimodal.report.comparison.table1` returned."""
    return ComparisonView(
        seeds=len(comparison["seeds"]),
        means=_means(comparison),
        differences=_differences(comparison),
        false_alarms=comparison["false_alarms"],
    )


def _means(comparison: Comparison) -> Table:
    rows = []
    for (mode, search), name in _ROWS.items():
        runs = [
            run
            for run in comparison["runs"]
            if (run["margin_mode"], run["search"]) == (mode, search)
        ]
        cells = [_interval(np.array([run[metric] for run in runs])) for metric in _METRICS]
        rows.append((name, *cells))
    queries, seeds = comparison["queries"], len(comparison["seeds"])
    title = f"text to video, {queries} queries, {seeds} seeds"
    return Table(header=(title, *_METRICS), rows=rows)


def _interval(values: np.ndarray) -> str:
    mean, half_width = mean_over_seeds(values)
    return f"{mean:.1f} ± {half_width:.1f}"


def _differences(comparison: Comparison) -> Table:
    rows = []
    for pair in comparison["differences"]:
        name = f"{_ROWS[tuple(pair['second'])]} minus {_ROWS[tuple(pair['first'])]}"
        for metric in PER_QUERY:
            tests = pair["tests"][metric]
            differences = [Difference(**tests[over]) for over in ("over_queries", "over_seeds")]
            rows.append((name, metric, *map(str, differences)))
    return Table(
        header=("difference", "metric", "over queries", "over seeds"),
        rows=rows,
        left_columns=frozenset(range(4)),
    )
