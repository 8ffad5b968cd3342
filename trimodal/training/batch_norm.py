"""Batch norm over the rows of all ranks: PyTorch's on GPUs, which is all that it supports."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trimodal.training.distributed import World


def synchronise_batch_norm(network: nn.Module, world: World) -> None:
    """Makes every batch norm of a network normalise with the statistics of all ranks' rows, as one
    process would with the full batch. Names, parameters and buffers stay the same. Every rank must
    have the same number of rows.
    """
    if world.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for name, module in list(network.named_children()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(network, name, GatheredBatchNorm(module, world))
        else:
            synchronise_batch_norm(module, world)


class GatheredBatchNorm(_BatchNorm):
    """Replaces ``norm``; mean and variance are over all ranks' rows, gathered with gradient."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        for name, tensor in norm.state_dict(keep_vars=True).items():
            setattr(self, name, tensor)
        self._world = world

    def _check_input_dim(self, rows: Tensor) -> None:
        assert rows.dim() >= 2  # noqa: S101

    def forward(self, rows: Tensor) -> Tensor:
        """(batch, channels, ...) -> the same shape."""
        if not self.training:
            return super().forward(rows)
        reduced_dims = [dim for dim in range(rows.dim()) if dim != 1]
        shape = [1, -1, *[1] * (rows.dim() - 2)]
        mean = self._world.all_gather(rows.mean(reduced_dims)[None]).mean(0)
        centred = rows - mean.view(shape)
        variance = self._world.all_gather(centred.square().mean(reduced_dims)[None]).mean(0)
        count = self._world.size * rows.numel() // rows.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        return torch.addcmul(self.bias.view(shape), normalised, self.weight.view(shape))
