"""Stage ``metrics``: the results of the test sets, each in a folder of its own, side by side."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trimodal.core.files import read_json, write_json, write_text
from trimodal.core.progress import log
from trimodal.core.records import DataError
from trimodal.evaluation.results import AUDIT, CURVE, METRICS

HEADLINE = (
    "R@1", "R@5", "R@10", "MedR", "rsum", "N_10_skewness", "never_retrieved", # of searches
    "top1", "top5", "mAP", "accuracy", # of zero-shot sets; accuracy is the linear probe's
    "cIoU@0.5", "AUC", "cIoU", # of localisation
)  # fmt: skip


def merge_results(
    evaluation: Path, names: Collection[str], *, retrieval: Path, audit: Path, curve: Path
) -> None:
    """Writes the headline numbers of the test sets ``names``, keyed by set, their audits, keyed by
    set, and the curves by audio weight, with a column ``set``. Folders of other sets, of an earlier
    params.yaml, are not read.

    Raises DataError for a set whose results are missing.
    """
    metrics, audits, rows = {}, {}, ["set,audio_weight,R@1,R@5,R@10,MedR"]
    for name in names:
        folder = evaluation / name
        for file in (METRICS, AUDIT):
            if not (folder / file).is_file():
                raise DataError(f"{folder / file} is missing: dvc repro evaluate@{name} makes it")
        metrics[name] = headline(read_json(folder / METRICS))
        audits[name] = read_json(folder / AUDIT)
        if (folder / CURVE).exists():
            rows += [f"{name},{row}" for row in (folder / CURVE).read_text().splitlines()[1:]]
    write_json(retrieval, metrics)
    write_json(audit, audits)
    write_text(curve, "\n".join(rows) + "\n")
    sets = f"{len(metrics)} test sets: {', '.join(metrics)}" if metrics else "no test sets"
    log.info(f"metrics: {sets}; nothing left out")


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The same nested keys with the measures of :data:`HEADLINE` alone; what has none is left out.

    >>> headline({"directions": {"a": {"R@1": 1.0, "MRR": 2.0, "intervals": {"R@1": [0.0, 2.0]}}}})
    {'directions': {'a': {'R@1': 1.0}}}
    """
    kept: dict[str, Any] = {}
    for name, value in metrics.items():
        if name in HEADLINE:
            kept[name] = value
        elif isinstance(value, Mapping) and name != "intervals" and (part := headline(value)):
            kept[name] = part
    return kept
