"""Comparisons agree with the ranks, and refuse runs that cannot be compared."""

import json
from dataclasses import replace

import numpy as np
import pytest
from comparison_fixtures import audit, ranks_table, run

from trimodal.report.comparison import Run, compare, run_from, table1
from trimodal.report.comparison_table import comparison_table
from trimodal.report.significance import PairingError, paired_over_queries


def grid(better: float, seeds: int = 3) -> dict[tuple[str, int], Run]:
    return {
        (mode, seed): run(f"{mode}{seed}", 10 * seed + (mode == "variable"), gain)
        for mode, gain in (("fixed", 0.0), ("variable", better))
        for seed in range(1, seeds + 1)
    }


def test_two_runs_side_by_side() -> None:
    first, second = run("one", 1), run("two", 2, better=1.0)
    text = compare(first, second)
    before, after = (100 * (r.ranks["image"] <= 5).mean() for r in (first, second))
    line = next(li for li in text.splitlines() if li.startswith("| image alone | R@5 |"))
    assert f"| {before:.1f} | {after:.1f} | {after - before:+.1f} (95 % CI " in line
    assert line.endswith("p < 0.001 |")
    assert "| text to video | metric | one | two | difference |" in text
    assert "| image + audio | MedR |" in text


def test_a_run_is_no_different_from_itself() -> None:
    assert compare(run("one", 1), run("one", 1)).count("p = 1 |") == 8


@pytest.mark.parametrize(
    "other",
    [
        run("b", 1, queries=199),
        replace(run("b", 1), test_set=("t2", "standard", 100)),
        replace(run("b", 1), test_set=("t1", "authors", 100)),
        replace(run("b", 1), test_set=("t1", "standard", 99)),
        replace(run("b", 1), queries=run("b", 1).queries[::-1]),
    ],
)
def test_runs_of_other_test_sets_are_refused(other: Run) -> None:
    with pytest.raises(PairingError, match="a and b have different test sets"):
        compare(run("a", 1), other)


def test_the_table_of_the_paper() -> None:
    runs = grid(better=1.0)
    comparison = json.loads(json.dumps(table1(runs)))  # as metrics/comparison.json holds it
    assert comparison["seeds"] == [1, 2, 3]
    assert len(comparison["runs"]) == 12
    margin = next(
        pair for pair in comparison["differences"]
        if (pair["first"], pair["second"]) == (["fixed", "image"], ["variable", "image"])
    )["tests"]["R@10"]  # fmt: skip
    hits = {
        mode: np.stack([100.0 * (runs[mode, s].ranks["image"] <= 10) for s in (1, 2, 3)])
        for mode in ("fixed", "variable")
    }
    expected = paired_over_queries(hits["fixed"].mean(axis=0), hits["variable"].mean(axis=0))
    assert (
        margin["over_queries"]["mean"]
        == expected.mean
        == pytest.approx(margin["over_seeds"]["mean"])
    )
    assert margin["over_queries"]["p"] == expected.p < 0.001
    assert margin["over_seeds"]["low"] > 0
    # 3 pairs of seeds, 2 modes, 2 searches
    assert all(pairs == 12 for _, pairs in comparison["false_alarms"].values())
    text = comparison_table(comparison)
    means = [run["R@10"] for run in comparison["runs"]
             if (run["margin_mode"], run["search"]) == ("variable", "image")]  # fmt: skip
    row = next(li for li in text.splitlines() if li.startswith("| VM-ranking loss, image alone |"))
    assert f"| {np.mean(means):.1f} ± " in row
    assert "VM-ranking loss, image alone minus simple loss, image alone | R@10 | +" in text
    alarms = comparison["false_alarms"]["R@1"]
    assert f"R@1 {alarms[0]} of {alarms[1]}" in text


def test_a_table_needs_two_seeds_of_each_mode_on_the_same_data() -> None:
    with pytest.raises(PairingError, match="two different seeds"):
        table1(grid(0.0, seeds=1))
    runs = grid(0.0)
    preflight = {key: one for key, one in runs.items() if key != ("variable", 2)}
    with pytest.raises(PairingError, match=r"no runs of .*variable.*2"):
        table1(preflight)
    runs["fixed", 1] = replace(runs["fixed", 1], data="d2")
    with pytest.raises(PairingError, match="different shards"):
        table1(runs)


def test_ranks_of_another_version_are_named() -> None:
    table = ranks_table(np.ones(3), np.ones(3)).drop_columns(["rank_image"])
    with pytest.raises(KeyError, match="rank_image"):
        run_from("a", table, audit())
