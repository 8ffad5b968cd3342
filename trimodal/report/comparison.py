"""Runs side by side on the same test set: what differs, by how much, and how certainly."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.fingerprint import fingerprint
from trimodal.evaluation.retrieval import summarise
from trimodal.report.rendering import render
from trimodal.report.series import Series
from trimodal.report.significance import (
    PER_QUERY,
    PairingError,
    RankArray,
    both_tests,
    false_alarms,
    intervals_over_queries,
    paired_over_queries,
)
from trimodal.report.tables import SEARCHES, Table

_RANK = "rank_"  # begins the name of a column of ranks
Row = tuple[str, str]  # variant, score


@dataclass(frozen=True, kw_only=True)
class Run:
    """An evaluated run. By score (``image_audio``, ``text_to_image``, ...): the queries, and the
    rank of each query's true item. The test set (file, protocol, number of items) must agree.
    """

    name: str
    queries: Mapping[str, tuple[str, ...]]
    ranks: Mapping[str, RankArray]
    test_set: tuple[Any, ...]
    data: str


def run_from(name: str, ranks: pa.Table, audit: Mapping[str, Any]) -> Run:
    """A run from what ``evaluate`` wrote: ranks.parquet and audit.json. Of videos, each column
    ``rank_...`` has a score's ranks, null for a query that it does not have; of other test sets,
    the column ``rank`` has those of each ``direction``.

    Raises KeyError for files of another version.
    """
    if "direction" in ranks.column_names:
        directions = ranks["direction"].unique().to_pylist()
        given = {of: (ranks.filter(pc.field("direction") == of), "rank") for of in directions}
    else:
        columns = [column for column in ranks.column_names if column.startswith(_RANK)]
        if not columns:
            raise KeyError(_RANK)
        given = {
            column.removeprefix(_RANK): (ranks.filter(ranks[column].is_valid()), column)
            for column in columns
        }
    if "test_csv" in audit:
        test_set: tuple[Any, ...] = (audit["test_csv"], audit["protocol"], audit["gallery"])
    else:
        test_set = (audit["kind"], audit["duplicates"], audit["gallery"])
    return Run(
        name=name,
        queries={
            score: tuple(table["query_id"].to_pylist()) for score, (table, _) in given.items()
        },
        ranks={score: table[column].to_numpy() for score, (table, column) in given.items()},
        test_set=test_set,
        data=audit["data"],
    )


def pooled(runs: Sequence[Run]) -> Run:
    """The folds of a variant as one run: the queries of all of them, each with its rank among the
    items of its fold. Raises PairingError if a query is in two folds.
    """
    if len(runs) == 1:
        return runs[0]
    queries = {
        score: tuple(query for run in runs for query in run.queries[score])
        for score in runs[0].queries
    }
    for score, names in queries.items():
        if len(set(names)) < len(names):
            raise PairingError(f"{runs[0].name}: a query of score {score} is in two folds")
    return Run(
        name=runs[0].name,
        queries=queries,
        ranks={score: np.concatenate([run.ranks[score] for run in runs]) for score in queries},
        test_set=tuple(run.test_set for run in runs),
        data=fingerprint([run.data for run in runs]),
    )


def check_same_test_set(runs: Sequence[Run]) -> None:
    """Raises PairingError unless all runs rank the same queries among the same items."""
    first = runs[0]
    for run in runs[1:]:
        if (run.queries, run.test_set) != (first.queries, first.test_set):
            counts = (
                "; ".join(f"{s} {len(q)}" for s, q in r.queries.items()) for r in (first, run)
            )
            raise PairingError(
                f"{first.name} and {run.name} have different test sets: {next(counts)} queries, "
                f"{first.test_set}, and {next(counts)} queries, {run.test_set}"
            )


def compare(first: Run, second: Run) -> str:
    """Markdown: each metric of two runs, and the difference with its test over queries.

    Raises PairingError for runs with different test sets.
    """
    check_same_test_set([first, second])
    rows: list[Sequence[str]] = []
    for score in first.ranks:
        score_name = SEARCHES.get(score, score.replace("_", " "))
        ranks = [run.ranks[score] for run in (first, second)]
        for metric, per_query in PER_QUERY.items():
            values = [per_query(rank_array) for rank_array in ranks]
            means = (f"{value.mean():.1f}" for value in values)
            difference = paired_over_queries(values[0], values[1])
            rows.append((score_name, metric, *means, str(difference)))
        medians = (f"{np.median(rank_array):.3g}" for rank_array in ranks)
        rows.append((score_name, "MedR", *medians, ""))
    table = Table(
        header=("search", "metric", first.name, second.name, "difference"),
        rows=rows,
        left_columns=frozenset({0, 1, 4}),
    )
    queries = query_counts([len(queries) for queries in first.queries.values()])
    return render(
        "run_comparison.md.j2",
        table=table,
        queries=queries,
        direction=f"{second.name} minus {first.name}",
    ).removesuffix("\n")


def query_counts(counts: Sequence[int]) -> str:
    """'200', or '5000 and 1000' where the scores have different queries."""
    return " and ".join(map(str, dict.fromkeys(counts)))


def compare_variants(series: Series, runs: Mapping[tuple[str, int], Run]) -> dict[str, Any]:
    """The series' results from runs by (variant, seed): every run's metrics, the tests of what is
    compared, and how often the test over queries calls two seeds of one variant different.

    Raises PairingError for a run that is missing, and for different test sets or data.
    """
    if missing := [(v, s) for v in series.variants for s in series.seeds if (v, s) not in runs]:
        raise PairingError(f"no runs of {missing}")
    check_same_test_set(list(runs.values()))
    if len({run.data for run in runs.values()}) > 1:
        raise PairingError("the runs were trained and tested on different shards")
    one = next(iter(runs.values()))
    _check_pairs(series, one)
    ranks = {
        (variant, score): [runs[variant, seed].ranks[score] for seed in series.seeds]
        for variant in series.variants
        for score in series.scores
    }
    return {
        "title": series.title,
        "data": one.data,
        "test_set": series.test_set,
        "queries": {score: len(one.queries[score]) for score in series.scores},
        "seeds": list(series.seeds),
        "metrics": list(series.metrics),
        "scores": {score: of.name for score, of in series.scores.items()},
        "variants": {
            name: {"name": variant.name, "params": dict(variant.params)}
            for name, variant in series.variants.items()
        },
        "runs": [
            {
                "variant": variant,
                "seed": seed,
                "score": score,
                **summarise(of_seed),
                "intervals": intervals_over_queries(of_seed),
            }
            for (variant, score), of_row in ranks.items()
            for seed, of_seed in zip(series.seeds, of_row, strict=True)
        ],
        "differences": [
            {
                "first": list(first),
                "second": list(second),
                "tests": {m: _tests(ranks[first], ranks[second], m) for m in series.metrics},
            }
            for first, second in _pairs(series)
        ],
        "false_alarms": {
            metric: [
                int(count)
                for count in np.sum([false_alarms(of, metric) for of in ranks.values()], axis=0)
            ]
            for metric in series.metrics
        },
    }


def _pairs(series: Series) -> Iterator[tuple[Row, Row]]:
    """The rows that are compared: variants by each score, and scores in each variant."""
    for name, variant in series.variants.items():
        if variant.against is not None:
            for score in series.scores:
                yield (variant.against, score), (name, score)
        for score, of in series.scores.items():
            if of.against is not None:
                yield (name, of.against), (name, score)


def _check_pairs(series: Series, run: Run) -> None:
    for score, of in series.scores.items():
        if of.against is not None and run.queries[of.against] != run.queries[score]:
            raise PairingError(f"{of.against} and {score} have different queries")


def _tests(
    first: Sequence[RankArray], second: Sequence[RankArray], metric: str
) -> dict[str, dict[str, float] | None]:
    """The test over queries (of each query's mean over seeds) and the one over seeds, which a
    single seed does not have.
    """
    if len(first) == 1:
        values = (PER_QUERY[metric](ranks[0]) for ranks in (first, second))
        return {"over_queries": asdict(paired_over_queries(*values)), "over_seeds": None}
    both = both_tests(first, second, metric)._asdict()
    return {name: asdict(difference) for name, difference in both.items()}
