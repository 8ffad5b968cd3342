"""Which device to compute on, and how precisely."""

from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


def pick_device(wanted: Device) -> torch.device:
    """``auto`` is the GPU if there is one; raises RuntimeError if ``cuda`` is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device is cuda, but PyTorch sees no GPU; set it to auto or cpu")
    use_gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def pick_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """What networks compute in; ``auto`` is bfloat16 on a GPU made for it, else float32."""
    made_for_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    use_half = wanted == "bfloat16" or (wanted == "auto" and made_for_it)
    return torch.bfloat16 if use_half else torch.float32
