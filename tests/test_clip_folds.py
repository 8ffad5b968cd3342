"""Folds of test videos, and series that pool them."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments.clip_folds import write_folds
from trimodal.report.comparison import Run, pooled
from trimodal.report.significance import PairingError, intervals_over_queries
from trimodal.sources.msrvtt import read_queries


def test_every_video_is_in_one_fold(tmp_path: Path) -> None:
    source = tmp_path / "test.csv"
    rows = [f'ret{n},m{n},video{n},"a dog, and number {n}"' for n in range(7)]
    source.write_text("\n".join(["key,vid_key,video_id,sentence", *rows, ""]))
    written = write_folds(source, 3, 1, tmp_path / "folds")
    assert [videos for _, videos in written] == [3, 2, 2]
    queries = [read_queries(path)[0] for path, _ in written]
    videos = [{query.video_id for query in of_fold} for of_fold in queries]
    assert sum(map(len, videos)) == len(set.union(*videos)) == 7
    assert sum(map(len, queries)) == 7
    with written[0][0].open(newline="") as file:
        assert all("a dog, and number" in row["sentence"] for row in csv.DictReader(file))
    assert write_folds(source, 3, 1, tmp_path / "again")[0][1] == 3
    same, other = ((tmp_path / name / "fold1.csv").read_text() for name in ("folds", "again"))
    assert same == other


def run_of(name: str, queries: tuple[str, ...], ranks: list[float]) -> Run:
    return Run(
        name=name, queries={"image": queries}, ranks={"image": np.array(ranks)},
        test_set=(name, "standard", len(queries)), data=name,
    )  # fmt: skip


def test_folds_are_pooled_query_by_query() -> None:
    folds = [run_of("one", ("a", "b"), [1.0, 3.0]), run_of("two", ("c",), [2.0])]
    whole = pooled(folds)
    assert whole.queries == {"image": ("a", "b", "c")}
    assert whole.ranks["image"].tolist() == [1.0, 3.0, 2.0]
    assert pooled(folds[:1]) is folds[0]
    assert pooled(folds[::-1]).data != whole.data
    with pytest.raises(PairingError, match="in two folds"):
        pooled([folds[0], folds[0]])


def test_intervals_over_queries_hold_the_mean() -> None:
    ranks = np.array([1.0] * 30 + [12.0] * 70)
    low, high = intervals_over_queries(ranks)["R@1"]
    assert 20 < low < 30 < high < 40
    assert intervals_over_queries(np.ones(5))["MeanR"] == [1.0, 1.0]
