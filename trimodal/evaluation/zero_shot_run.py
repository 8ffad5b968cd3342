"""Zero-shot classification of a test set, and a linear probe beside it (docs/zero-shot.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.files import write_json, write_table
from trimodal.core.records import DataError
from trimodal.evaluation.linear_probe import Probe, linear_probe, probe_folds
from trimodal.evaluation.prompt_files import ClassList, read_classes, read_templates
from trimodal.evaluation.results import CLASSES, CONFUSIONS, ITEMS, METRICS
from trimodal.evaluation.zero_shot import (
    Matrix,
    NamedClasses,
    best_label_ranks,
    class_scores,
    class_table,
    confusions,
    embed_classes,
    summarise_classification,
    unit_rows,
    video_scores,
)
from trimodal.evaluation.zero_shot_items import (
    EmbeddedItems,
    ItemEmbeddings,
    LabelledItem,
    LabelledItems,
    ZeroShotModel,
    classes_of,
    embed_items,
    keep_classes,
    read_items,
)
from trimodal.evaluation.zero_shot_set import CLASSES_OF_DATA, ZeroShotSet

EmbedItems = Callable[[Sequence[LabelledItem]], EmbeddedItems]


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult:
    """``metrics`` are finite numbers, ``audit`` is what they rest on, both as JSON; and tables: a
    row a class, a row a confused pair, a row an item. ``embeddings`` are those of the items.
    """

    metrics: dict[str, Any]
    audit: dict[str, Any]
    classes: pa.Table
    confusions: pa.Table
    items: pa.Table
    embeddings: ItemEmbeddings


def run_zero_shot(
    name: str, config: ZeroShotSet, model: ZeroShotModel, embed: EmbedItems | None = None
) -> ZeroShotResult:
    """Classifies the items of the set ``name``. ``embed`` is called for all of its items, whatever
    the classes are; None embeds them with ``model``.

    Items that cannot be used (missing or broken files, labels that are no classes, silent clips
    among sounds) are left out and counted by reason; a class that the model cannot name stays, and
    its items are wrong. Raises DataError for faulty files and too many unusable items,
    EmbeddingError for embeddings that are zero or not finite, UnreadableError for a file that this
    machine cannot read.
    """
    templates = read_templates(config.prompts)
    items = read_items(config, model)
    every = tuple(items.used)
    of_data = config.classes == CLASSES_OF_DATA
    classes = classes_of(items) if of_data else read_classes(config.classes)
    other_labels = keep_classes(items, classes)
    items.check_coverage(name, config.min_coverage)
    if config.linear_probe:
        _check_probe(items)
    named = embed_classes(classes, templates, model.embed_text, model.words_of)
    embedded = embed(every) if embed else embed_items(every, config.modality, model)
    embeddings = items.keep_decoded(every, embedded)
    items.check_coverage(name, config.min_coverage)
    is_label = _label_matrix(items, classes)
    scores = _scores(config, embeddings, named)
    metrics: dict[str, Any] = dict(summarise_classification(scores, is_label))
    audit = {
        "items": len(items.used),
        "classes": len(classes.labels),
        "left_out": dict(sorted(items.left_out.items())),
        "passed_over": dict(sorted(items.passed_over.items())),
        "unknown_classes": _chosen(classes, ~named.is_named),
        "unknown_words": {label: list(words) for label, words in named.unknown_words.items()},
        "unknown_prompt_words": list(named.unknown_prompt_words),
        "classes_without_items": _chosen(classes, is_label.sum(axis=0) == 0),
        "labels_that_are_no_classes": dict(sorted(other_labels.items())),
        "class_file": classes.origin,
        "prompt_file": templates.origin,
        "prompts_a_class": len(templates.sentences),
    }
    if config.linear_probe:
        probe = _probe(config, items, embeddings)
        metrics["linear_probe"] = probe.metrics()
        audit["linear_probe"] = probe.audit()
    return ZeroShotResult(
        metrics=metrics,
        audit=audit,
        classes=class_table(classes.labels, scores, is_label, named.is_named),
        confusions=confusions(classes.labels, scores, is_label),
        items=_item_table(items, classes, scores, is_label),
        embeddings=embeddings,
    )


def _label_matrix(items: LabelledItems, classes: ClassList) -> npt.NDArray[np.bool_]:
    """Which items have which class as a label, (items, classes)."""
    column = {label: number for number, label in enumerate(classes.labels)}
    is_label = np.zeros((len(items.used), len(column)), bool)
    for row, item in zip(is_label, items.used, strict=True):
        row[[column[label] for label in item.labels if label in column]] = True
    return is_label


def _chosen(classes: ClassList, is_chosen: npt.NDArray[np.bool_]) -> list[str]:
    return [classes.labels[number] for number in np.flatnonzero(is_chosen)]


def write_zero_shot(folder: Path, result: ZeroShotResult) -> None:
    """Writes the tables and then the metrics."""
    write_table(folder / CLASSES, result.classes)
    write_table(folder / CONFUSIONS, result.confusions)
    write_table(folder / ITEMS, result.items)
    write_json(folder / METRICS, result.metrics)


def _scores(config: ZeroShotSet, embeddings: ItemEmbeddings, named: NamedClasses) -> Matrix:
    if config.audio_weight is None:
        part = embeddings.audio if config.modality == "sound" else embeddings.image
        return class_scores(part, named)
    return video_scores(
        embeddings.image, embeddings.audio, embeddings.has_audio, config.audio_weight, named
    )


def _check_probe(items: LabelledItems) -> None:
    if several := [item.name for item in items.used if len(item.labels) > 1]:
        raise DataError(
            f"linear probe: {len(several)} items have several labels, the first is {several[0]}; "
            "set linear_probe to false"
        )
    probe_folds(*_labels_and_folds(items))


def _labels_and_folds(items: LabelledItems) -> tuple[list[str], list[str] | None]:
    """The label of each item, and its fold; None unless all have one."""
    folds = [item.fold for item in items.used]
    return [item.labels[0] for item in items.used], folds if all(folds) else None


def _probe(config: ZeroShotSet, items: LabelledItems, embeddings: ItemEmbeddings) -> Probe:
    """Of videos, on image and audio embeddings side by side; the audio of silent ones is zero."""
    image, audio = embeddings.image, embeddings.audio
    if config.modality == "sound":
        features = unit_rows(audio, "items")
    elif config.modality == "picture":
        features = unit_rows(image, "items")
    else:
        sound = np.zeros_like(audio)
        sound[embeddings.has_audio] = unit_rows(audio[embeddings.has_audio], "items")
        features = np.concatenate([unit_rows(image, "items"), sound], axis=1)
    return linear_probe(features, *_labels_and_folds(items))


def _item_table(
    items: LabelledItems, classes: ClassList, scores: Matrix, is_label: npt.NDArray[np.bool_]
) -> pa.Table:
    ranks = best_label_ranks(scores, is_label)
    return pa.table(
        {
            "item": [item.name for item in items.used],
            "labels": pa.array([list(item.labels) for item in items.used], pa.list_(pa.string())),
            "fold": [item.fold for item in items.used],
            "predicted": [classes.labels[column] for column in scores.argmax(axis=1)],
            "rank": pa.array(ranks, mask=np.isinf(ranks)),
        }
    )
