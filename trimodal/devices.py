"""Which device to compute on."""

from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]


def pick_device(wanted: Device) -> torch.device:
    """``auto`` is the GPU if there is one; raises RuntimeError if ``cuda`` is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device is cuda, but PyTorch sees no GPU; set it to auto or cpu")
    use_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")
