"""From stored JPEGs to the views that networks are given: decode, centre-crop (docs/method.md,
Model). :class:`~trimodal.models.image_input.ImageInput` normalises them.
"""

from collections.abc import Sequence
from typing import Annotated

import simplejpeg
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass
from torch import Tensor

from trimodal.core.config import SECTION
from trimodal.core.records import DataError

_MAX_PIXELS = 2**24  # of a stored image; the header of a damaged one may claim 2**32


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class AugmentConfig:
    """Section ``augment``. Training takes random crops of ``crop_px``, flips half of them, and
    scales brightness and saturation by a factor in 1 +- the given share. SpecAugment masks up to
    ``mask_seconds`` of each audio window and a band of up to ``mask_mels``
    (:func:`~trimodal.data.augment.mask_windows`).
    """

    crop_px: PositiveInt
    flip: bool
    brightness: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, lt=1)]
    mask_seconds: NonNegativeFloat
    mask_mels: NonNegativeInt


def decode_jpeg(content: bytes) -> Tensor:
    """RGB pixels, uint8 (3, height, width); raises ValueError for what is not a complete JPEG and
    for one that is too large to be a stored image.
    """
    height, width = simplejpeg.decode_jpeg_header(content)[:2]
    if height * width > _MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels")
    return torch.from_numpy(simplejpeg.decode_jpeg(content, "RGB")).permute(2, 0, 1)


def centre_views(images: Sequence[Tensor], config: AugmentConfig) -> Tensor:
    """The centre crops of images, uint8 (images, 3, crop_px, crop_px)."""
    side = config.crop_px
    views = torch.empty((len(images), 3, side, side), dtype=torch.uint8)
    for view, pixels in zip(views, images, strict=True):
        height, width = checked_size(pixels, config)
        top, left = round((height - side) / 2), round((width - side) / 2)
        view.copy_(pixels[:, top : top + side, left : left + side])
    return views


def centre_crop_shares(frame_px: int, config: AugmentConfig) -> tuple[float, float]:
    """The part of a square image's width, and of its height, that its centre crop shows."""
    start = round((frame_px - config.crop_px) / 2)
    return start / frame_px, (start + config.crop_px) / frame_px


def checked_size(pixels: Tensor, config: AugmentConfig) -> tuple[int, int]:
    """Height and width of a stored image; raises DataError if the crop is larger."""
    height, width = pixels.shape[1:]
    if min(height, width) < config.crop_px:
        raise DataError(
            f"augment.crop_px {config.crop_px} exceeds the stored images, {width} x {height} "
            "(extract.frame_px, captions.image_px)"
        )
    return height, width
