"""Which device to compute on, and in which precision."""

import shutil
from importlib.util import find_spec
from typing import Literal

import torch

from trimodal.core.errors import UserError
from trimodal.core.machine import Device, Devices

Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "on", "off"]


class DeviceError(UserError, RuntimeError):
    """The requested device is not available."""


def pick_device(device: Device, local_rank: int | None = None) -> torch.device:
    """``auto`` is a GPU if there is one: the one numbered ``local_rank`` on this machine, or the
    current one. Raises DeviceError if ``cuda`` is requested but there is no GPU, or none left for
    this ``local_rank``.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and not gpus:
        raise DeviceError("device is cuda, but PyTorch sees no GPU; set it to auto or cpu")
    if device == "cpu" or not gpus:
        return torch.device("cpu")
    if local_rank is None:
        return torch.device("cuda")
    if local_rank >= gpus:
        raise DeviceError(
            f"process {local_rank + 1} of this machine has no GPU: there are {gpus}; start one "
            "process for each GPU, or set device to cpu"
        )
    return torch.device("cuda", local_rank)


def count_devices(devices: Devices, device: Device) -> int:
    """The number of processes to start, each on a device of its own; ``all`` is one for each GPU
    of this machine, or one process without any.
    """
    if devices != "all":
        return devices
    return torch.cuda.device_count() if pick_device(device).type == "cuda" else 1


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the networks' forward pass; ``auto`` is bfloat16 on a GPU with native support
    for it, else float32.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    use_bfloat16 = precision == "bfloat16" or (precision == "auto" and native)
    return torch.bfloat16 if use_bfloat16 else torch.float32


def compile_problem(device: torch.device) -> str:
    """Why torch.compile has no compiler for this device here; empty if it has."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "there is no C compiler"
    if device.type == "cuda" and find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return ""


def should_compile(choice: Compile, device: torch.device) -> tuple[bool, str]:
    """Whether to compile the networks' steps, and why not if that was asked for. ``auto`` compiles
    on a GPU, where it pays (docs/benchmarks.md), if there is a compiler.

    Raises DeviceError for ``on`` without a compiler.
    """
    if choice == "off" or (choice == "auto" and device.type == "cpu"):
        return False, ""
    problem = compile_problem(device)
    if problem and choice == "on":
        raise DeviceError(f"train.compile is on, but {problem}; set it to auto or off")
    return not problem, problem
