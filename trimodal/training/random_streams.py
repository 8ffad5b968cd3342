"""The random numbers of training: one stream for each purpose.

A number depends only on the seed, the stream, the round (pass over the data set) and the sample,
not on the number of loader workers or processes.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from trimodal.data.augment import Fields


class SampleIndex(NamedTuple):
    """Row ``sample`` of a training set, in pass ``round`` (from 0) over it."""

    round: int
    sample: int


class RandomStream(Enum):
    """What is random in training. All generator keys have the same length and no two streams share
    one: NumPy pads shorter keys with zeros, so that [1, 2, 0] and [1, 2, 0, 0] are the same.
    """

    CLIP_VIEWS = "clip views"
    IMAGE_VIEWS = "image views"
    CLIP_ORDER = "clip order"
    IMAGE_ORDER = "image order"
    CLIP_MASKS = "clip masks"

    def generator(self, seed: int, round_number: int) -> np.random.Generator:
        """The generator of one round."""
        words = {
            RandomStream.CLIP_VIEWS: (0, round_number, 0),
            RandomStream.IMAGE_VIEWS: (1, round_number, 0),
            RandomStream.CLIP_ORDER: (2, 0, round_number),
            RandomStream.IMAGE_ORDER: (2, 1, round_number),
            RandomStream.CLIP_MASKS: (3, round_number, 0),
        }
        return np.random.default_rng([seed, *words[self]])


class RandomFields:
    """A record of random numbers for each sample of a data set in each round."""

    def __init__(self, stream: RandomStream, seed: int, samples: int, record: np.dtype[Any]):
        self._stream, self._seed = stream, seed
        self._samples, self._record = samples, record
        self._round = -1
        self._table = np.empty(0, record)

    def of(self, indices: Sequence[SampleIndex]) -> Fields:
        """The records of samples of one round, (indices,). All records of a round are drawn at
        once, at its first sample.
        """
        if indices[0].round != self._round:
            self._round = indices[0].round
            numbers = self._stream.generator(self._seed, self._round).random(
                (self._samples, len(self._record.names or ())), np.float32
            )
            self._table = numbers.view(self._record)[:, 0]
        return self._table[[index.sample for index in indices]]
