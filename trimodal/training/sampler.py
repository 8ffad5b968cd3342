"""Which samples make a batch, for one process or several, and who reads them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from trimodal.core.records import DataError
from trimodal.training.datasets import AudioVisualPairs, CaptionedImages, Draw, Pair


class EndlessBatches(Sampler[list[Draw]]):
    """Batches without end, from the ``first``-th (from 0) on: rounds of shuffled samples, no sample
    twice in a batch. A round's last samples that fill no batch are left for later rounds.

    Of each batch, process ``rank`` of ``ranks`` gets an equal part of its own, in the batch's
    order. Raises DataError where batches cannot be split evenly, at least two samples each.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        stream: int,
        first: int = 0,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if samples < 2:
            raise DataError(f"a ranking loss needs at least two training samples, not {samples}")
        self.batch_size = min(batch_size, samples)
        if ranks > 1 and (self.batch_size % ranks or self.batch_size < 2 * ranks):
            raise DataError(
                f"a batch of {self.batch_size} samples cannot be split evenly over {ranks} "
                "processes, at least two samples each: change train.batch_size or train.devices"
            )
        rows = self.batch_size // ranks
        self._part = slice(rank * rows, (rank + 1) * rows)
        self.batches_per_round = samples // self.batch_size
        self._samples = samples
        self._key = (seed, 2, stream)
        self._first = first

    def __iter__(self) -> Iterator[list[Draw]]:
        first_round, done = divmod(self._first, self.batches_per_round)
        for round_number in count(first_round):
            order = np.random.default_rng([*self._key, round_number]).permutation(self._samples)
            for batch in range(done if round_number == first_round else 0, self.batches_per_round):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [Draw(round_number, sample) for sample in chosen[self._part].tolist()]


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
    dataset: AudioVisualPairs | CaptionedImages, batch_size: int, rank: int = 0, ranks: int = 1
) -> Iterator[Pair]:
    """All samples of a validation set in order, in batches of at least two; every ``ranks``-th
    batch, from the ``rank``-th (from 0) on.
    """
    samples = len(dataset)
    if samples < 2:
        raise DataError(f"validation needs at least two samples, not {samples}")
    starts = list(range(0, samples, batch_size))
    if samples - starts[-1] < 2:
        starts.pop()
    bounds = list(zip(starts, [*starts[1:], samples], strict=True))
    for first, behind in bounds[rank::ranks]:
        yield dataset.__getitems__([Draw(-1, sample) for sample in range(first, behind)])
