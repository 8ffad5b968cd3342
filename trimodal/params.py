"""All of ``params.yaml`` at once: what can be wrong with it is known before any stage runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimodal.core.config import ConfigError, Params
from trimodal.core.errors import UserError
from trimodal.core.language import tokeniser_of
from trimodal.core.machine import MachineConfig
from trimodal.download.demo.world import DemoConfig
from trimodal.download.download import DownloadConfig
from trimodal.download.youtube import YoutubeConfig
from trimodal.evaluation.config import EvaluateConfig
from trimodal.features.config import FeaturesConfig
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import WindowConfig
from trimodal.models.config import ModelConfig
from trimodal.models.preprocessing import AugmentConfig
from trimodal.preprocess.captions import CaptionsConfig
from trimodal.preprocess.clip_shards import ExtractConfig
from trimodal.training.config import TrainConfig
from trimodal.training.leaks import LeaksConfig
from trimodal.training.rounds import batch_size_for
from trimodal.training.start import check_captions, check_loggers, check_start

SECTIONS: dict[str, type[Any]] = {
    "demo": DemoConfig,
    "download": DownloadConfig,
    "youtube": YoutubeConfig,
    "extract": ExtractConfig,
    "mel": MelConfig,
    "window": WindowConfig,
    "captions": CaptionsConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "features": FeaturesConfig,
    "loss": LossConfig,
    "leaks": LeaksConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "machine": MachineConfig,
}


def check_params(path: Path, model_dir: Path) -> None:
    """Reads every section and compares those that depend on each other; ``model_dir`` is where
    training writes. Needs no data, and changes nothing.

    Raises ConfigError, which names file and key, for the first mistake.
    """
    params = Params(path)
    read = {name: params.section(name, cls) for name, cls in SECTIONS.items()}
    try:
        _check_pairs(read, model_dir)
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_pairs(read: Mapping[str, Any], model_dir: Path) -> None:
    captions, model, train = read["captions"], read["model"], read["train"]
    if captions.language != "english":  # whose stop words come with this package
        tokeniser_of(captions.language)
    check_captions(model, are_there=captions.reads_any)
    check_start(model, model_dir)
    check_loggers(train.loggers)
    if read["machine"].devices != "all":
        batch_size_for(train.batch_size, train.batch_size, read["machine"].devices)
    stored = {"extract.frame_px": read["extract"].frame_px}
    if captions.reads_any:
        stored["captions.image_px"] = captions.image_px
    for key, size in stored.items():
        if read["augment"].crop_px > size:
            raise ConfigError(f"augment.crop_px {read['augment'].crop_px} exceeds {key} {size}")
