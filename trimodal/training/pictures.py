"""What a training stream reads of its pictures: pixels, or features of a frozen tower."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trimodal.data.augment import Fields, training_views
from trimodal.features.store import PictureFeatures
from trimodal.models.preprocessing import AugmentConfig, centre_views

Rows = npt.NDArray[np.int64]


class Pictures(Protocol):
    """Reads pictures of a data set: picture ``numbers[i]`` (from 0) of row ``rows[i]``."""

    def training(self, rows: Rows, numbers: Rows, random: Fields) -> Tensor:
        """A view of each, drawn by a record of :data:`~trimodal.data.augment.VIEW_FIELDS`."""

    def validation(self, rows: Rows, numbers: Rows) -> Tensor:
        """The centre of each."""


class StoredPictures:
    """Pixels, uint8 (rows, 3, crop, crop), decoded and augmented."""

    def __init__(self, read: Callable[[int, int], Tensor], augment: AugmentConfig) -> None:
        """``read`` decodes a picture of a row."""
        self._read, self._augment = read, augment

    def training(self, rows: Rows, numbers: Rows, random: Fields) -> Tensor:
        """See :class:`Pictures`."""
        return training_views(self._pixels(rows, numbers), self._augment, random)

    def validation(self, rows: Rows, numbers: Rows) -> Tensor:
        """See :class:`Pictures`."""
        return centre_views(self._pixels(rows, numbers), self._augment)

    def _pixels(self, rows: Rows, numbers: Rows) -> list[Tensor]:
        return list(map(self._read, rows.tolist(), numbers.tolist()))


class FeaturesOfPictures:
    """Features, float16 (rows, features)."""

    def __init__(
        self, features: PictureFeatures, shard_of: npt.NDArray[np.int32], first: Rows
    ) -> None:
        """``shard_of`` and ``first``, (rows,): where in its shard the first picture of a row is."""
        self._features, self._shard_of, self._first = features, shard_of, first

    def training(self, rows: Rows, numbers: Rows, random: Fields) -> Tensor:
        """See :class:`Pictures`."""
        places = self._shard_of[rows], self._first[rows] + numbers
        return self._features.training(*places, random["top"])

    def validation(self, rows: Rows, numbers: Rows) -> Tensor:
        """See :class:`Pictures`."""
        return self._features.centre(self._shard_of[rows], self._first[rows] + numbers)
