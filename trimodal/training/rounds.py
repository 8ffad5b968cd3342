"""The order of samples in a round, a pass over a training set: which samples make up each batch."""

from itertools import zip_longest
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimodal.core.records import DataError
from trimodal.training.random_streams import RandomStream

Rows = npt.NDArray[np.int64]


class Rounds(Protocol):
    """The batches of every round, a function of seed and round."""

    batch_size: int
    batches: int

    def order(self, number: int) -> tuple[list[int], Rows]:
        """Samples of round ``number`` (from 0), (batches, batch_size), no sample twice in a batch;
        and the round of :class:`~trimodal.training.random_streams.SampleIndex` of each batch.
        """


def batch_size_for(samples: int, batch_size: int, world_size: int) -> int:
    """The size of a batch, at most all samples. Raises DataError if it cannot be split evenly over
    ``world_size`` processes with at least two samples for each.
    """
    if samples < 2:
        raise DataError(f"a ranking loss needs at least two training samples, not {samples}")
    size = min(batch_size, samples)
    if world_size > 1 and (size % world_size or size < 2 * world_size):
        raise DataError(
            f"a batch of {size} samples cannot be split evenly over {world_size} "
            "processes, at least two samples each: change train.batch_size or machine.devices"
        )
    return size


class ShuffledRounds:
    """Batches drawn from all samples, no sample twice in a round. Samples left over, too few for a
    batch, are skipped in that round.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, stream: RandomStream, world_size: int = 1
    ) -> None:
        self.batch_size = batch_size_for(samples, batch_size, world_size)
        self.batches = samples // self.batch_size
        self._samples, self._seed, self._stream = samples, seed, stream

    def order(self, number: int) -> tuple[list[int], Rows]:
        """See :class:`Rounds`."""
        order = self._stream.generator(self._seed, number).permutation(self._samples)
        batches = order[: self.batches * self.batch_size].reshape(self.batches, -1)
        return [number] * self.batches, batches


class ShardRounds:
    """Batches drawn shard by shard: each of the processes that read (``world_size`` ranks with
    ``workers`` loaders each) gets shards of its own, in an order drawn for the round, and mixes the
    samples of ``shuffle_shards`` successive ones. Loader w of a rank reads its batches w,
    w + workers, ...

    A sample occurs in ``passes`` batches of a round; samples left over at a round's end, too few
    for a batch, are skipped in that round. The last batches of a round mix what the readers have
    left over, so they touch more shards.
    """

    def __init__(
        self,
        shard_of: npt.NDArray[np.int32],
        batch_size: int,
        seed: int,
        stream: RandomStream,
        *,
        shuffle_shards: int,
        passes: int = 1,
        workers: int = 1,
        world_size: int = 1,
    ) -> None:
        """``shard_of`` has the number of each sample's shard, (samples,)."""
        samples = len(shard_of)
        self.batch_size = batch_size_for(samples, batch_size, world_size)
        self.batches = samples // self.batch_size * passes
        self._shard_of, self._shards = shard_of, int(shard_of.max()) + 1
        self._seed, self._stream = seed, stream
        self._shuffle_shards, self._passes = shuffle_shards, passes
        self._workers, self._world_size = workers, world_size

    def order(self, number: int) -> tuple[list[int], Rows]:
        """See :class:`Rounds`."""
        random = self._stream.generator(self._seed, number)
        batches = self._one_pass(random)
        if self._passes == 1:
            return [number] * len(batches), batches
        first = number * self._passes
        passes: list[int] = []
        repeated: list[Rows] = []
        for start in range(0, len(batches), self._batches_together):
            together = batches[start : start + self._batches_together]
            for number_of_pass in range(first, first + self._passes):
                passes += [number_of_pass] * len(together)
                repeated.append(self._mixed(together, random))
        return passes, np.concatenate(repeated)

    def _one_pass(self, random: np.random.Generator) -> Rows:
        """Every sample once, in batches of which each reader's part is from shards of its own."""
        part = self.batch_size // self._world_size
        batches = len(self._shard_of) // self.batch_size
        parts: list[list[Rows]] = []
        left: list[Rows] = []
        readers = self._rows_of_readers(random)
        for rank in range(self._world_size):
            own = readers[rank * self._workers : (rank + 1) * self._workers]
            whole = [rows[: len(rows) // part * part].reshape(-1, part) for rows in own]
            left += [rows[len(rows) // part * part :] for rows in own]
            in_turn = [p for turn in zip_longest(*whole) for p in turn if p is not None]
            parts.append(in_turn[:batches])
            left += in_turn[batches:]
        rest = random.permutation(np.concatenate(left))
        for own_parts in parts:
            missing = batches - len(own_parts)
            own_parts += list(rest[: missing * part].reshape(missing, part))
            rest = rest[missing * part :]
        return np.concatenate([np.stack(own_parts) for own_parts in parts], axis=1)

    def _rows_of_readers(self, random: np.random.Generator) -> list[Rows]:
        """The samples of each reader, in its order: a sample of the reader's shard s is somewhere
        among those of shards s to s + shuffle_shards.
        """
        readers = self._world_size * self._workers
        turn = random.permutation(self._shards)[self._shard_of]  # of each sample's shard
        place = turn // readers + self._shuffle_shards * random.random(len(turn))
        rows = np.argsort(place, kind="stable")
        return [rows[turn[rows] % readers == reader] for reader in range(readers)]

    @property
    def _batches_together(self) -> int:
        """Batches that repeat together: about ``shuffle_shards`` shards for each reader."""
        samples = self._shuffle_shards * len(self._shard_of) / self._shards
        each = max(1, round(samples * self._world_size / self.batch_size))
        return each * self._workers

    def _mixed(self, batches: Rows, random: np.random.Generator) -> Rows:
        """The batches with the samples of each reader's parts in another order."""
        mixed = batches.copy()
        part = self.batch_size // self._world_size
        for rank in range(self._world_size):
            columns = slice(rank * part, (rank + 1) * part)
            for worker in range(self._workers):
                own = mixed[worker :: self._workers, columns]
                own[...] = random.permutation(own.ravel()).reshape(own.shape)
        return mixed
