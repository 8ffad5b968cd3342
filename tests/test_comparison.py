"""Comparisons agree with the ranks, and refuse runs that cannot be compared."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from comparison_fixtures import audit, ranks_table, run

from trimodal.core.records import DataError
from trimodal.report import significance
from trimodal.report.comparison import Run, _pairs, compare, compare_variants, run_from
from trimodal.report.comparison_table import comparison_table
from trimodal.report.series import Score, Series, Variant
from trimodal.report.significance import PairingError, paired_over_queries

TABLE1 = Series(
    title="text to video",
    seeds=[1, 2, 3],
    metrics=["R@1", "R@5", "R@10", "MeanR"],
    scores={
        "image": Score(name="image alone"),
        "image_audio": Score(name="image + audio", against="image"),
    },
    variants={
        "fixed": Variant(name="simple loss"),
        "variable": Variant(
            name="VM-ranking loss", params={"loss.margin_mode": "variable"}, against="fixed"
        ),
    },
)


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
    assert "| search | metric | one | two | difference |" in text
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
        replace(run("b", 1), queries={s: q[::-1] for s, q in run("b", 1).queries.items()}),
    ],
)
def test_runs_of_other_test_sets_are_refused(other: Run) -> None:
    with pytest.raises(PairingError, match="a and b have different test sets"):
        compare(run("a", 1), other)


def test_the_table_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "RESAMPLES", 2000)  # enough for p < 0.001
    runs = grid(better=1.0)
    comparison = json.loads(
        json.dumps(compare_variants(TABLE1, runs))
    )  # as metrics/comparison.json holds it
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
             if (run["variant"], run["score"]) == ("variable", "image")]  # fmt: skip
    row = next(li for li in text.splitlines() if li.startswith("| VM-ranking loss, image alone |"))
    assert f"| {np.mean(means):.1f} ± " in row
    assert "VM-ranking loss, image alone minus simple loss, image alone | R@10 | +" in text
    alarms = comparison["false_alarms"]["R@1"]
    assert f"R@1 {alarms[0]} of {alarms[1]}" in text


def test_what_is_compared_is_what_the_series_says() -> None:
    assert list(_pairs(TABLE1)) == [
        (("fixed", "image"), ("fixed", "image_audio")),
        (("fixed", "image"), ("variable", "image")),
        (("fixed", "image_audio"), ("variable", "image_audio")),
        (("variable", "image"), ("variable", "image_audio")),
    ]


def test_one_seed_has_tests_over_queries_alone() -> None:
    series = replace(TABLE1, seeds=[1], metrics=["R@1"], scores={"image": Score(name="image")})
    comparison = json.loads(json.dumps(compare_variants(series, grid(1.0, seeds=1))))
    (difference,) = comparison["differences"]
    assert difference["tests"]["R@1"]["over_seeds"] is None
    assert difference["tests"]["R@1"]["over_queries"]["p"] < 0.05
    text = comparison_table(comparison)
    assert "| VM-ranking loss minus simple loss | R@1 | +" in text
    assert "| one seed, no interval |" in text
    assert "±" not in text
    assert "misleads" not in text
    assert "text to video, 200 queries, 1 seed |" in text


def test_scores_can_have_different_queries() -> None:
    """Text to image ranks captions' images, image to text images' captions."""
    table = pa.table(
        {
            "query_id": ["c1", "c2", "c3", "i1", "i2"],
            "rank_text_to_image": [1.0, 2.0, 3.0, None, None],
            "rank_image_to_text": [None, None, None, 1.0, 2.5],
        }
    )
    one = run_from("one", table, audit())
    assert one.queries == {"text_to_image": ("c1", "c2", "c3"), "image_to_text": ("i1", "i2")}
    assert one.ranks["image_to_text"].tolist() == [1.0, 2.5]
    text = compare(one, replace(one, name="two"))
    assert "| text to image | R@1 | 33.3 | 33.3 |" in text
    assert "3 and 2 queries, paired" in text
    series = replace(
        TABLE1, seeds=[1],
        scores={"text_to_image": Score(name="t"), "image_to_text": Score(name="i")},
    )  # fmt: skip
    comparison = compare_variants(series, {("fixed", 1): one, ("variable", 1): one})
    assert comparison["queries"] == {"text_to_image": 3, "image_to_text": 2}
    paired = replace(
        series, scores={**series.scores, "image_to_text": Score(name="i", against="text_to_image")}
    )
    with pytest.raises(PairingError, match="text_to_image and image_to_text have different"):
        compare_variants(paired, {("fixed", 1): one, ("variable", 1): one})


def test_a_comparison_needs_all_runs_on_the_same_data() -> None:
    runs = grid(0.0)
    incomplete = {key: one for key, one in runs.items() if key != ("variable", 2)}
    with pytest.raises(PairingError, match=r"no runs of .*variable.*2"):
        compare_variants(TABLE1, incomplete)
    runs["fixed", 1] = replace(runs["fixed", 1], data="d2")
    with pytest.raises(PairingError, match="different shards"):
        compare_variants(TABLE1, runs)


def test_a_comparison_of_another_version_is_named() -> None:
    with pytest.raises(DataError, match="another version: run make table again"):
        comparison_table({"runs": [{"margin_mode": "fixed", "R@1": 1.0}], "seeds": [1]})


def test_ranks_of_another_version_are_named() -> None:
    table = ranks_table(np.ones(3), np.ones(3)).select(["query_id"])
    with pytest.raises(KeyError, match="rank_"):
        run_from("a", table, audit())
