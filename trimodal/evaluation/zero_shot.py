"""Zero-shot classification: an item gets the class whose name is nearest to it, as in CLIP (Radford
et al. 2021, section 3.1.4; docs/zero-shot.md).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jaxtyping import Bool, Float

from trimodal.core.schemas import WORDS
from trimodal.core.text import Vocabulary
from trimodal.evaluation.prompt_files import ClassList, Templates
from trimodal.evaluation.retrieval import EmbeddingError, mix

Matrix = npt.NDArray[np.float32]
EmbedText = Callable[[Sequence[str]], Matrix]  # sentences to (sentences, dim)
TOP = (1, 5)
RESAMPLES = 1000
_BATCH = 50  # resamples whose weights are in memory together
_SEED = 1  # of the resampling: the same scores always have the same interval
_UNNAMED = np.finfo(np.float32).min  # the score of a class without a name


@dataclass(frozen=True, kw_only=True)
class WordUse:
    """The words of a text that count, and those for which the model has nothing."""

    known: tuple[str, ...]
    unknown: tuple[str, ...]


WordsOf = Callable[[str], WordUse]


def words_in(vocabulary: Vocabulary) -> WordsOf:
    """Which words of a text a model with this vocabulary knows, by a row or by their spelling."""

    def words_of(text: str) -> WordUse:
        words = vocabulary.tokeniser.words(text)[:WORDS]
        known = [w for w in words if w in vocabulary or vocabulary.spelling(w) is not None]
        return WordUse(
            known=tuple(known), unknown=tuple(word for word in words if word not in known)
        )

    return words_of


@dataclass(frozen=True, kw_only=True)
class NamedClasses:
    """The embeddings of a set's classes, (classes, dim) unit vectors. Rows of classes that the
    model cannot name, because it knows none of their words, are zero and ``is_named`` is false;
    ``unknown_words`` has the words of each class that do not count, if there are any,
    ``unknown_prompt_words`` those of the templates.
    """

    embeddings: Matrix
    is_named: npt.NDArray[np.bool_]
    unknown_words: dict[str, tuple[str, ...]]
    unknown_prompt_words: tuple[str, ...]


def embed_classes(
    classes: ClassList, templates: Templates, embed_text: EmbedText, words_of: WordsOf | None = None
) -> NamedClasses:
    """The normalised mean of the normalised embeddings of a class's prompts, for each class.
    ``words_of`` tells which words the model knows; None: all of them, since it splits words into
    pieces.

    Raises EmbeddingError for a prompt whose embedding is zero or not finite.
    """
    uses = [words_of(words) for words in classes.words] if words_of else []
    is_named = np.array([bool(use.known) for use in uses] or [True] * len(classes.words))
    named = [words for words, is_one in zip(classes.words, is_named, strict=True) if is_one]
    if not named:
        raise EmbeddingError("zero shot: the model knows no word of any class")
    total = np.zeros((len(named), 1))
    for sentence in templates.sentences:  # all prompts of all classes would be many
        prompts = [Templates(origin="", sentences=(sentence,)).prompts(w)[0] for w in named]
        total = total + unit_rows(embed_text(prompts), "prompts").astype(np.float64)
    embeddings = np.zeros((len(classes.words), total.shape[1]), np.float32)
    embeddings[is_named] = unit_rows(total / len(templates.sentences), "classes")
    return NamedClasses(
        embeddings=embeddings,
        is_named=is_named,
        unknown_words={
            label: use.unknown
            for label, use in zip(classes.labels, uses, strict=False)
            if use.unknown
        },
        unknown_prompt_words=_unknown_in(templates, words_of),
    )


def _unknown_in(templates: Templates, words_of: WordsOf | None) -> tuple[str, ...]:
    uses = [words_of(sentence) for sentence in templates.prompts("")] if words_of else []
    return tuple(sorted({word for use in uses for word in use.unknown}))


def unit_rows(rows: npt.NDArray[Any], what: str) -> Matrix:
    """The rows divided by their norms, float32. Raises EmbeddingError, naming ``what`` they are, if
    one is zero or not finite.
    """
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if bad := int((~(np.isfinite(norms) & (norms > 0))).sum()):
        raise EmbeddingError(
            f"zero shot: {bad} of {len(rows)} embeddings of {what} are zero or not finite"
        )
    unit: Matrix = (rows / norms).astype(np.float32)
    return unit


def class_scores(items: Float[np.ndarray, "items dim"], classes: NamedClasses) -> Matrix:
    """Cosines, float32 (items, classes); of classes without a name, less than any cosine. Raises
    EmbeddingError for an item whose embedding is zero or not finite.
    """
    return np.where(classes.is_named, _cosines(items, classes), _UNNAMED)


def video_scores(
    image: Float[np.ndarray, "items dim"],
    audio: Float[np.ndarray, "items dim"],
    has_audio: Bool[np.ndarray, " items"],
    audio_weight: float,
    classes: NamedClasses,
) -> Matrix:
    """:func:`class_scores` of image and audio, mixed; of the image alone for silent videos."""
    by_image = _cosines(image, classes)
    by_audio = _cosines(np.where(has_audio[:, None], audio, image), classes)
    return np.where(classes.is_named, mix(by_image, by_audio, audio_weight), _UNNAMED)


def _cosines(items: npt.NDArray[np.floating[Any]], classes: NamedClasses) -> Matrix:
    scores: Matrix = unit_rows(items, "items") @ classes.embeddings.T
    return scores


def best_label_ranks(
    scores: Float[np.ndarray, "items classes"], is_label: Bool[np.ndarray, "items classes"]
) -> Float[np.ndarray, " items"]:
    """The rank of the best of each item's labels among the classes, from 1:
    1 + (other classes with a greater score) + (other classes with the same) / 2; infinite if none
    of its labels has a name. With one label an item this is
    :func:`trimodal.evaluation.retrieval.ranks`.

    Raises EmbeddingError for scores that are not finite and for items without a label.
    """
    if not scores.size or not np.isfinite(scores).all():
        raise EmbeddingError("zero shot: no items, no classes, or scores that are not finite")
    if not is_label.any(axis=1).all():
        raise EmbeddingError("zero shot: items without a label")
    best = np.where(is_label, scores, -np.inf).max(axis=1, keepdims=True)
    greater = ((scores > best) & ~is_label).sum(axis=1)
    ties = ((scores == best) & ~is_label).sum(axis=1)
    rank: npt.NDArray[np.float64] = 1.0 + greater + ties / 2.0
    rank[best[:, 0] == _UNNAMED] = np.inf
    return rank


def average_precisions(
    scores: Float[np.ndarray, " items"],
    is_label: Bool[np.ndarray, " items"],
    weights: npt.NDArray[np.int64],
) -> Float[np.ndarray, " sets"]:
    """The average precision of one class in several weighted sets of the items; ``weights``,
    (sets, items), is how often each has each item. NaN where a set has no item with the label.

    The sum over thresholds of precision times the growth of recall, items of equal score entering
    together: ``sklearn.metrics.average_precision_score`` with ``sample_weight``.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = weights[:, order]
    found = np.cumsum(weights, axis=1)[:, ends]
    right = np.cumsum(weights * is_label[order], axis=1)[:, ends]
    growth = np.diff(right, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        precision = np.where(found > 0, right / found, 0.0)
        mean: npt.NDArray[np.float64] = (precision * growth).sum(axis=1) / right[:, -1]
    return mean


def summarise_classification(scores: Matrix, is_label: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Top-1 and, for more than five classes, top-5 accuracy; if items have several labels, the
    mean average precision over the classes that any item has. In per cent, each with ``_low`` and
    ``_high``, its 95 % interval over resampled items: for accuracies the bootstrap's percentiles
    (Efron 1979); for the mAP, which an item drawn twice raises, its basic interval, the percentiles
    mirrored at the value (Davison and Hinkley 1997, section 5.2.1).

    An item with several labels counts as right if its best one is within the first K.
    """
    ranks = best_label_ranks(scores, is_label)
    top = [k for k in TOP if k == 1 or k < scores.shape[1]]
    hits = np.stack([ranks <= k for k in top], axis=1).astype(np.float64)
    names = [f"top{k}" for k in top]
    is_multi_label = bool((is_label.sum(axis=1) > 1).any())
    if is_multi_label:
        names.append("mAP")

    def measured(weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(sets, measures)."""
        values = weights @ hits / len(scores)
        if not is_multi_label:
            return np.asarray(values)
        precisions = [
            average_precisions(scores[:, c], is_label[:, c], weights)
            for c in np.flatnonzero(is_label.any(axis=0))
        ]
        return np.column_stack([values, np.nanmean(precisions, axis=0)])

    point = 100 * measured(np.ones((1, len(scores)), np.int64))[0]
    resampled = np.concatenate([100 * measured(weights) for weights in _resamples(len(scores))])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    if is_multi_label:
        mirrored = 2 * point[-1] - high[-1], 2 * point[-1] - low[-1]
        low[-1], high[-1] = np.clip(mirrored, 0, 100)
    summary: dict[str, float] = {}
    for name, *values in zip(names, point, low, high, strict=True):
        summary |= zip((name, f"{name}_low", f"{name}_high"), map(float, values), strict=True)
    return summary


def _resamples(items: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each item is drawn, (batch, items), until there are RESAMPLES rows."""
    rng = np.random.default_rng(_SEED)
    shares = np.full(items, 1 / items)
    for start in range(0, RESAMPLES, _BATCH):
        yield rng.multinomial(items, shares, size=min(_BATCH, RESAMPLES - start))


def class_table(
    labels: Sequence[str],
    scores: Matrix,
    is_label: npt.NDArray[np.bool_],
    is_named: npt.NDArray[np.bool_],
) -> pa.Table:
    """One row a class, in its order: label, whether it has a name, the number of items that have
    it, of items for which it scores highest, and of those the right ones; its average precision,
    null without an item.
    """
    predicted = scores.argmax(axis=1)
    hit = is_label[np.arange(len(scores)), predicted]
    every = np.ones((1, len(scores)), np.int64)
    precisions = [
        average_precisions(scores[:, c], is_label[:, c], every)[0] if is_label[:, c].any() else None
        for c in range(len(labels))
    ]
    return pa.table(
        {
            "label": list(labels),
            "named": pa.array(is_named),
            "items": is_label.sum(axis=0),
            "predicted": np.bincount(predicted, minlength=len(labels)),
            "right": np.bincount(predicted[hit], minlength=len(labels)),
            "average_precision": pa.array(precisions, pa.float64()),
        }
    )


def confusions(labels: Sequence[str], scores: Matrix, is_label: npt.NDArray[np.bool_]) -> pa.Table:
    """The pairs of a class and another that its items are taken for, most frequent first: label,
    predicted, items and their share of the label's items. Of items with several labels, those whose
    prediction is none of them count for each of their labels.
    """
    predicted = scores.argmax(axis=1)
    wrong = ~is_label[np.arange(len(scores)), predicted]
    counts = np.zeros((len(labels), len(labels)), np.int64)
    item, label = np.nonzero(is_label & wrong[:, None])
    np.add.at(counts, (label, predicted[item]), 1)
    pairs = np.argwhere(counts)
    pairs = pairs[np.argsort(-counts[pairs[:, 0], pairs[:, 1]], kind="stable")]
    found = counts[pairs[:, 0], pairs[:, 1]]
    return pa.table(
        {
            "label": pa.array([labels[true] for true, _ in pairs], pa.string()),
            "predicted": pa.array([labels[other] for _, other in pairs], pa.string()),
            "items": found,
            "share": found / is_label.sum(axis=0)[pairs[:, 0]],
        }
    )
