"""Stored JPEGs to network inputs: crop, flip, colour jitter (paper.md, Model, row 'image')."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from trimodal.records import DataError

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Section ``augment``. Training crops of ``crop_px`` lie anywhere in the stored image, are
    flipped half the time, and have brightness and saturation scaled by 1 -+ the given shares.
    """

    crop_px: int
    flip: bool
    brightness: float
    saturation: float

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise ValueError("augment.crop_px must be positive")
        if not (0.0 <= self.brightness < 1.0 and 0.0 <= self.saturation < 1.0):
            raise ValueError("augment: brightness and saturation lie in [0, 1)")


def decode_jpeg(content: bytes) -> Tensor:
    """RGB pixels, uint8 (3, height, width)."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def training_view(pixels: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """A random crop of an image, uint8 (3, crop_px, crop_px); ``rng`` decides everything."""
    height, width = _checked_size(pixels, config)
    top = int(rng.integers(height - config.crop_px + 1))
    left = int(rng.integers(width - config.crop_px + 1))
    view = pixels[:, top : top + config.crop_px, left : left + config.crop_px]
    if config.flip and rng.random() < 0.5:
        view = view.flip(2)
    brightness, saturation = rng.uniform(-1.0, 1.0, size=2)
    if config.brightness:
        view = tv.adjust_brightness(view, 1.0 + config.brightness * brightness)
    if config.saturation:
        view = tv.adjust_saturation(view, 1.0 + config.saturation * saturation)
    cropped: Tensor = view.contiguous()
    return cropped


def centre_view(pixels: Tensor, config: AugmentConfig) -> Tensor:
    """The middle of an image, uint8 (3, crop_px, crop_px)."""
    _checked_size(pixels, config)
    middle: Tensor = tv.center_crop(pixels, [config.crop_px, config.crop_px])
    return middle.contiguous()


def _checked_size(pixels: Tensor, config: AugmentConfig) -> tuple[int, int]:
    height, width = pixels.shape[1:]
    if min(height, width) < config.crop_px:
        raise DataError(
            f"augment.crop_px {config.crop_px} exceeds the stored pictures, {width} x {height} "
            "(extract.frame_px, captions.image_px)"
        )
    return height, width


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (batch, 3, height, width) to float32 with ImageNet's mean 0 and deviation 1."""
    mean = torch.tensor(_IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(_IMAGENET_STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255.0 - mean) / std
