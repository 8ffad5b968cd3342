"""Runs side by side on the same test: what differs, by how much, and whether to believe it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trimodal.evaluation.retrieval import summarise
from trimodal.report.significance import (
    PER_QUERY,
    PairingError,
    Ranks,
    both_tests,
    false_alarms,
    paired_over_queries,
)

SEARCHES = {"image": "image alone", "image_audio": "image + audio"}
# The rows of the paper's table 1, and which of them it sets against which.
ROWS = (("fixed", "image"), ("fixed", "image_audio"), ("variable", "image"),
        ("variable", "image_audio"))  # fmt: skip
_PAIRS = ((0, 1), (0, 2), (1, 3), (2, 3))


@dataclass(frozen=True, kw_only=True)
class Run:
    """An evaluated run: the rank of each query's true video, by search (``image``,
    ``image_audio``), and what was tested (test file, protocol, videos), which must agree.
    """

    name: str
    queries: tuple[str, ...]
    ranks: Mapping[str, Ranks]
    test: tuple[Any, ...]
    data: str


def run_from(name: str, ranks: pa.Table, audit: Mapping[str, Any]) -> Run:
    """A run from what ``evaluate`` wrote: ranks.parquet and audit.json."""
    return Run(
        name=name,
        queries=tuple(ranks["query_id"].to_pylist()),
        ranks={search: ranks[f"rank_{search}"].to_numpy() for search in SEARCHES},
        test=(audit["test_csv"], audit["protocol"], audit["gallery"]),
        data=audit["data"],
    )


def check_same_test(runs: Sequence[Run]) -> None:
    """Raises PairingError unless all runs rank the same queries among the same number of videos."""
    first = runs[0]
    for run in runs[1:]:
        if (run.queries, run.test) != (first.queries, first.test):
            raise PairingError(
                f"{first.name} and {run.name} were not tested alike: {len(first.queries)} queries, "
                f"{first.test}, and {len(run.queries)} queries, {run.test}"
            )


def compare(first: Run, second: Run) -> str:
    """Markdown: each metric of two runs, and the difference with its test over queries.

    Raises PairingError for runs of different tests.
    """
    check_same_test([first, second])
    lines = [
        f"| text to video | metric | {first.name} | {second.name} | difference |",
        "|---|---|---:|---:|---|",
    ]
    for search, told in SEARCHES.items():
        both = [run.ranks[search] for run in (first, second)]
        for metric, value in PER_QUERY.items():
            values = [value(ranks) for ranks in both]
            difference = paired_over_queries(values[0], values[1])
            means = " | ".join(f"{one.mean():.1f}" for one in values)
            lines.append(f"| {told} | {metric} | {means} | {difference} |")
        medians = " | ".join(f"{np.median(ranks):.3g}" for ranks in both)
        lines.append(f"| {told} | MedR | {medians} | |")
    note = (
        f"{len(first.queries)} queries, paired; second minus first. It says whether other "
        "sentences would tell these two *models* apart; whether other seeds would, `trimodal "
        "experiments table1` says."
    )
    return "\n".join([*lines, "", note])


def table1(runs: Mapping[tuple[str, int], Run]) -> dict[str, Any]:
    """The paper's comparison from runs by (margin mode, seed): every run's metrics, the tests of
    each pair of rows, and how often the test over queries fires between two seeds of one recipe.

    Raises PairingError for fewer than two seeds, a seed that one mode lacks, or different tests.
    """
    seeds = sorted({seed for _, seed in runs})
    if len(seeds) < 2:
        raise PairingError("an interval over seeds takes at least two different seeds")
    if missing := [(m, s) for m in ("fixed", "variable") for s in seeds if (m, s) not in runs]:
        raise PairingError(f"no runs of {missing}")
    check_same_test(list(runs.values()))
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
        "false_alarms": {metric: _seeds_apart(runs, metric) for metric in PER_QUERY},
    }


def _differences(
    runs: Mapping[tuple[str, int], Run], seeds: list[int], first: Any, second: Any
) -> dict[str, Any]:
    """Of two rows: by metric, over queries (each query's mean over seeds) and over seeds."""
    one, other = (
        [runs[mode, seed].ranks[search] for seed in seeds] for mode, search in (first, second)
    )
    tests = {
        metric: {
            name: asdict(test) for name, test in both_tests(one, other, metric)._asdict().items()
        }
        for metric in PER_QUERY
    }
    return {"first": list(first), "second": list(second), "tests": tests}


def _seeds_apart(runs: Mapping[tuple[str, int], Run], metric: str) -> list[int]:
    """Pairs of runs that differ by seed alone: [called different at 5 %, all]."""
    total = np.zeros(2, int)
    for mode, search in ROWS:
        same = [run.ranks[search] for (of, _), run in sorted(runs.items()) if of == mode]
        total += false_alarms(same, metric)
    return [int(count) for count in total]
