"""The paper's comparison, fixed against variable margin, over several seeds on the same data."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimodal.comparison_table import MODES, comparison_table
from trimodal.config import load_section
from trimodal.evaluation import EvaluateConfig, Outputs, evaluate
from trimodal.files import file_fingerprint, git_revision, write_json
from trimodal.images import AugmentConfig
from trimodal.leaks import LeaksConfig
from trimodal.losses import LossConfig
from trimodal.mel import MelConfig
from trimodal.model import ModelConfig
from trimodal.progress import start_logging
from trimodal.trainer import TrainConfig
from trimodal.training import train

_DATA = Path("data")
_PARAMS = Path("params.yaml")
_RESULT = Path("metrics/comparison.json")


def compare_margins(seeds: list[int]) -> str:
    """Trains and evaluates both margin modes with every seed on the data that `dvc repro` left,
    writes ``metrics/comparison.json`` and returns the table.

    Raises ValueError for fewer than two seeds: there would be no spread to judge by.
    """
    seeds = sorted(set(seeds))
    if len(seeds) < 2:
        raise ValueError("compare needs at least two different seeds")
    start_logging()
    revision = git_revision()
    runs = [
        {"margin_mode": mode, "seed": seed, **_run(mode, seed)} for seed in seeds for mode in MODES
    ]
    comparison = {
        "git": revision,
        "data": file_fingerprint(_DATA / "av" / "index.parquet"),
        "seeds": seeds,
        "runs": runs,
    }
    write_json(_RESULT, comparison)
    return comparison_table(comparison)


def _run(mode: Any, seed: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        train_into(
            Path(folder),
            replace(load_section(_PARAMS, "train", TrainConfig), seed=seed),
            replace(load_section(_PARAMS, "loss", LossConfig), margin_mode=mode),
        )
        evaluation = load_section(_PARAMS, "evaluate", EvaluateConfig)
        metrics = evaluate_in(Path(folder), evaluation)
    kept = {"text_to_video": metrics["text_to_video"]}
    if "sound_captions" in metrics.get("demo", {}):
        kept["sound_captions"] = metrics["demo"]["sound_captions"]
    return kept


def train_into(out: Path, config: TrainConfig, loss: LossConfig) -> Path:
    """Trains on the data that `dvc repro` left, with params.yaml's other sections, and returns the
    weights' path, in ``out``.
    """
    weights = out / "model.safetensors"
    train(
        _DATA / "av",
        _DATA / "captions",
        _DATA / "images",
        weights,
        out / "log",
        out / "run.safetensors",
        config=config,
        loss=loss,
        model=load_section(_PARAMS, "model", ModelConfig),
        mel=load_section(_PARAMS, "mel", MelConfig),
        augment=load_section(_PARAMS, "augment", AugmentConfig),
        leaks=load_section(_PARAMS, "leaks", LeaksConfig),
    )
    return weights


def evaluate_in(out: Path, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates what :func:`train_into` left in ``out`` and returns the metrics."""
    outputs = Outputs(
        embeddings=out / "embeddings.parquet",
        ranks=out / "ranks.parquet",
        metrics=out / "retrieval.json",
        audit=out / "audit.json",
        curve=out / "audio_weight.csv",
    )
    evaluate(
        out / "model.safetensors",
        _DATA / "av",
        _DATA / "captions",
        _DATA / "images",
        _DATA / "world",
        outputs,
        config=config,
        leaks=load_section(_PARAMS, "leaks", LeaksConfig),
    )
    metrics: dict[str, Any] = json.loads(outputs.metrics.read_text())
    return metrics
