"""Untrusted image files as small squares, and fingerprints that tell equal stored images."""

import hashlib
import io
import re
import struct
import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from trimodal.core.errors import UserError

_UNIFORM_LEVELS = 16  # of 255; fainter noise leaves no trace in a JPEG of quality 75 and more
UNIFORM_IMAGE = 0
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF")
_OTHER_FORMATS = {
    rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)": "HEIC (HEIF)",
    rb"BM": "BMP",
    rb"\xff\x0a|.{4}JXL ": "JPEG XL",
    rb".{4}jP  |\xff\x4f\xff\x51": "JPEG 2000",
    rb"\s*(<\?xml.*)?<svg": "SVG",
}
# What Pillow's readers raise for files that are not what they should be.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError,
    RuntimeError, AttributeError, struct.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ExifOrientation = Literal["apply", "ignore"]


class ImageError(UserError, ValueError):
    """An image file that cannot be used; the message says why, without its name."""


def image_fingerprint(jpeg: bytes, pixels: npt.NDArray[np.uint8]) -> int:
    """The first 8 bytes of the SHA-256 of a stored JPEG, as a signed number; 0 (``UNIFORM_IMAGE``)
    if its ``pixels``, (height, width, 3), are uniform: no channel spans more than 16 levels.
    Unrelated videos share black frames and fades.
    """
    span = pixels.max(axis=0).max(axis=0) - pixels.min(axis=0).min(axis=0)
    if span.max() <= _UNIFORM_LEVELS:
        return UNIFORM_IMAGE
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8], "big", signed=True)


def square(
    content: bytes, image_px: int, exif_orientation: ExifOrientation = "apply"
) -> Image.Image:
    """An image file's bytes as an RGB image of ``image_px`` x ``image_px``, aspect ratio not kept
    (docs/method.md, Data): the first picture of a JPEG, PNG, WebP, AVIF, GIF or TIFF, upright, on
    white where it is transparent. ``ignore`` leaves it as stored (a TIFF is upright all the same).
    Raises ImageError for anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                image.draft("RGB", (image_px, image_px))
                small = _small(image, image_px)
                turn = _turn(image) if exif_orientation == "apply" else None
                return small if turn is None else small.transpose(turn)
    except UnidentifiedImageError:
        raise ImageError(_unread(content)) from None
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError(f"damaged or too large: {error}") from error


def _small(image: Image.Image, image_px: int) -> Image.Image:
    size = (image_px, image_px)
    if image.mode.startswith("I;16"):
        image = _of_16_bits(image)
    if image.mode in ("I", "F"):
        raise ImageError("samples of 32 bits are not read; save it with 8 or 16 bits")
    if image.has_transparency_data:
        # Resizing weighs colours by their opacity, so that hidden ones leave no trace.
        scaled = image.convert("RGBA").resize(size, Image.Resampling.BICUBIC)
        white = Image.new("RGBA", size, "white")
        return Image.alpha_composite(white, scaled).convert("RGB")
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return rgb.resize(size, Image.Resampling.BICUBIC)


def _of_16_bits(image: Image.Image) -> Image.Image:
    """16 bits of grey as 8, white where they are transparent; Pillow would cut them off at 255."""
    levels = np.asarray(image)
    grey = (levels >> 8).astype(np.uint8)
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the metadata state; None for upright, and where they are damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _unread(content: bytes) -> str:
    for pattern, name in _OTHER_FORMATS.items():
        if re.match(pattern, content, re.DOTALL):
            return f"a {name} picture, which is not read here; save it as JPEG or PNG"
    return f"not a picture in one of the formats {', '.join(_FORMATS)}"
