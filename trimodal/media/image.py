"""Untrusted image files as small squares, and fingerprints that tell equal stored images."""

import hashlib
import io
import re
import struct
import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch.nn.functional import interpolate

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
) -> npt.NDArray[np.uint8]:
    """An image file's bytes as RGB pixels, uint8 (image_px, image_px, 3), aspect ratio not kept
    (docs/method.md, Data): the first picture of a JPEG, PNG, WebP, AVIF, GIF or TIFF, upright, on
    white where it is transparent. ``ignore`` leaves it as stored (a TIFF is upright all the same).
    Raises ImageError for anything else.

    A large JPEG is decoded at a half, a quarter or an eighth of its size, but at no less than twice
    ``image_px``: at least 40 dB from the whole picture.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                small = _small(content, image, image_px)
                turn = _turn(image) if exif_orientation == "apply" else None
                return small if turn is None else np.array(Image.fromarray(small).transpose(turn))
    except UnidentifiedImageError:
        raise ImageError(_unread(content)) from None
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError(f"damaged or too large: {error}") from error


def resized(
    pixels: npt.NDArray[np.uint8], side: int, shown: tuple[float, float] | None = None
) -> npt.NDArray[np.uint8]:
    """RGB pixels, uint8 (height, width, 3), as (side, side, 3), by Pillow's bicubic filter, which
    PyTorch computes in a sixth of the time. ``shown`` is the height and width in pixels, from the
    top left corner, of the part to resize.
    """
    planes = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)
    if shown is None or shown == pixels.shape[:2]:
        small = interpolate(planes, (side, side), mode="bicubic", antialias=True)
    else:
        factors = tuple(side / length * (1 + 1e-9) for length in shown)  # the size is rounded down
        small = interpolate(planes, scale_factor=factors, mode="bicubic", antialias=True)
    return np.ascontiguousarray(small[0, :, :side, :side].permute(1, 2, 0).numpy())


def _small(content: bytes, image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    if image.format in ("JPEG", "MPO"):
        return _small_jpeg(content, image, side)
    if image.mode.startswith("I;16"):
        image = _of_16_bits(image)
    if image.mode in ("I", "F"):
        raise ImageError("samples of 32 bits are not read; save it with 8 or 16 bits")
    if image.has_transparency_data:
        # Resizing weighs colours by their opacity, so that hidden ones leave no trace.
        scaled = image.convert("RGBA").resize((side, side), Image.Resampling.BICUBIC)
        white = Image.new("RGBA", (side, side), "white")
        return np.array(Image.alpha_composite(white, scaled).convert("RGB"))
    return resized(np.asarray(image.convert("RGB")), side)


def _small_jpeg(content: bytes, image: Image.Image, side: int) -> npt.NDArray[np.uint8]:
    width, height = image.size
    fitting = min(width, height) // (2 * side)
    reduction = max((factor for factor in (2, 4, 8) if factor <= fitting), default=1)
    pixels = None if image.mode == "CMYK" else _strictly_decoded(content, image.size, reduction)
    if pixels is None:
        image.draft("RGB", (width // reduction, height // reduction))
        pixels = np.asarray(image.convert("RGB"))
    # The last row and column of a reduced picture reach beyond it.
    return resized(pixels, side, (height / reduction, width / reduction))


def _strictly_decoded(
    content: bytes, size: tuple[int, int], reduction: int
) -> npt.NDArray[np.uint8] | None:
    """A JPEG's RGB pixels by libjpeg-turbo; None for one with the slightest damage, so that Pillow
    judges it.
    """
    try:
        height, width = simplejpeg.decode_jpeg_header(content)[:2]
        if (width, height) != size:
            return None
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, "RGB", min_height=-(-height // reduction), min_width=-(-width // reduction)
        )
    except ValueError:
        return None
    return pixels


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
