"""Zero-shot classification against slow loops in float64 and scikit-learn."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from data_fixtures import ENGLISH
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from trimodal.core.text import build_vocabulary
from trimodal.evaluation import zero_shot
from trimodal.evaluation.prompt_files import ClassList, Templates
from trimodal.evaluation.retrieval import EmbeddingError, ranks
from trimodal.evaluation.zero_shot import (
    NamedClasses,
    WordUse,
    average_precisions,
    best_label_ranks,
    class_scores,
    class_table,
    confusions,
    embed_classes,
    summarise_classification,
    video_scores,
    words_in,
)

LABELS = ("dog", "cat", "rain")


def classes_of(words: Sequence[str]) -> ClassList:
    return ClassList(origin="", labels=tuple(f"l {w}" for w in words), words=tuple(words))


def embed_letters(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
    """(N, 26): how often each letter occurs; lengths differ, as those of a model may."""
    return np.array(
        [[sentence.count(chr(97 + k)) for k in range(26)] for sentence in sentences], np.float32
    )


def named(embeddings: Any, is_named: Any = None) -> NamedClasses:
    rows = np.asarray(embeddings, np.float32)
    return NamedClasses(
        embeddings=rows, is_named=np.ones(len(rows), bool) if is_named is None else is_named,
        unknown_words={}, unknown_prompt_words=(),
    )  # fmt: skip


def draw(
    items: int, classes: int, seed: int, *, several: bool = True, coarse: bool = False
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores, with many ties if ``coarse``, and labels, at least one an item."""
    rng = np.random.default_rng(seed)
    is_label = np.zeros((items, classes), bool)
    is_label[np.arange(items), rng.integers(0, classes, items)] = True
    if several:
        is_label |= rng.random((items, classes)) < 0.2
    scores = is_label * 0.7 + rng.standard_normal((items, classes))
    return (np.round(scores) if coarse else scores).astype(np.float32), is_label


# The embeddings of classes


def test_a_class_is_the_normalised_mean_of_its_normalised_prompts() -> None:
    templates = Templates(origin="", sentences=("{}", "the sound of {}", "aaaa aaaa aaaa {}"))
    classes = classes_of(["dog", "big cat"])
    found = embed_classes(classes, templates, embed_letters)
    for row, word in zip(found.embeddings, classes.words, strict=True):
        mean = [0.0] * 26
        for sentence in (word, f"the sound of {word}", f"aaaa aaaa aaaa {word}"):
            vector = [float(sentence.count(chr(97 + k))) for k in range(26)]
            mean = [m + v / math.hypot(*vector) / 3 for m, v in zip(mean, vector, strict=True)]
        assert row == pytest.approx([m / math.hypot(*mean) for m in mean], abs=1e-6)
    assert found.is_named.tolist() == [True, True]
    assert found.embeddings.dtype == np.float32


def test_templates_are_embedded_one_after_another() -> None:
    """24,000 sentences of a large set are never in memory together."""
    calls: list[list[str]] = []

    def embed(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.append(list(sentences))
        return embed_letters(sentences)

    templates = Templates(origin="", sentences=("a {}", "{} b"))
    embed_classes(classes_of(["dog", "cat"]), templates, embed)
    assert calls == [["a dog", "a cat"], ["dog b", "cat b"]]


def test_a_class_without_a_known_word_is_named_and_has_no_embedding() -> None:
    def words_of(text: str) -> WordUse:
        words = text.split()
        return WordUse(
            known=tuple(w for w in words if w != "zyx"),
            unknown=tuple(w for w in words if w == "zyx"),
        )

    asked: list[str] = []

    def embed(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        asked.extend(sentences)
        return embed_letters(sentences)

    classes = classes_of(["dog", "zyx", "zyx cat"])
    found = embed_classes(classes, Templates(origin="", sentences=("a {}",)), embed, words_of)
    assert found.is_named.tolist() == [True, False, True]
    assert not found.embeddings[1].any()
    assert found.unknown_words == {"l zyx": ("zyx",), "l zyx cat": ("zyx",)}
    assert found.unknown_prompt_words == ()
    assert asked == ["a dog", "a zyx cat"]
    templates = Templates(origin="", sentences=("a {}", "zyx of {}", "zyx {} zyx"))
    assert embed_classes(classes, templates, embed, words_of).unknown_prompt_words == ("zyx",)
    with pytest.raises(EmbeddingError, match="no word of any class"):
        embed_classes(classes_of(["zyx"]), Templates(origin="", sentences=("{}",)), embed, words_of)


def test_a_vocabulary_tells_which_words_it_knows() -> None:
    vectors = {word: np.ones(300, np.float32) for word in ("dog", "barking")}
    words_of = words_in(build_vocabulary({"dog": 3, "barking": 1}, vectors, ENGLISH))
    assert words_of("a Dog, barking") == WordUse(known=("dog", "barking"), unknown=())
    assert words_of("the zebra dog") == WordUse(known=("dog",), unknown=("zebra",))
    assert words_of("of the") == WordUse(known=(), unknown=())


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_embeddings_without_a_direction_are_refused(value: float) -> None:
    def embed(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.full((len(sentences), 3), value, np.float32)

    with pytest.raises(EmbeddingError, match="2 of 2 embeddings of prompts"):
        embed_classes(classes_of(["dog", "cat"]), Templates(origin="", sentences=("{}",)), embed)
    items = np.ones((3, 2), np.float32)
    items[1] = value
    with pytest.raises(EmbeddingError, match="1 of 3 embeddings of items"):
        class_scores(items, named(np.eye(2)))


# Scores


def test_scores_are_cosines_whatever_the_lengths() -> None:
    rng = np.random.default_rng(0)
    items, classes = rng.standard_normal((7, 5)), rng.standard_normal((4, 5))
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    scores = class_scores((100 * items).astype(np.float32), named(classes))
    for i, item in enumerate(items):
        for c, row in enumerate(classes):
            assert scores[i, c] == pytest.approx(item @ row / np.linalg.norm(item), abs=1e-6)


def test_a_video_is_scored_by_both_and_a_silent_one_by_its_image() -> None:
    image = np.array([[2, 0, 0], [0, 3, 0]], np.float32)
    audio = np.array([[0, 0, 5], [0, 0, 0]], np.float32)
    scores = video_scores(image, audio, np.array([True, False]), 0.25, named(np.eye(3)))
    np.testing.assert_allclose(scores, [[0.75, 0, 0.25], [0, 1, 0]])


def test_a_class_without_a_name_is_below_every_cosine() -> None:
    items = -np.eye(3, dtype=np.float32)
    classes = named(np.eye(3), np.array([True, False, True]))
    for scores in (
        class_scores(items, classes),
        video_scores(items, items, np.ones(3, bool), 0.3, classes),
    ):
        assert (scores[:, 1] < -1).all()
        rank = best_label_ranks(scores, np.eye(3, dtype=bool))
        assert rank.tolist() == [2, np.inf, 2]


# Ranks and accuracies


def slow_rank(scores: Any, labels: set[int]) -> float:
    best = max(scores[c] for c in labels)
    others = [s for c, s in enumerate(scores) if c not in labels]
    return 1 + sum(s > best for s in others) + sum(s == best for s in others) / 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("coarse", [False, True])
def test_ranks_are_those_of_a_slow_loop(coarse: bool, seed: int) -> None:
    scores, is_label = draw(40, 7, seed, coarse=coarse)
    expected = [
        slow_rank(row, set(np.flatnonzero(own)))
        for row, own in zip(scores.tolist(), is_label, strict=True)
    ]
    assert best_label_ranks(scores, is_label).tolist() == expected


@pytest.mark.parametrize("coarse", [False, True])
def test_with_one_label_they_are_retrievals(coarse: bool) -> None:
    scores, is_label = draw(40, 7, 0, several=False, coarse=coarse)
    assert best_label_ranks(scores, is_label).tolist() == ranks(scores, is_label.argmax(1)).tolist()


def test_accuracies_are_scikit_learns() -> None:
    scores, is_label = draw(200, 9, 1, several=False)
    summary = summarise_classification(scores, is_label)
    true = is_label.argmax(axis=1)
    for k in (1, 5):
        expected = 100 * top_k_accuracy_score(true, scores, k=k, labels=range(9))
        assert summary[f"top{k}"] == pytest.approx(expected)
    assert set(summary) == {f"top{k}{end}" for k in (1, 5) for end in ("", "_low", "_high")}


def test_equal_scores_are_no_hit() -> None:
    """A collapsed model gives every class the same score: none of its answers is an answer."""
    scores = np.zeros((10, 20), np.float32)
    summary = summarise_classification(scores, np.eye(20, dtype=bool)[:10])
    assert (summary["top1"], summary["top5"]) == (0, 0)


def test_items_of_a_class_without_a_name_are_wrong() -> None:
    """Even where few classes have a name, and the rank among all would be within the first five."""
    classes = named(np.eye(7), np.arange(7) < 1)
    scores = class_scores(np.eye(7, dtype=np.float32), classes)
    summary = summarise_classification(scores, np.eye(7, dtype=bool))
    assert summary["top1"] == summary["top5"] == pytest.approx(100 / 7)


@pytest.mark.parametrize(("classes", "has_top5"), [(5, False), (6, True)])
def test_top5_of_five_classes_says_nothing(classes: int, has_top5: bool) -> None:
    scores, is_label = draw(30, classes, 0, several=False)
    assert ("top5" in summarise_classification(scores, is_label)) == has_top5


def test_faulty_scores_are_refused() -> None:
    scores, is_label = draw(4, 3, 0, several=False)
    for bad in (np.where(is_label, np.nan, scores), np.zeros((0, 3), np.float32)):
        with pytest.raises(EmbeddingError, match="not finite"):
            best_label_ranks(bad.astype(np.float32), is_label[: len(bad)])
    is_label[2] = False
    with pytest.raises(EmbeddingError, match="without a label"):
        best_label_ranks(scores, is_label)


# Average precision


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_average_precisions_are_scikit_learns(seed: int, coarse: bool) -> None:
    scores, is_label = draw(50, 3, seed, coarse=coarse)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(50, np.full(50, 0.02), size=4)
    for c in range(3):
        found = average_precisions(scores[:, c], is_label[:, c], weights)
        expected = [
            average_precision_score(is_label[:, c], scores[:, c], sample_weight=row)
            for row in weights
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_map_is_scikit_learns_macro_average() -> None:
    scores, is_label = draw(60, 8, 2)
    is_label[:, 3] = False  # no item has it: it has no average precision
    is_label[~is_label.any(axis=1), 0] = True
    summary = summarise_classification(scores, is_label)
    others = np.arange(8) != 3
    expected = average_precision_score(is_label[:, others], scores[:, others], average="macro")
    assert summary["mAP"] == pytest.approx(100 * expected)


def test_a_map_is_given_only_where_items_have_several_labels() -> None:
    scores, is_label = draw(30, 8, 0, several=False)
    assert "mAP" not in summarise_classification(scores, is_label)
    is_label[4, :2] = True
    assert "mAP" in summarise_classification(scores, is_label)


def test_a_class_that_is_never_drawn_has_no_average_precision() -> None:
    found = average_precisions(
        np.array([3, 2, 1], np.float32), np.array([True, False, False]),
        np.array([[0, 2, 1], [1, 1, 1]]),
    )  # fmt: skip
    np.testing.assert_array_equal(found, [np.nan, 1.0])


# Intervals


def test_intervals_of_accuracies_are_those_of_a_slow_bootstrap() -> None:
    scores, is_label = draw(80, 6, 3, several=False)
    summary = summarise_classification(scores, is_label)
    hits = (best_label_ranks(scores, is_label) <= 1) * 100.0
    rng = np.random.default_rng(5)
    means = [hits[rng.integers(0, 80, 80)].mean() for _ in range(4000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert summary["top1_low"] == pytest.approx(low, abs=1.5)
    assert summary["top1_high"] == pytest.approx(high, abs=1.5)
    assert summary["top1_low"] < summary["top1"] < summary["top1_high"]


def test_the_interval_of_the_map_allows_for_what_repeated_items_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An item drawn twice finds itself at a high rank: resampled values are too high. Mirrored,
    the interval holds the true value about as often as it says.
    """
    monkeypatch.setattr(zero_shot, "RESAMPLES", 100)
    everything = summarise_classification(*draw(20_000, 4, 0))
    held = 0
    for seed in range(1, 61):
        found = summarise_classification(*draw(60, 4, seed))
        held += found["mAP_low"] <= everything["mAP"] <= found["mAP_high"]
    assert held >= 52  # of 60; by percentiles 47


def test_intervals_are_the_same_each_time_and_end_at_100() -> None:
    scores, is_label = draw(30, 6, 0)
    assert summarise_classification(scores, is_label) == summarise_classification(scores, is_label)
    perfect = summarise_classification(is_label.astype(np.float32), is_label)
    assert {perfect[name] for name in perfect} == {100.0}


# Tables


def test_a_row_a_class_and_a_row_a_confusion() -> None:
    predicted = [0, 0, 1, 2, 1, 2, 2]
    true = [0, 0, 0, 0, 1, 1, 1]
    scores = np.eye(3, dtype=np.float32)[predicted]
    is_label = np.eye(3, dtype=bool)[true]
    rows = class_table(LABELS, scores, is_label, np.array([True, True, False])).to_pylist()
    assert [(r["label"], r["items"], r["predicted"], r["right"], r["named"]) for r in rows] == [
        ("dog", 4, 2, 2, True), ("cat", 3, 2, 1, True), ("rain", 0, 3, 0, False),
    ]  # fmt: skip
    for c, row in enumerate(rows[:2]):
        expected = average_precision_score(is_label[:, c], scores[:, c])
        assert row["average_precision"] == pytest.approx(expected)
    assert confusions(LABELS, scores, is_label).to_pylist() == [
        {"label": "cat", "predicted": "rain", "items": 2, "share": pytest.approx(2 / 3)},
        {"label": "dog", "predicted": "cat", "items": 1, "share": 0.25},
        {"label": "dog", "predicted": "rain", "items": 1, "share": 0.25},
    ]


def test_a_class_without_items_and_no_confusion() -> None:
    scores, is_label = np.eye(3, dtype=np.float32)[:2], np.eye(3, dtype=bool)[:2]
    rows = class_table(LABELS, scores, is_label, np.ones(3, bool)).to_pylist()
    assert (rows[2]["items"], rows[2]["average_precision"]) == (0, None)
    assert confusions(LABELS, scores, is_label).num_rows == 0


def test_of_several_labels_each_is_confused() -> None:
    scores = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    is_label = np.array([[True, True, False], [True, True, False]])
    assert confusions(LABELS, scores, is_label).to_pylist() == [
        {"label": "dog", "predicted": "rain", "items": 1, "share": 0.5},
        {"label": "cat", "predicted": "rain", "items": 1, "share": 0.5},
    ]
