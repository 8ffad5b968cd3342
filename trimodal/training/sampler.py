"""Which samples make up a batch, for one process or several, and the loaders that read them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trimodal.core.records import DataError
from trimodal.training.image_audio import ImageAudioValidation
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.random_streams import RandomStream, SampleIndex
from trimodal.training.readers import Pair


class EndlessBatches(Sampler[list[SampleIndex]]):
    """Endless batches, starting with batch ``first`` (from 0): rounds of shuffled samples, no
    sample twice in a round. Samples left over at the end of a round, too few for a batch, are
    skipped in that round.

    Process ``rank`` of ``world_size`` gets its own equal part of each batch, in the batch's order.
    Raises DataError if a batch cannot be split evenly with at least two samples for each process.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        stream: RandomStream,
        first: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if samples < 2:
            raise DataError(f"a ranking loss needs at least two training samples, not {samples}")
        self.batch_size = min(batch_size, samples)
        if world_size > 1 and (self.batch_size % world_size or self.batch_size < 2 * world_size):
            raise DataError(
                f"a batch of {self.batch_size} samples cannot be split evenly over {world_size} "
                "processes, at least two samples each: change train.batch_size or machine.devices"
            )
        rows = self.batch_size // world_size
        self._part = slice(rank * rows, (rank + 1) * rows)
        self.batches_per_round = samples // self.batch_size
        self._samples = samples
        self._seed, self._stream = seed, stream
        self._first = first

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        first_round, first_batch = divmod(self._first, self.batches_per_round)
        for round_number in count(first_round):
            order = self._stream.generator(self._seed, round_number).permutation(self._samples)
            start = first_batch if round_number == first_round else 0
            for batch in range(start, self.batches_per_round):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [SampleIndex(round_number, sample) for sample in chosen[self._part].tolist()]


def training_loader(
    dataset: Dataset[Pair], batches: EndlessBatches, workers: int
) -> DataLoader[Pair]:
    """Endless training batches, prefetched by ``workers`` processes (0: read by this one)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_already_batched,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def _already_batched(batch: Any) -> Pair:
    """Data sets return a batch as stacked tensors."""
    pair: Pair = batch
    return pair


def validation_batches(
    dataset: ImageAudioValidation | ImageTextValidation,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Pair]:
    """All samples of a validation set in order, in batches of at least two; of these, every
    ``world_size``-th batch from batch ``rank`` (from 0) on.
    """
    samples = len(dataset)
    if samples < 2:
        raise DataError(f"validation needs at least two samples, not {samples}")
    starts = list(range(0, samples, batch_size))
    if samples - starts[-1] < 2:
        starts.pop()
    bounds = list(zip(starts, [*starts[1:], samples], strict=True))
    for start, stop in bounds[rank::world_size]:
        yield dataset.__getitems__(range(start, stop))
