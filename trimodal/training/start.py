"""What must hold of the params before a training run starts; none of it needs data."""

from collections.abc import Sequence
from pathlib import Path

from trimodal.core.arguments import missing_packages
from trimodal.core.errors import UserError
from trimodal.core.records import DataError
from trimodal.models.config import ModelConfig
from trimodal.training.config import Logger


class LoggerError(UserError, RuntimeError):
    """A logger of ``train.loggers`` that is not installed."""


def check_loggers(loggers: Sequence[Logger]) -> None:
    """Raises LoggerError for one that is not installed."""
    for name in loggers:
        if missing_packages(name):
            raise LoggerError(
                f"train.loggers: {name} is not installed: pip install 'trimodal[{name}]'"
            )


def check_start(model: ModelConfig, model_dir: Path) -> None:
    """Raises DataError for a run that would start from its own output, which DVC removes before
    the stage begins.
    """
    if model.init_from and Path(model.init_from).resolve() == model_dir.resolve():
        raise DataError(
            f"model.init_from: {model.init_from}: is where training writes its model; name a copy: "
            f"dvc checkout {model_dir} && cp -r {model_dir} models/first"
        )


def check_captions(model: ModelConfig, *, are_there: bool) -> None:
    """Raises DataError for a text network that would have to learn, or lacks its words, where there
    are no captions.
    """
    if not are_there and ("text" not in model.freeze or model.has_vocabulary):
        raise DataError(
            "there are no captions (captions.coco_annotations and "
            "captions.flickr30k_annotations: none): model.text_network must be a pretrained tower, "
            "and model.freeze must have text"
        )
