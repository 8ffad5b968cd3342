"""A map of values over a picture, as an image that is laid over it."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from trimodal.core.extras import imports_of

_MOST_OPAQUE = 0.75


def upsampled(
    values: Float[Tensor, "rows columns"],
    height: int,
    width: int,
    covers: tuple[float, float] = (0.0, 1.0),
) -> Float[np.ndarray, "height width"]:
    """The map at a picture's size: bilinear, each value at the middle of its place, beyond the
    outermost ones as these; float32. The map ``covers`` the picture, from left to right and from
    top to bottom, between these shares of it.
    """
    start, end = covers

    def positions(pixels: int) -> Tensor:
        shares = (torch.arange(pixels) + 0.5) / pixels
        return 2 * (shares - start) / (end - start) - 1

    y, x = torch.meshgrid(positions(height), positions(width), indexing="ij")
    large = F.grid_sample(
        values.float().cpu()[None, None],
        torch.stack([x, y], dim=2)[None],
        padding_mode="border",
        align_corners=False,
    )
    return large[0, 0].numpy()


def heat_map_png(
    values: Float[Tensor, "rows columns"],
    height: int,
    width: int,
    covers: tuple[float, float] = (0.0, 1.0),
) -> bytes:
    """:func:`upsampled` as a PNG with transparency: the lowest value blue and transparent, the
    highest red and most opaque. A map without differences is transparent.
    """
    with imports_of("search"):
        from matplotlib import colormaps

    large = upsampled(values, height, width, covers)
    low, high = large.min(), large.max()
    heat = (large - low) / (high - low) if high > low else np.zeros_like(large)
    rgba = colormaps["turbo"](heat, alpha=_MOST_OPAQUE * heat, bytes=True)
    content = io.BytesIO()
    Image.fromarray(rgba).save(content, "PNG")
    return content.getvalue()
