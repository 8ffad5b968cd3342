"""The linear probe against scikit-learn's own cross-validation and sets with known answers."""

import numpy as np
import numpy.typing as npt
import pytest
from data_fixtures import refused
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimodal.evaluation import linear_probe as module
from trimodal.evaluation.linear_probe import linear_probe


def draw(
    items: int = 60, classes: int = 3, noise: float = 1.5
) -> tuple[npt.NDArray[np.float32], list[str]]:
    rng = np.random.default_rng(0)
    number = np.arange(items) % classes
    rows = np.eye(classes, 8)[number] + noise * rng.standard_normal((items, 8))
    return rows.astype(np.float32), [f"class {n}" for n in number]


def test_folds_of_the_data_set_are_scikit_learns_leave_one_group_out() -> None:
    rows, labels = draw()
    rows *= 10.0 ** np.arange(-4, 4)  # which regression without standard features would feel
    folds = [str(1 + n // 12) for n in range(60)]
    probe = linear_probe(rows, labels, folds)
    expected = 100 * cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        rows, labels, groups=folds, cv=LeaveOneGroupOut(),
    )  # fmt: skip
    assert list(probe.accuracy_by_fold) == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose(list(probe.accuracy_by_fold.values()), expected)
    interval = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert probe.accuracy == pytest.approx(expected.mean())
    assert probe.accuracy_low == pytest.approx(interval.low)
    assert probe.accuracy_high == pytest.approx(interval.high)
    assert (probe.not_converged, probe.items_of_unseen_classes) == ([], 0)


def test_without_folds_five_stratified_ones_are_drawn_and_always_the_same() -> None:
    rows, labels = draw(noise=0.1)
    probe = linear_probe(rows, labels, None)
    assert list(probe.accuracy_by_fold) == ["1", "2", "3", "4", "5"]
    assert probe.accuracy == 100
    assert linear_probe(rows, labels, None) == probe
    folds = module._drawn_folds(labels)
    for label in set(labels):
        own = [fold for fold, other in zip(folds, labels, strict=True) if other == label]
        assert sorted(own) == sorted("12345" * 4)


def test_features_are_standardised_without_a_look_at_the_tested_fold() -> None:
    """One test item with a huge feature must not change what the others are scaled by."""
    rows, labels = draw(noise=0.1)
    folds = ["1" if n < 12 else "2" for n in range(60)]
    before = linear_probe(rows, labels, folds).accuracy_by_fold["1"]
    rows[0] = 1e6
    assert linear_probe(rows, labels, folds).accuracy_by_fold["1"] >= before - 8.4  # itself


def test_noise_is_not_learned() -> None:
    rows, labels = draw(noise=1e6)
    assert linear_probe(rows, labels, None).accuracy < 60


def test_items_whose_class_is_in_no_other_fold_are_counted_and_wrong() -> None:
    rows, labels = draw(noise=0.1)
    labels[0] = labels[1] = "lonely"
    folds = ["1" if n < 30 else "2" for n in range(60)]
    probe = linear_probe(rows, labels, folds)
    assert probe.items_of_unseen_classes == 2
    assert probe.accuracy_by_fold["1"] == pytest.approx(100 * 28 / 30)


def test_a_rare_class_is_drawn_into_as_many_folds_as_it_has_items() -> None:
    rows, labels = draw(noise=0.1)
    labels[0], labels[1], labels[2] = "rare", "rare", "single"
    probe = linear_probe(rows, labels, None)
    assert probe.items_of_unseen_classes == 1
    assert probe.accuracy < 100


def test_a_regression_that_has_not_converged_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ITERATIONS", 1)
    rows, labels = draw()
    folds = ["a" if n < 30 else "b" for n in range(60)]
    assert linear_probe(rows, labels, folds).not_converged == ["a", "b"]


def test_too_few_folds_classes_or_items_are_refused() -> None:
    rows, labels = draw()
    refused(lambda: linear_probe(rows, labels, ["1"] * 60), "all items are in fold 1")
    refused(lambda: linear_probe(rows, ["dog"] * 60, None), "only one class")
    refused(lambda: linear_probe(rows[:12], labels[:12], None), "no class has 5 items")
    halves = ["dog"] * 30 + ["cat"] * 30
    folds = ["1"] * 30 + ["2"] * 30
    refused(lambda: linear_probe(rows, halves, folds), "without fold 1", "only one class")


def test_metrics_are_plain() -> None:
    rows, labels = draw()
    probe = linear_probe(rows, labels, None)
    assert set(probe.metrics()) == {
        "accuracy", "accuracy_low", "accuracy_high", "accuracy_by_fold",
    }  # fmt: skip
    assert set(probe.audit()) == {"not_converged", "items_of_unseen_classes"}
