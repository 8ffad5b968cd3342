"""A tiny model, its settings and batches, and a run of the train stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from configs import MACHINE, config_for_tests
from model_fixtures import MODEL
from torch import Tensor
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.machine import MachineConfig
from trimodal.data.clip_index import read_index
from trimodal.models.networks import TrimodalNet
from trimodal.training.config import TrainConfig
from trimodal.training.image_audio import FrameSampling, ImageAudioValidation
from trimodal.training.leaks import LeaksConfig
from trimodal.training.train import train

CONFIG = config_for_tests(
    TrainConfig, batch_size=3, epochs=2, steps_per_epoch=2, learning_rate=1e-3, weight_decay=1e-5,
    rate_step_epochs=2, image_rate_factor=0.5, text_rate_factor=2.0,
)  # fmt: skip
THREE_STEPS = replace(MACHINE, checkpoint_every_steps=3)
LOSS = VARIABLE_MARGIN


def network() -> TrimodalNet:
    torch.manual_seed(3)
    return TrimodalNet(MODEL, torch.randn(20, 300))


def batches(size: int = 4) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(4)

    def images() -> Tensor:
        return torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)

    audio = [images(), torch.randn(size, 1, 16, 151, generator=generator)]
    return audio, [images(), torch.randint(0, 20, (size, 16), generator=generator)]


def adam(net: TrimodalNet) -> torch.optim.Adam:
    groups = [(net.image, 0.5e-3), (net.audio, 1e-3), (net.text, 2e-3)]
    return torch.optim.Adam(
        [{"params": part.parameters(), "lr": rate} for part, rate in groups],
        weight_decay=1e-5,
        fused=True,  # as the trainer: a gradient of nearly zero makes a whole step of its rounding
    )


def seven_validation_clips(data: TinyData) -> ImageAudioValidation:
    """The training clips, as validation reads them."""
    sampling = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)
    clips = read_index(data.av_dir, "train", data.mel)
    return ImageAudioValidation(clips, sampling, data.front_end, data.augment)


def run_training(
    data: TinyData,
    folder: Path,
    leaks: Any = "fail",
    machine: MachineConfig = THREE_STEPS,
    **changes: int | str,
) -> Path:
    path = folder / "trimodal"
    train(
        data.av_dir, data.captions_dir, data.images_dir, path, folder / "log",
        folder / "run.safetensors", config=replace(CONFIG, **changes), loss=LOSS, model=MODEL,
        front_end=data.front_end, augment=data.augment,
        leaks=LeaksConfig(test_in_training=leaks), machine=machine,
    )  # fmt: skip
    return path


def model_files(folder: Path) -> dict[str, bytes]:
    """The content of a model's files, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
