"""Embeds a batch in chunks: the memory of one chunk, the negatives of the full batch.

Gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup", arXiv:2101.06983), for the paper's batch of 512 on a small GPU.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def embed_in_chunks(
    encode: Callable[[Tensor], Tensor], network: nn.Module, inputs: Tensor, chunk_size: int | None
) -> Tensor:
    """``encode``, which runs ``network``, applied to all rows: (batch, ...) -> (batch, dim).

    With ``chunk_size`` only the embeddings are kept: backward runs ``encode`` again, one chunk at a
    time and with the same random numbers, and then frees that chunk's activations. Chunk sizes
    differ by at most one row; a chunk has at most ``chunk_size`` (at least 2) rows, or 3 where an
    odd batch would otherwise leave a single row, which batch norm cannot use. Chunk k of n has the
    rows k, k + n, k + 2n, ..., so that each chunk mixes the two streams of a concatenated batch.

    Batch norm sees one chunk at a time: it normalises with the chunk's statistics, and its running
    statistics are updated once for each chunk (not again in backward). Without batch norm, or in
    eval mode, embeddings and gradients are those of the full batch.
    """
    if chunk_size is None:
        return encode(inputs)
    rows = len(inputs)
    chunks = max(1, min(-(-rows // chunk_size), rows // 2))
    embedded = [
        checkpoint(
            encode,
            inputs[first::chunks],
            use_reentrant=False,
            preserve_rng_state=True,
            context_fn=lambda: (nullcontext(), _FrozenStatistics(network)),
        )
        for first in range(chunks)
    ]
    indices = torch.arange(rows, device=inputs.device)
    order = torch.cat([indices[first::chunks] for first in range(chunks)])
    return torch.cat(embedded)[order.argsort()]


class _FrozenStatistics(AbstractContextManager[None]):
    """A context in which a training pass does not update batch norms' running statistics."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._saved: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self._saved = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            batches = norm.num_batches_tracked
            norm.momentum, norm.num_batches_tracked = (
                0.0,
                None if batches is None else batches.clone(),
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for norm, saved in zip(self._norms, self._saved, strict=True):
            norm.momentum, norm.num_batches_tracked = saved
