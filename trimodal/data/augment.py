"""Random changes of training inputs: crop, flip and colour jitter of stored images (docs/method.md,
Model), SpecAugment of audio windows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.functional import mask_along_axis

from trimodal.models.preprocessing import AugmentConfig, checked_size

Fields = npt.NDArray[np.void]

_GREY = np.array((0.2989, 0.587, 0.114), np.float32)  # of red, green and blue (ITU-R 601)
VIEW_FIELDS = ("top", "left", "flip", "brightness", "saturation")
_BLOCK_VALUES = 2**17  # channel values computed together, few enough for the processor's cache


def random_fields(*names: str) -> np.dtype[np.void]:
    """The dtype of a record with these fields: float32 numbers in [0, 1)."""
    return np.dtype([(name, np.float32) for name in names])


def training_views(images: Sequence[Tensor], config: AugmentConfig, random: Fields) -> Tensor:
    """Random crops of images, uint8 (images, 3, crop_px, crop_px). ``random``, (images,) records
    of VIEW_FIELDS in [0, 1), determines each image's crop, flip, brightness and saturation.
    """
    side = config.crop_px
    views = np.empty((len(images), 3, side, side), np.uint8)
    fields = (random[name].tolist() for name in ("top", "left", "flip"))
    for view, pixels, top_fraction, left_fraction, flip in zip(views, images, *fields, strict=True):
        height, width = checked_size(pixels, config)
        top = int(top_fraction * (height - side + 1))
        left = int(left_fraction * (width - side + 1))
        crop = pixels.numpy()[:, top : top + side, left : left + side]
        view[...] = crop[:, :, ::-1] if config.flip and flip < 0.5 else crop
    if config.brightness or config.saturation:
        brightness, saturation = (
            1 + strength * (2 * random[name].astype(np.float64) - 1)
            for name, strength in (
                ("brightness", config.brightness),
                ("saturation", config.saturation),
            )
        )
        jitter(views, brightness, saturation)
    return torch.from_numpy(views)


def jitter(
    pixels: npt.NDArray[np.uint8],
    brightness: npt.NDArray[np.float64],
    saturation: npt.NDArray[np.float64],
) -> None:
    """Scales each image's brightness, then its saturation, by factors (images,), in place; pixels
    are uint8 (images, 3, height, width).

    Both as in torchvision: pixels times the factor; a blend with ITU-R 601's grey. The result
    differs from torchvision's by at most one level, since torchvision also truncates the grey.
    """
    block_images = max(1, _BLOCK_VALUES // pixels[0].size)
    for first in range(0, len(pixels), block_images):
        block = slice(first, first + block_images)
        levels = pixels[block].astype(np.float32)
        levels *= _per_image(brightness[block])
        np.clip(levels, 0, 255, out=levels)
        np.floor(levels, out=levels)
        grey, term = levels[:, :1] * _GREY[0], levels[:, 1:2] * _GREY[1]
        grey += term
        grey += np.multiply(levels[:, 2:], _GREY[2], out=term)
        grey *= _per_image(1 - saturation[block])
        levels *= _per_image(saturation[block])
        levels += grey
        np.clip(levels, 0, 255, out=levels)
        np.copyto(pixels[block], levels, casting="unsafe")


def _per_image(factors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return factors.astype(np.float32).reshape(-1, 1, 1, 1)


def mask_windows(
    windows: Float[Tensor, "windows 1 mels columns"],
    seeds: Sequence[int],
    *,
    max_columns: int,
    max_mels: int,
) -> None:
    """Sets up to ``max_columns`` consecutive columns and ``max_mels`` consecutive mels of each
    window, in place, to the window's mean (Park et al. 2019, SpecAugment, section 2: one time mask
    and one frequency mask, no warping). Widths and positions depend on the window's own seed alone;
    as in the paper, a mask reaches the last column or mel only if it covers all of them.
    """
    mels, columns = windows.shape[2:]
    with torch.random.fork_rng(devices=[]):
        for window, seed in zip(windows[:, 0], seeds, strict=True):
            torch.default_generator.manual_seed(seed)
            mean = float(window.mean())
            # torchaudio's widths are below ``mask_param``.
            shown = mask_along_axis(window, min(max_columns, columns) + 1, mean, axis=1)
            window.copy_(mask_along_axis(shown, min(max_mels, mels) + 1, mean, axis=0))
