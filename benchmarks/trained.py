"""Trains and evaluates in this process on the data that ``make repro`` wrote to ``data``."""

import json
from pathlib import Path
from typing import Any

from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.evaluation.config import EvaluateConfig
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.results import METRICS
from trimodal.evaluation.task import Inputs
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.checkpoint import WEIGHTS
from trimodal.models.config import ModelConfig
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.config import TrainConfig
from trimodal.training.leaks import LeaksConfig
from trimodal.training.train import train

_DATA = Path("data")
_PARAMS = Path("params.yaml")


def train_into(
    out: Path,
    config: TrainConfig,
    loss: LossConfig,
    model: ModelConfig | None = None,
    augment: AugmentConfig | None = None,
    machine: MachineConfig | None = None,
) -> Path:
    """Trains into ``out`` and returns the path of the weights; sections that are not given are
    those of params.yaml.
    """
    train(
        _DATA / "av",
        _DATA / "captions",
        _DATA / "images",
        out / "model",
        out / "log",
        out / "run.safetensors",
        config=config,
        loss=loss,
        model=model or load_section(_PARAMS, "model", ModelConfig),
        front_end=AudioFrontEnd(
            mel=load_section(_PARAMS, "mel", MelConfig),
            window=load_section(_PARAMS, "window", WindowConfig),
        ),
        augment=augment or load_section(_PARAMS, "augment", AugmentConfig),
        leaks=load_section(_PARAMS, "leaks", LeaksConfig),
        machine=machine or load_section(_PARAMS, "machine", MachineConfig),
    )
    return out / "model" / WEIGHTS


def evaluate_in(
    out: Path, config: EvaluateConfig, machine: MachineConfig | None = None
) -> dict[str, Any]:
    """Evaluates the model that :func:`train_into` wrote to ``out`` on the first test set and
    returns the metrics; without ``machine`` that section is params.yaml's.
    """
    evaluate(
        next(iter(config.sets)),
        Inputs(
            model=out / "model",
            av=_DATA / "av",
            captions=_DATA / "captions",
            images=_DATA / "images",
            world=_DATA / "world",
        ),
        out,
        config=config,
        leaks=load_section(_PARAMS, "leaks", LeaksConfig),
        machine=machine or load_section(_PARAMS, "machine", MachineConfig),
    )
    metrics: dict[str, Any] = json.loads((out / METRICS).read_text())
    return metrics
