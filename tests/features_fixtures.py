"""Frozen towers of the tiny data, and their features as the stage leaves them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from configs import MACHINE, config_for_tests
from model_fixtures import MODEL
from training_fixtures import TinyData

from trimodal.core.machine import MachineConfig
from trimodal.features.config import FeaturesConfig
from trimodal.features.frozen import FrozenTowers
from trimodal.features.stage import make_features
from trimodal.features.store import FeatureStore
from trimodal.models.config import ModelConfig

FEATURES = config_for_tests(FeaturesConfig, views=3, seed=11)
FROZEN = replace(MODEL, freeze=("image", "text"))


def towers_of(data: TinyData, model: ModelConfig = FROZEN, **changes: Any) -> FrozenTowers:
    return FrozenTowers(
        model=model,
        config=replace(FEATURES, **changes),
        augment=data.augment,
        captions_dir=data.captions_dir,
    )


def make(
    data: TinyData,
    folder: Path,
    towers: FrozenTowers | None = None,
    machine: MachineConfig = MACHINE,
) -> Path:
    make_features(data.av_dir, data.images_dir, folder, towers or towers_of(data), machine)
    return folder


def open_store(folder: Path, towers: FrozenTowers) -> FeatureStore:
    return FeatureStore(folder, towers.identities(towers.build()))
