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
_MOST_PIXELS = 2**24  # of a stored picture; a damaged one may claim 2**32
_LEVELS_AT_ONCE = 2**17  # so that what is computed of them stays in the processor's cache


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Section ``augment``. Training crops of ``crop_px`` lie anywhere in the stored image, are
    flipped half the time, and have brightness and saturation scaled by 1 -+ the given shares.
    Windows of sound lose a piece of up to ``mask_seconds`` and a band of up to ``mask_mels``
    (:func:`~trimodal.mel.mask_windows`).
    """

    crop_px: int
    flip: bool
    brightness: float
    saturation: float
    mask_seconds: float
    mask_mels: int

    def __post_init__(self) -> None:
        if self.crop_px < 1:
            raise ValueError("augment.crop_px must be positive")
        if not (0.0 <= self.brightness < 1.0 and 0.0 <= self.saturation < 1.0):
            raise ValueError("augment: brightness and saturation lie in [0, 1)")
        if min(self.mask_seconds, self.mask_mels) < 0:
            raise ValueError("augment: mask_seconds and mask_mels are not negative")


def decode_jpeg(content: bytes) -> Tensor:
    """RGB pixels, uint8 (3, height, width); raises ValueError for what is no whole JPEG and for one
    that is too large to be a stored picture.
    """
    height, width = simplejpeg.decode_jpeg_header(content)[:2]
    if height * width > _MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels")
    return torch.from_numpy(simplejpeg.decode_jpeg(content, "RGB")).permute(2, 0, 1)


def training_views(
    pictures: Sequence[Tensor], config: AugmentConfig, chances: npt.NDArray[np.float32]
) -> Tensor:
    """Random crops of images, uint8 (images, 3, crop_px, crop_px). The ``VIEW_CHANCES`` numbers in
    [0, 1) of each, (images, VIEW_CHANCES), decide everything: top, left, flip, brightness and
    saturation.
    """
    side = config.crop_px
    views = np.empty((len(pictures), 3, side, side), np.uint8)
    for view, pixels, numbers in zip(views, pictures, chances.tolist(), strict=True):
        height, width = _checked_size(pixels, config)
        top, left = int(numbers[0] * (height - side + 1)), int(numbers[1] * (width - side + 1))
        crop = pixels.numpy()[:, top : top + side, left : left + side]
        view[...] = crop[:, :, ::-1] if config.flip and numbers[2] < 0.5 else crop
    if config.brightness or config.saturation:
        around_one = 2 * chances[:, 3:].astype(np.float64) - 1
        brightness = 1 + config.brightness * around_one[:, 0]
        jitter(views, brightness, 1 + config.saturation * around_one[:, 1])
    return torch.from_numpy(views)


def jitter(
    pixels: npt.NDArray[np.uint8],
    brightness: npt.NDArray[np.float64],
    saturation: npt.NDArray[np.float64],
) -> None:
    """Scales each image's brightness and then its saturation, in place, uint8 (images, 3, height,
    width), by factors (images,).

    Both as torchvision defines them: pixels times the factor; a blend with ITU-R 601's grey. At
    most one level from torchvision, which cuts the grey to whole levels, too.
    """
    step = max(1, _LEVELS_AT_ONCE // pixels[0].size)
    for first in range(0, len(pixels), step):
        part = slice(first, first + step)
        levels = pixels[part].astype(np.float32)
        levels *= _by_image(brightness[part])
        np.clip(levels, 0, 255, out=levels)
        np.floor(levels, out=levels)
        grey, share = levels[:, :1] * _GREY[0], levels[:, 1:2] * _GREY[1]
        grey += share
        grey += np.multiply(levels[:, 2:], _GREY[2], out=share)
        grey *= _by_image(1 - saturation[part])
        levels *= _by_image(saturation[part])
        levels += grey
        np.clip(levels, 0, 255, out=levels)
        np.copyto(pixels[part], levels, casting="unsafe")


def _by_image(factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return factors.astype(np.float32).reshape(-1, 1, 1, 1)


def centre_views(pictures: Sequence[Tensor], config: AugmentConfig) -> Tensor:
    """The middles of images, uint8 (images, 3, crop_px, crop_px)."""
    side = config.crop_px
    views = torch.empty((len(pictures), 3, side, side), dtype=torch.uint8)
    for view, pixels in zip(views, pictures, strict=True):
        height, width = _checked_size(pixels, config)
        top, left = round((height - side) / 2), round((width - side) / 2)
        view.copy_(pixels[:, top : top + side, left : left + side])
    return views


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
