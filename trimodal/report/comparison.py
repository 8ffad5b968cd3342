"""Runs side by side on the same test set: what differs, by how much, and how certainly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trimodal.evaluation.retrieval import summarise
from trimodal.report.rendering import render
from trimodal.report.significance import (
    PER_QUERY,
    PairingError,
    RankArray,
    both_tests,
    false_alarms,
    paired_over_queries,
)
from trimodal.report.tables import SEARCHES, Table

# The rows of the paper's table 1 as (margin mode, search), and the pairs of rows that it compares.
ROWS = (("fixed", "image"), ("fixed", "image_audio"), ("variable", "image"),
        ("variable", "image_audio"))  # fmt: skip
_PAIRS = ((0, 1), (0, 2), (1, 3), (2, 3))


@dataclass(frozen=True, kw_only=True)
class Run:
    """An evaluated run: the rank of each query's true video, by search (``image``,
    ``image_audio``), and the test set (file, protocol, number of videos), which must agree.
    """

    name: str
    queries: tuple[str, ...]
    ranks: Mapping[str, RankArray]
    test_set: tuple[Any, ...]
    data: str


def run_from(name: str, ranks: pa.Table, audit: Mapping[str, Any]) -> Run:
    """A run from what ``evaluate`` wrote: ranks.parquet and audit.json."""
    return Run(
        name=name,
        queries=tuple(ranks["query_id"].to_pylist()),
        ranks={search: ranks[f"rank_{search}"].to_numpy() for search in SEARCHES},
        test_set=(audit["test_csv"], audit["protocol"], audit["gallery"]),
        data=audit["data"],
    )


def check_same_test_set(runs: Sequence[Run]) -> None:
    """Raises PairingError unless all runs rank the same queries among the same number of videos."""
    first = runs[0]
    for run in runs[1:]:
        if (run.queries, run.test_set) != (first.queries, first.test_set):
            raise PairingError(
                f"{first.name} and {run.name} have different test sets: {len(first.queries)} "
                f"queries, {first.test_set}, and {len(run.queries)} queries, {run.test_set}"
            )


def compare(first: Run, second: Run) -> str:
    """Markdown: each metric of two runs, and the difference with its test over queries.

    Raises PairingError for runs with different test sets.
    """
    check_same_test_set([first, second])
    rows: list[Sequence[str]] = []
    for search, search_name in SEARCHES.items():
        ranks = [run.ranks[search] for run in (first, second)]
        for metric, per_query in PER_QUERY.items():
            values = [per_query(rank_array) for rank_array in ranks]
            means = (f"{value.mean():.1f}" for value in values)
            difference = paired_over_queries(values[0], values[1])
            rows.append((search_name, metric, *means, str(difference)))
        medians = (f"{np.median(rank_array):.3g}" for rank_array in ranks)
        rows.append((search_name, "MedR", *medians, ""))
    table = Table(
        header=("text to video", "metric", first.name, second.name, "difference"),
        rows=rows,
        left_columns=frozenset({0, 1, 4}),
    )
    text = render("run_comparison.md.j2", table=table, queries=len(first.queries))
    return text.removesuffix("\n")


def table1(runs: Mapping[tuple[str, int], Run]) -> dict[str, Any]:
    """The paper's comparison from runs by (margin mode, seed): every run's metrics, the tests of
    each pair of rows, and how often the test over queries calls two seeds of one recipe different.

    Raises PairingError for fewer than two seeds, a seed that one mode lacks, or different test
    sets.
    """
    seeds = sorted({seed for _, seed in runs})
    if len(seeds) < 2:
        raise PairingError("an interval over seeds needs at least two different seeds")
    if missing := [(m, s) for m in ("fixed", "variable") for s in seeds if (m, s) not in runs]:
        raise PairingError(f"no runs of {missing}")
    check_same_test_set(list(runs.values()))
    if len({run.data for run in runs.values()}) > 1:
        raise PairingError("the runs were trained and tested on different shards")
    return {
        "data": next(iter(runs.values())).data,
        "queries": len(next(iter(runs.values())).queries),
        "seeds": seeds,
        "runs": [
            {"margin_mode": mode, "seed": seed, "search": search, **summarise(run.ranks[search])}
            for (mode, seed), run in sorted(runs.items())
            for search in SEARCHES
        ],
        "differences": [
            _differences(runs, seeds, ROWS[first], ROWS[second]) for first, second in _PAIRS
        ],
        "false_alarms": {metric: _false_alarms_of_seeds(runs, metric) for metric in PER_QUERY},
    }


def _differences(
    runs: Mapping[tuple[str, int], Run],
    seeds: list[int],
    first: tuple[str, str],
    second: tuple[str, str],
) -> dict[str, Any]:
    """Of two rows, each metric's test over queries (of each query's mean over seeds) and over
    seeds.
    """
    first_ranks, second_ranks = (
        [runs[mode, seed].ranks[search] for seed in seeds] for mode, search in (first, second)
    )
    tests = {}
    for metric in PER_QUERY:
        both = both_tests(first_ranks, second_ranks, metric)._asdict()
        tests[metric] = {name: asdict(difference) for name, difference in both.items()}
    return {"first": list(first), "second": list(second), "tests": tests}


def _false_alarms_of_seeds(runs: Mapping[tuple[str, int], Run], metric: str) -> list[int]:
    """Of pairs of runs that differ by seed alone: [called different at 5 %, all]."""
    total = np.zeros(2, int)
    for row_mode, search in ROWS:
        same_recipe = [
            run.ranks[search] for (mode, _), run in sorted(runs.items()) if mode == row_mode
        ]
        total += false_alarms(same_recipe, metric)
    return [int(count) for count in total]
