"""What ``train`` and ``evaluate`` left, read for the report."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimodal.core.files import read_json
from trimodal.evaluation.results import METRICS

Metrics = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """``metrics`` and ``audits`` hold what ``evaluate`` wrote, by test set; ``main`` is the first
    of kind text_video, which the paper's table is about, None if there is none, and
    ``audio_weight_curve`` its rows of ``audio_weight.csv``. ``losses`` holds the loss of each
    epoch for ``train`` and ``val``; ``epoch`` was selected.
    """

    main: str | None
    metrics: dict[str, Metrics]
    audits: dict[str, Metrics]
    audio_weight_curve: list[dict[str, float]]
    losses: dict[str, list[float]]
    epoch: int
    comparison: Metrics

    @property
    def retrieval(self) -> Metrics:
        """The metrics of ``main``, which there must be."""
        return self.metrics[self.main or ""]

    @property
    def audit(self) -> Metrics:
        """The audit of ``main``, which there must be."""
        return self.audits[self.main or ""]

    def of_kind(self, kind: str) -> list[str]:
        """The names of the test sets of a kind."""
        return [name for name, audit in self.audits.items() if audit["kind"] == kind]


def read_results(metrics_dir: Path, evaluation: Path, epoch: int) -> Results:
    """``epoch`` is the selected one. Raises FileNotFoundError where a stage left nothing."""
    curves = metrics_dir / "train" / "plots" / "metrics"
    audits = read_json(metrics_dir / "audit.json")
    main = next((name for name, audit in audits.items() if audit["kind"] == "text_video"), None)
    rows = _read_rows(metrics_dir / "audio_weight.csv", ",")
    return Results(
        main=main,
        metrics={name: read_json(evaluation / name / METRICS) for name in audits},
        audits=audits,
        audio_weight_curve=[_numbers(row, but="set") for row in rows if row["set"] == main],
        losses={
            part: [
                _numbers(row, but="timestamp")["loss"]
                for row in _read_rows(curves / part / "loss.tsv", "\t")
            ]
            for part in ("train", "val")
        },
        epoch=epoch,
        comparison=read_json(metrics_dir / "comparison.json"),
    )


def _read_rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter=delimiter))


def _numbers(row: dict[str, str], *, but: str) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != but}
