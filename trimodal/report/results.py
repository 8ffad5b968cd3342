"""What ``train`` and ``evaluate`` left in the metrics folder, read for the report."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimodal.core.files import read_json

Metrics = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """``losses`` holds the loss of each epoch for ``train`` and ``val``; the other fields hold the
    file of the same name, ``audio_weight_curve`` the rows of ``audio_weight.csv``.
    """

    retrieval: Metrics
    audit: Metrics
    audio_weight_curve: list[dict[str, float]]
    losses: dict[str, list[float]]
    comparison: Metrics


def read_results(metrics_dir: Path) -> Results:
    """Raises FileNotFoundError where a stage left nothing."""
    curves = metrics_dir / "train" / "plots" / "metrics"
    return Results(
        retrieval=read_json(metrics_dir / "retrieval.json"),
        audit=read_json(metrics_dir / "audit.json"),
        audio_weight_curve=_read_numbers(metrics_dir / "audio_weight.csv", ","),
        losses={
            part: [row["loss"] for row in _read_numbers(curves / part / "loss.tsv", "\t")]
            for part in ("train", "val")
        },
        comparison=read_json(metrics_dir / "comparison.json"),
    )


def _read_numbers(path: Path, delimiter: str) -> list[dict[str, float]]:
    with path.open(newline="") as lines:
        return [
            {name: float(value) for name, value in row.items() if name != "timestamp"}
            for row in csv.DictReader(lines, delimiter=delimiter)
        ]
