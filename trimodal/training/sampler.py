"""Which samples make a batch, for one process or several, and who reads them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trimodal.core.records import DataError
from trimodal.training.image_audio import ImageAudioValidation, Pair
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.random_streams import RandomStream, SampleIndex


class EndlessBatches(Sampler[list[SampleIndex]]):
    """Batches without end, from the ``first``-th (from 0) on: rounds of shuffled samples, no sample
    twice in a batch. A round's last samples that fill no batch are left for later rounds.

    Of each batch, process ``rank`` of ``world_size`` gets an equal part of its own, in the batch's
    order. Raises DataError where batches cannot be split evenly, at least two samples each.
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
        first_round, done = divmod(self._first, self.batches_per_round)
        for round_number in count(first_round):
            order = self._stream.generator(self._seed, round_number).permutation(self._samples)
            for batch in range(done if round_number == first_round else 0, self.batches_per_round):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [SampleIndex(round_number, sample) for sample in chosen[self._part].tolist()]


def training_loader(
    dataset: Dataset[Pair], batches: EndlessBatches, workers: int
) -> DataLoader[Pair]:
    """Endless training batches of a stream, read ahead by ``workers`` processes (0: none)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_read,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def _as_read(batch: Any) -> Pair:
    """A batch comes as arrays already."""
    pair: Pair = batch
    return pair


def validation_batches(
    dataset: ImageAudioValidation | ImageTextValidation,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Pair]:
    """All samples of a validation set in order, in batches of at least two; every ``world_size``-th
    batch, from the ``rank``-th (from 0) on.
    """
    samples = len(dataset)
    if samples < 2:
        raise DataError(f"validation needs at least two samples, not {samples}")
    starts = list(range(0, samples, batch_size))
    if samples - starts[-1] < 2:
        starts.pop()
    bounds = list(zip(starts, [*starts[1:], samples], strict=True))
    for first, end in bounds[rank::world_size]:
        yield dataset.__getitems__(range(first, end))
