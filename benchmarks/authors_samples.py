"""How the authors' code (VAT-Net's data sets) loads a training sample, reimplemented."""

import random
from pathlib import Path

import librosa
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.authors import RATE_HZ, authors_mel, power_mel
from trimodal.media.mel import MelConfig


def authors_view(crop_px: int, resized_px: int | None = None) -> transforms.Compose:
    """The augmentation of a training image in their data sets."""
    resize = [transforms.Resize((resized_px, resized_px))] if resized_px else []
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            *resize,
            transforms.RandomCrop(crop_px),
            transforms.ColorJitter(brightness=0.1, saturation=0.1),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def authors_pair(folder: Path, mel: MelConfig, view: transforms.Compose) -> tuple[Tensor, Tensor]:
    """A sample as their data set loads it: reads the whole WAV, computes the window's mel."""
    second = random.randint(2, 8)  # noqa: S311 - not a secret
    with Image.open(folder / f"{second:02d}.jpg") as image:
        pixels: Tensor = view(image)
    samples, _ = librosa.load(folder / "audio.wav", sr=mel.sample_rate_hz)
    first = (second - 2) * mel.sample_rate_hz
    part = samples[first : first + 3 * mel.sample_rate_hz]
    window = (
        authors_mel(part)
        if mel.sample_rate_hz == RATE_HZ
        else librosa.power_to_db(power_mel(part, mel), ref=np.max, top_db=80)
    )
    to_tensor = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(mean=[-40.0], std=[40.0])]
    )
    return pixels, to_tensor(window)


def authors_images(folder: Path, view: transforms.Compose) -> Tensor:
    """A batch of all images in a folder."""
    views = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            views.append(view(image.convert("RGB")))
    return torch.stack(views)
