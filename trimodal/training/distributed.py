"""Several processes that train one model or embed one test set, started by torchrun.

Each rank takes the same number of rows of every batch. DistributedDataParallel averages the
gradients; embeddings are gathered, so that the loss sees the negatives of all ranks.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trimodal.core.machine import Device
from trimodal.core.progress import silence
from trimodal.models.devices import pick_device

# How long a rank waits for the others, while one of them validates, saves or reads an index.
_TIMEOUT = timedelta(minutes=30)
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes that work together: this one's ``rank`` of ``size``, and its device; and which
    of its machine's processes it is, ``local_rank`` of ``local_size``. With one process, every
    method returns its argument unchanged.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes and logs."""
        return self.rank == 0

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order: (rows, ...) -> (size * rows, ...). The
        gradient of a rank's rows is summed over the losses of all ranks.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, without gradient."""
        values = values.detach().clone()
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copies rank 0's buffers (a batch norm's running statistics) to all ranks."""
        if self.size > 1:
            for buffer in network.state_dict(keep_vars=True).values():
                if not isinstance(buffer, nn.Parameter):
                    dist.broadcast(buffer, src=0)

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """Wraps the network so that its gradients are the mean over ranks; all ranks start with
        rank 0's weights. A network without gradients stays as it is.
        """
        if self.size == 1 or not any(p.requires_grad for p in network.parameters()):
            return network
        # Buffers are synchronised before they are used (broadcast_buffers), not at every pass.
        return DistributedDataParallel(network, forward_sync_buffers=False)

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.world = world
        parts = [rows.new_empty(rows.shape) for _ in range(world.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = ctx.world.all_reduce_sum(gradient)
        return summed.tensor_split(ctx.world.size)[ctx.world.rank], None


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def process_group(requested: Device) -> Iterator[World]:
    """Joins the processes that torchrun started: NCCL with the GPU of the local rank, or Gloo on
    the CPU. Without torchrun, a world of this process alone.

    Only rank 0 shows progress bars and log lines. Ranks exit when their parent process does.
    Raises DeviceError if there are more ranks than GPUs on the machine.
    """
    if not under_torchrun():
        yield World(device=pick_device(requested))
        return
    _exit_with_parent()
    local_rank = int(os.environ["LOCAL_RANK"])
    device = pick_device(requested, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    world = World(
        rank=dist.get_rank(), size=dist.get_world_size(), device=device, local_rank=local_rank,
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )  # fmt: skip
    if not world.is_main:
        silence()
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _exit_with_parent() -> None:
    """Otherwise the ranks of a killed torchrun would wait for each other."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
