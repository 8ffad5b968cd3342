"""Images from strangers as small squares; which stored images are the same, byte for byte."""

import hashlib
import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

_ONE_COLOUR_LEVELS = 16  # of 255; fainter noise leaves no trace in a JPEG of quality 75 and more
UNIFORM_IMAGE = 0
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def image_fingerprint(jpeg: bytes, pixels: npt.NDArray[np.uint8]) -> int:
    """The first 8 bytes of the SHA-256 of a stored JPEG, as a signed number; 0 (``UNIFORM_IMAGE``)
    if its ``pixels``, (height, width, 3), are of one colour: no channel spans more than 16 levels.
    Black frames and fades are the same in videos that have nothing to do with each other.
    """
    span = pixels.max(axis=0).max(axis=0) - pixels.min(axis=0).min(axis=0)
    if span.max() <= _ONE_COLOUR_LEVELS:
        return UNIFORM_IMAGE
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big", signed=True)


def square(content: bytes, image_px: int) -> Image.Image:
    """A JPEG's or PNG's bytes as a picture of ``image_px`` square, RGB, aspect not kept
    (docs/method.md, Data). Raises OSError, ValueError, SyntaxError and Pillow's of ``BOMBS`` for
    what is none.
    """
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image,
    ):
        image.draft("RGB", (image_px, image_px))
        # A palette's transparency is dropped in a step of its own: Pillow warns of it otherwise.
        whole = image.convert("RGBA") if image.mode == "P" else image
        pixels = whole if whole.mode == "RGB" else whole.convert("RGB")
        return pixels.resize((image_px, image_px), Image.Resampling.BICUBIC)
