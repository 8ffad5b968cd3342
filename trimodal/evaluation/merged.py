"""Stage ``metrics``: the results of the test sets, each in a folder of its own, side by side."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trimodal.core.files import read_json, write_json, write_text
from trimodal.core.progress import log
from trimodal.core.records import DataError
from trimodal.evaluation.results import AUDIT, CURVE, METRICS

MEASURES = (
    "R@1", "R@5", "R@10", "MedR", "rsum", "N_10_skewness", "never_retrieved", # of searches
    "top1", "top5", "mAP", "accuracy", # of zero-shot sets; accuracy is the linear probe's
    "cIoU@0.5", "AUC", "cIoU", # of localisation
)  # fmt: skip
_OF_PAIRS = ("R@1", "R@10", "MedR")
# By kind of test set: the keys that lead to some of its metrics, and which of these.
HEADLINE: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {
    "text_video": {
        ("text_to_video", "image_audio"): ("R@1", "R@5", "R@10", "MedR"),
        ("text_to_video", "image"): ("R@1", "R@10"),
    },
    "text_image": {
        ("directions", "text_to_image"): _OF_PAIRS,
        ("directions", "image_to_text"): _OF_PAIRS,
    },
    "text_audio": {
        ("directions", "text_to_audio"): _OF_PAIRS,
        ("directions", "audio_to_text"): _OF_PAIRS,
    },
    "audio_image": {
        ("directions", "audio_to_image"): _OF_PAIRS,
        ("directions", "image_to_audio"): _OF_PAIRS,
    },
    "zero_shot": {(): ("top1", "mAP"), ("linear_probe",): ("accuracy",)},
    "localisation": {("sound", "half"): ("cIoU@0.5", "AUC")},
}


def merge_results(
    evaluation: Path,
    names: Collection[str],
    *,
    retrieval: Path,
    measures: Path,
    audit: Path,
    curve: Path,
) -> None:
    """Writes what the test sets ``names`` have, keyed by set: the headline numbers
    (``retrieval``), all measures, the audits; and the curves by audio weight, with a column
    ``set``. Folders of other sets, of an earlier params.yaml, are not read.

    Raises DataError for a set whose results are missing.
    """
    headlines, metrics, audits = {}, {}, {}
    rows = ["set,audio_weight,R@1,R@5,R@10,MedR"]
    for name in names:
        folder = evaluation / name
        for file in (METRICS, AUDIT):
            if not (folder / file).is_file():
                raise DataError(f"{folder / file} is missing: dvc repro evaluate@{name} makes it")
        of_set = read_json(folder / METRICS)
        audits[name] = read_json(folder / AUDIT)
        headlines[name] = headline(audits[name]["kind"], of_set)
        metrics[name] = measured(of_set)
        if (folder / CURVE).exists():
            rows += [f"{name},{row}" for row in (folder / CURVE).read_text().splitlines()[1:]]
    write_json(retrieval, headlines)
    write_json(measures, metrics)
    write_json(audit, audits)
    write_text(curve, "\n".join(rows) + "\n")
    sets = f"{len(metrics)} test sets: {', '.join(metrics)}" if metrics else "no test sets"
    log.info(f"metrics: {sets}; nothing left out")


def headline(kind: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of :data:`HEADLINE` that a set of this kind has, under the same nested keys,
    rounded to 0.01.

    >>> headline("zero_shot", {"top1": 47.198, "top5": 81.6, "linear_probe": {"accuracy": 68.0}})
    {'top1': 47.2, 'linear_probe': {'accuracy': 68.0}}
    """
    kept: dict[str, Any] = {}
    for keys, names in HEADLINE[kind].items():
        found, place = metrics, kept
        for key in keys:
            found = found.get(key, {})
        numbers = {name: round(found[name], 2) for name in names if name in found}
        for key in keys if numbers else ():
            place = place.setdefault(key, {})
        place |= numbers
    return kept


def measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The same nested keys with the numbers of :data:`MEASURES` alone; what has none is left out.

    >>> measured({"directions": {"a": {"R@1": 1.0, "MRR": 2.0, "intervals": {"R@1": [0.0, 2.0]}}}})
    {'directions': {'a': {'R@1': 1.0}}}
    """
    kept: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            if name != "intervals" and (part := measured(value)):
                kept[name] = part
        elif name in MEASURES:
            kept[name] = value
    return kept
