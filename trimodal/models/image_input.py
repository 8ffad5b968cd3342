"""What an image network expects of its input, and how uint8 pixels are brought to it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The side of the square images that a network takes, None for any, and the mean and standard
    deviation, of pixels in [0, 1], by which they are normalised.
    """

    size_px: int | None = None
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    def prepare(self, pixels: Tensor) -> Tensor:
        """Uint8 (batch, 3, height, width) RGB to normalised float32, resized (bicubic,
        antialiased) if the network takes another size.
        """
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        floats = pixels.float()
        if self.size_px is not None and floats.shape[-2:] != (self.size_px, self.size_px):
            size = (self.size_px, self.size_px)
            floats = F.interpolate(floats, size, mode="bicubic", antialias=True).clamp_(0, 255)
        return floats.sub_(255.0 * mean).div_(255.0 * std)
