"""Untrusted image files as small squares, and fingerprints that tell equal stored images."""

import hashlib
import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

_UNIFORM_LEVELS = 16  # of 255; fainter noise leaves no trace in a JPEG of quality 75 and more
UNIFORM_IMAGE = 0
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def image_fingerprint(jpeg: bytes, pixels: npt.NDArray[np.uint8]) -> int:
    """The first 8 bytes of the SHA-256 of a stored JPEG, as a signed number; 0 (``UNIFORM_IMAGE``)
    if its ``pixels``, (height, width, 3), are uniform: no channel spans more than 16 levels.
    Unrelated videos share black frames and fades.
    """
    span = pixels.max(axis=0).max(axis=0) - pixels.min(axis=0).min(axis=0)
    if span.max() <= _UNIFORM_LEVELS:
        return UNIFORM_IMAGE
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big", signed=True)


def square(content: bytes, image_px: int) -> Image.Image:
    """A JPEG's or PNG's bytes as an RGB image of ``image_px`` x ``image_px``, aspect ratio not kept
    (docs/method.md, Data). Raises OSError, ValueError, SyntaxError or one of ``BOMBS`` for anything
    else.
    """
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image,
    ):
        image.draft("RGB", (image_px, image_px))
        # By way of RGBA: Pillow warns when it drops a palette's transparency directly.
        unpacked = image.convert("RGBA") if image.mode == "P" else image
        rgb = unpacked if unpacked.mode == "RGB" else unpacked.convert("RGB")
        return rgb.resize((image_px, image_px), Image.Resampling.BICUBIC)
