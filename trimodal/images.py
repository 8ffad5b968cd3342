"""Stored JPEGs to network inputs: crop, flip, colour jitter (paper.md, Model, row 'image')."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torch import Tensor

from trimodal.records import DataError

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_GREY = np.array((0.2989, 0.587, 0.114), np.float32)  # of red, green and blue (ITU-R 601)
VIEW_CHANCES = 5


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
    """RGB pixels, uint8 (3, height, width); raises ValueError for what is no whole JPEG."""
    return torch.from_numpy(simplejpeg.decode_jpeg(content, "RGB")).permute(2, 0, 1)


def training_view(pixels: Tensor, config: AugmentConfig, chances: Sequence[float]) -> Tensor:
    """A random crop of an image, uint8 (3, crop_px, crop_px). The ``VIEW_CHANCES`` numbers in
    [0, 1) decide everything: top, left, flip, brightness and saturation.
    """
    height, width = _checked_size(pixels, config)
    top = int(chances[0] * (height - config.crop_px + 1))
    left = int(chances[1] * (width - config.crop_px + 1))
    view = pixels.numpy()[:, top : top + config.crop_px, left : left + config.crop_px]
    if config.flip and chances[2] < 0.5:
        view = view[:, :, ::-1]
    brightness = 1.0 + config.brightness * (2.0 * chances[3] - 1.0)
    saturation = 1.0 + config.saturation * (2.0 * chances[4] - 1.0)
    return torch.from_numpy(jitter(view, brightness, saturation))


def jitter(
    pixels: npt.NDArray[np.uint8], brightness: float, saturation: float
) -> npt.NDArray[np.uint8]:
    """Scales an image's brightness and then its saturation, uint8 (3, height, width).

    Both factors as torchvision defines them: pixels times the factor; a blend with ITU-R 601's
    grey. At most one level from torchvision, which cuts the grey to whole levels, too.
    """
    result = np.empty(pixels.shape, np.uint8)
    if brightness == saturation == 1.0:
        np.copyto(result, pixels)
        return result
    levels = np.empty(pixels.shape, np.float32)
    np.copyto(levels, pixels)
    levels *= np.float32(brightness)
    if brightness > 1.0:
        np.clip(levels, 0, 255, out=levels)
    np.floor(levels, out=levels)
    if saturation != 1.0:
        grey, part = levels[0] * _GREY[0], levels[1] * _GREY[1]
        grey += part
        grey += np.multiply(levels[2], _GREY[2], out=part)
        grey *= np.float32(1.0 - saturation)
        levels *= np.float32(saturation)
        levels += grey
        if saturation > 1.0:
            np.clip(levels, 0, 255, out=levels)
    np.copyto(result, levels, casting="unsafe")
    return result


def centre_view(pixels: Tensor, config: AugmentConfig) -> Tensor:
    """The middle of an image, uint8 (3, crop_px, crop_px)."""
    height, width = _checked_size(pixels, config)
    top, left = round((height - config.crop_px) / 2), round((width - config.crop_px) / 2)
    return pixels[:, top : top + config.crop_px, left : left + config.crop_px].contiguous()


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
    return pixels.float().sub_(255.0 * mean).div_(255.0 * std)
