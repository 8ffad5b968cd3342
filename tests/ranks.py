"""Several ranks of this machine in one test, each a process of its own, over Gloo on loopback."""

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from trimodal.training.distributed import World


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_ranks(size: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """The results of ``work(world, *arguments)`` on each rank: tensors, numbers and dicts of them.

    Ranks are forked from this process, which has PyTorch loaded; a new interpreter would take
    seconds each to import it.
    """
    arguments_of_ranks = (size, free_port(), work, str(folder), arguments)
    mp.start_processes(_rank, arguments_of_ranks, size, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _rank(
    rank: int, size: int, port: int, work: Callable[..., Any], folder: str, arguments: Any
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size,
        timeout=timedelta(seconds=120),
    )  # fmt: skip
    try:
        result = work(World(rank=rank, size=size), *arguments)
        torch.save(result, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
