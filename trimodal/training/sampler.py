"""Which samples make up a batch, for one process or several."""

from collections.abc import Iterator
from itertools import count

from torch.utils.data import Sampler

from trimodal.core.records import DataError
from trimodal.data.readers import Pair
from trimodal.training.image_audio import ImageAudioValidation
from trimodal.training.image_text import ImageTextValidation
from trimodal.training.random_streams import SampleIndex
from trimodal.training.rounds import Rounds


class EndlessBatches(Sampler[list[SampleIndex]]):
    """Endless batches, starting with batch ``first`` (from 0), in the order of ``rounds``.

    Process ``rank`` of ``world_size`` gets its own equal part of each batch, in the batch's order.
    """

    def __init__(
        self, rounds: Rounds, first: int = 0, *, rank: int = 0, world_size: int = 1
    ) -> None:
        rows = rounds.batch_size // world_size
        self._part = slice(rank * rows, (rank + 1) * rows)
        self._rounds, self._first = rounds, first

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        first_round, first_batch = divmod(self._first, self._rounds.batches)
        for number in count(first_round):
            passes, batches = self._rounds.order(number)
            start = first_batch if number == first_round else 0
            for round_number, batch in zip(passes[start:], batches[start:], strict=True):
                yield [SampleIndex(round_number, sample) for sample in batch[self._part].tolist()]


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
