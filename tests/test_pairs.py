"""Sets of two modalities: both directions and folds against slow loops; what is kept on disk."""

from pathlib import Path

import numpy as np
import pytest
from evaluation_fixtures import close, dot, slow_summary

from trimodal.core.records import DataError
from trimodal.evaluation.pairs import Pairs, pair_metrics, paired, read_pairs, write_pairs


def pairs_of(items: int = 12, seed: int = 0, dim: int = 4) -> Pairs:
    """One to three captions an item; small integers, with many ties."""
    rng = np.random.default_rng(seed)
    captions = [
        [f"caption {rng.integers(9)}" for _ in range(rng.integers(1, 4))] for _ in range(items)
    ]
    count = sum(map(len, captions))
    return paired(
        ("text", "audio"),
        [f"a file {number}.wav" for number in range(items)],
        captions,
        rng.integers(-3, 4, (count, dim)).astype(np.float32),
        rng.integers(-3, 4, (items, dim)).astype(np.float32),
    )


def slow_directions(pairs: Pairs, items: list[int]) -> dict[str, dict[str, float]]:
    queries = [row for row, owner in enumerate(pairs.owner) if owner in items]
    scores = [[dot(pairs.first[q], pairs.second[i]) for i in items] for q in queries]
    true = [{items.index(pairs.owner[q])} for q in queries]
    owned = [{n for n, q in enumerate(queries) if pairs.owner[q] == item} for item in items]
    transposed = [list(column) for column in zip(*scores, strict=True)]
    return {
        "text_to_audio": slow_summary(scores, true),
        "audio_to_text": slow_summary(transposed, owned),
    }


@pytest.mark.parametrize("seed", range(3))
def test_both_directions_match_slow_loops(seed: int) -> None:
    pairs = pairs_of(seed=seed)
    metrics = pair_metrics(pairs)
    expected = slow_directions(pairs, list(range(12)))
    assert metrics["directions"] == {name: close(of) for name, of in expected.items()}
    rsum = sum(of[name] for of in expected.values() for name in ("R@1", "R@5", "R@10"))
    assert metrics["rsum"] == {"text_audio": {"rsum": pytest.approx(rsum)}}


def test_folds_are_galleries_of_consecutive_items() -> None:
    pairs = pairs_of(11)
    metrics = pair_metrics(pairs, folds=4, resamples=10)
    folds = [slow_directions(pairs, list(range(start, start + 4))) for start in (0, 4)]
    assert metrics["folds"] == 2
    for name, of in metrics["directions"].items():
        mean = {key: np.mean([fold[name][key] for fold in folds]) for key in folds[0][name]}
        assert {key: of[key] for key in mean} == close(mean)
        assert of["intervals"]["R@1"][0] <= of["R@1"] <= of["intervals"]["R@1"][1]
    everything = pair_metrics(pairs, resamples=10)
    assert metrics["all_items"] == everything
    with pytest.raises(DataError, match="folds of 12 of 11 items"):
        pair_metrics(pairs, folds=12)


def test_duplicates_of_other_items_are_right_if_asked() -> None:
    pairs = pairs_of(20)
    own, any_ = (pair_metrics(pairs, duplicates=kind)["directions"] for kind in ("own", "any"))
    for name in own:
        assert any_[name]["MeanR"] < own[name]["MeanR"]


def test_pairs_are_read_as_written(tmp_path: Path) -> None:
    pairs, path = pairs_of(dim=256), tmp_path / "e.parquet"
    write_pairs(path, pairs, "identity", {"file missing": 3})
    sentence_of = dict(zip(pairs.queries, pairs.sentences, strict=True))
    found = read_pairs(path, "identity", ("text", "audio"), sentence_of)
    assert found is not None
    again, left_out = found
    assert left_out == {"file missing": 3}
    for name in ("queries", "items", "sentences", "modalities"):
        assert getattr(again, name) == getattr(pairs, name)
    for name in ("owner", "first", "second"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pairs, name))
    assert read_pairs(path, "other", ("text", "audio"), sentence_of) is None
    assert read_pairs(tmp_path / "none", "identity", ("text", "audio"), sentence_of) is None


@pytest.mark.parametrize("part", ["queries", "owner", "first", "items", "second"])
def test_rows_without_their_query_or_item_are_refused(part: str) -> None:
    pairs = pairs_of(5)
    fields = {name: getattr(pairs, name) for name in Pairs.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"pairs: every (query|item) needs"):
        Pairs(**fields | {part: fields[part][1:]})
