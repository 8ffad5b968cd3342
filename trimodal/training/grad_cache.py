"""A batch embedded in chunks: the memory of one chunk, the negatives of the whole batch.

Gradient caching (Gao et al. 2021, arXiv:2101.06983), here for the paper's batch of 512
(docs/method.md, Training) on a small GPU.
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
    """``encode``, which runs ``network`` on rows, on all rows: (batch, ...) -> (batch, dim).

    With ``chunk_size`` only the embeddings are kept: backward runs ``encode`` again on one chunk at
    a time, with the random numbers it had, and then drops that chunk's activations. Chunks are
    equal or differ by one row; they have at most ``chunk_size`` (at least 2) rows, or 3 where an
    odd batch would leave one row alone, which batch norm cannot use. Chunk k of n takes the rows
    k, k + n, k + 2n, ..., so that a batch of two streams, one behind the other, is mixed in each.

    Batch norm sees one chunk at a time: it normalises with a chunk's statistics, and its running
    statistics move once a chunk, n times a batch (once only: not again in backward). Without batch
    norm, or in eval mode, embeddings and gradients are those of the whole batch.
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
    places = torch.arange(rows, device=inputs.device)
    order = torch.cat([places[first::chunks] for first in range(chunks)])
    return torch.cat(embedded)[order.argsort()]


class _FrozenStatistics(AbstractContextManager[None]):
    """While entered, a training pass leaves the running statistics of batch norms as they are."""

    def __init__(self, network: nn.Module) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._kept: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        self._kept = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm in self._norms:
            counted = norm.num_batches_tracked
            norm.momentum, norm.num_batches_tracked = (
                0.0,
                None if counted is None else counted.clone(),
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for norm, kept in zip(self._norms, self._kept, strict=True):
            norm.momentum, norm.num_batches_tracked = kept
