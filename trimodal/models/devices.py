"""Which device to compute on, and how precisely."""

from typing import Literal

import torch

from trimodal.core.errors import UserError
from trimodal.core.machine import Device, Devices

Precision = Literal["auto", "float32", "bfloat16"]


class DeviceError(UserError, RuntimeError):
    """A device that is asked for and is not there."""


def pick_device(wanted: Device, local_rank: int | None = None) -> torch.device:
    """``auto`` is a GPU if there is one: that of the process's ``local_rank`` on this machine, or
    the current one. Raises DeviceError if a GPU is asked for in vain.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not gpus:
        raise DeviceError("device is cuda, but PyTorch sees no GPU; set it to auto or cpu")
    if wanted == "cpu" or not gpus:
        return torch.device("cpu")
    if local_rank is None:
        return torch.device("cuda")
    if local_rank >= gpus:
        raise DeviceError(
            f"process {local_rank + 1} of this machine has no GPU: there are {gpus}; start as many "
            "as there are GPUs, or set device to cpu"
        )
    return torch.device("cuda", local_rank)


def count_devices(devices: Devices, wanted: Device) -> int:
    """How many processes to compute in, each on a device of its own; ``all`` is one for each of
    this machine's GPUs, and one where there is none.
    """
    if devices != "all":
        return devices
    return torch.cuda.device_count() if pick_device(wanted).type == "cuda" else 1


def pick_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """What networks compute in; ``auto`` is bfloat16 on a GPU made for it, else float32."""
    made_for_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    use_half = wanted == "bfloat16" or (wanted == "auto" and made_for_it)
    return torch.bfloat16 if use_half else torch.float32
