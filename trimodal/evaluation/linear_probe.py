"""A linear probe: logistic regression on embeddings, tested on folds that it has not seen."""

import warnings
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
        """As JSON."""
        return asdict(self)


def linear_probe(
    embeddings: npt.NDArray[np.float32], labels: Sequence[str], folds: Sequence[str] | None
) -> Probe:
    """Trains scikit-learn's LogisticRegression (C = 1, its default) on all folds but one, on
    features standardised by those folds, and tests on the one; for each fold. ``embeddings`` are
    (items, dim), with one label and fold each; without ``folds``, five stratified ones are drawn.

    Raises DataError for fewer than two folds or classes, and for a class with fewer items than
    there are folds to draw.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold_of = np.array(_drawn_folds(labels) if folds is None else list(folds))
    names, label_of = sorted(set(fold_of.tolist())), np.array(list(labels))
    if len(names) < 2 or len(set(labels)) < 2:
        raise DataError(
            f"linear probe: {len(names)} folds and {len(set(labels))} classes; 2 of each are needed"
        )
    accuracies, not_converged, unseen = {}, [], 0
    for name in names:
        test = fold_of == name
        if len(seen := set(label_of[~test].tolist())) < 2:
            raise DataError(f"linear probe: without fold {name} there is only one class")
        unseen += int((~np.isin(label_of[test], list(seen))).sum())
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
    """A fold for each item, each class spread evenly."""
    from sklearn.model_selection import StratifiedKFold

    names, counts = np.unique(list(labels), return_counts=True)
    if counts.min() < FOLDS:
        rarest = str(names[counts.argmin()])
        raise DataError(
            f"linear probe: class {rarest!r} has {counts.min()} items; {FOLDS} folds need as many"
        )
    fold_of = [""] * len(labels)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    for number, (_, test) in enumerate(splits.split(np.zeros(len(labels)), list(labels)), start=1):
        for item in test:
            fold_of[item] = str(number)
    return fold_of
