"""A linear probe: logistic regression on embeddings, tested on folds that it has not seen."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from trimodal.core.records import DataError

FOLDS = 5  # where the data set has none of its own
_SEED = 1
_MAX_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The mean accuracy over folds in per cent, with its 95 % interval (Student's t over folds);
    accuracy by fold; the folds whose regression had not converged; and the items whose class is in
    none of the other folds, which cannot be right.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_by_fold: dict[str, float]
    not_converged: list[str]
    items_of_unseen_classes: int

    def metrics(self) -> dict[str, object]:
        """The accuracies, as JSON."""
        return {name: value for name, value in asdict(self).items() if "accuracy" in name}

    def audit(self) -> dict[str, object]:
        """What they rest on, as JSON."""
        return {name: value for name, value in asdict(self).items() if "accuracy" not in name}


def probe_folds(labels: Sequence[str], folds: Sequence[str] | None) -> list[str]:
    """The fold of each item: its own, or one of five stratified ones that are drawn.

    Raises DataError for a single fold, for a single class outside of one fold, and where folds must
    be drawn and no class has an item for each.
    """
    if folds is None:
        if max(Counter(labels).values()) < FOLDS:
            raise DataError(f"linear probe: no class has {FOLDS} items, one for each fold to draw")
        folds = _drawn_folds(labels)
    if len(names := set(folds)) < 2:
        raise DataError(f"linear probe: all items are in fold {folds[0]}")
    for name in sorted(names):
        others = {label for label, fold in zip(labels, folds, strict=True) if fold != name}
        if len(others) < 2:
            raise DataError(f"linear probe: without fold {name} there is only one class")
    return list(folds)


def linear_probe(
    embeddings: npt.NDArray[np.float32], labels: Sequence[str], folds: Sequence[str] | None
) -> Probe:
    """Trains scikit-learn's LogisticRegression (C = 1, its default) on all folds but one, on
    features standardised by those folds, and tests on the one; for each fold. ``embeddings`` are
    (items, dim), with one label and fold each; without ``folds``, five stratified ones are drawn.

    Raises DataError as :func:`probe_folds`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold_of = np.array(probe_folds(labels, folds))
    names, label_of = sorted(set(fold_of.tolist())), np.array(list(labels))
    accuracies, not_converged, unseen = {}, [], 0
    for name in names:
        test = fold_of == name
        unseen += int((~np.isin(label_of[test], label_of[~test])).sum())
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(embeddings[~test].astype(np.float64), label_of[~test])
        if model[-1].n_iter_.max() >= _MAX_ITERATIONS:
            not_converged.append(name)
        right = model.predict(embeddings[test].astype(np.float64)) == label_of[test]
        accuracies[name] = 100.0 * float(right.mean())
    values = np.array(list(accuracies.values()))
    half_width = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    mean = float(values.mean())
    return Probe(
        accuracy=mean,
        accuracy_low=mean - half_width,
        accuracy_high=mean + half_width,
        accuracy_by_fold=accuracies,
        not_converged=not_converged,
        items_of_unseen_classes=unseen,
    )


def _drawn_folds(labels: Sequence[str]) -> list[str]:
    """A fold for each item, each class spread as evenly as it can be."""
    from sklearn.model_selection import StratifiedKFold

    fold_of = [""] * len(labels)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    with warnings.catch_warnings():  # of rare classes, whose items are counted
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        drawn = list(splits.split(np.zeros(len(labels)), list(labels)))
    for number, (_, test) in enumerate(drawn, start=1):
        for item in test:
            fold_of[item] = str(number)
    return fold_of
