"""The image-audio stream: pairs of a frame and the audio centred on it, read from shards."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from trimodal.core.shards import read_extents
from trimodal.core.timing import FramePosition, training_positions
from trimodal.data.augment import VIEW_FIELDS, mask_windows, random_fields
from trimodal.data.clip_index import ClipTable, IndexedClip
from trimodal.data.readers import Pair, read_image, read_windows
from trimodal.data.shard_files import ReadShard
from trimodal.features.store import FeatureStore
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.pictures import FeaturesOfPictures, Pictures, StoredPictures
from trimodal.training.random_streams import RandomFields, RandomStream, SampleIndex

_FIELDS = random_fields("frame", *VIEW_FIELDS)
_MASK_FIELDS = random_fields("seed")
_MASK_SEEDS = 2**24  # as many as there are float32 numbers of a field


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """The frames of a clip used in training, ``first_frame`` to ``last_frame``, and the one used in
    validation (the authors' code: 2 to 8, and 4; docs/method.md, Data). Frames are numbered from 1.
    """

    first_frame: int
    last_frame: int
    validation_frame: int


class _Clips:
    """Clips, the positions at which they may be sampled, and their frames and windows."""

    def __init__(
        self,
        clips: ClipTable,
        sampling: FrameSampling,
        front_end: AudioFrontEnd,
        augment: AugmentConfig,
        read: ReadShard,
        features: FeatureStore | None,
    ) -> None:
        self._clips, self._sampling, self._front_end = clips, sampling, front_end
        self._augment, self._read_shard = augment, read
        self._pictures: Pictures = StoredPictures(self._decoded, augment)
        if features and features.has("image"):
            counts = [len(extents) for extents in clips.frame_extents().values()]
            stored = features.pictures("av", clips.shards, clips.fingerprints, counts)
            self._pictures = FeaturesOfPictures(stored, clips.shard_of, clips.frames_before())

    def thawed(self) -> Self:
        """The same samples, with pixels."""
        thawed = copy(self)
        thawed._pictures = StoredPictures(thawed._decoded, self._augment)
        return thawed

    def _decoded(self, row: int, number: int) -> Tensor:
        return read_image(*self._clips.frame_extent(row, number + 1), self._read_shard)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def shard_of(self) -> npt.NDArray[np.int32]:
        """The number of each clip's shard, (clips,)."""
        return self._clips.shard_of

    @property
    def frame_px(self) -> int:
        """The side of the stored frames."""
        return self._decoded(0, 0).shape[-1]

    def positions(self, clip: IndexedClip) -> tuple[FramePosition, ...]:
        """The frames of a clip that may be sampled, each with the centre of its window."""
        return training_positions(
            clip.frames,
            clip.sound_s,
            self._front_end.window.seconds,
            self._sampling.first_frame,
            self._sampling.last_frame,
        )

    def first_positions(self) -> Iterator[tuple[IndexedClip, FramePosition]]:
        """Each clip with the first position at which it may be sampled."""
        return ((clip, self.positions(clip)[0]) for clip in self._clips)

    def _windows(self, clips: Sequence[IndexedClip], positions: Sequence[FramePosition]) -> Tensor:
        centres = [position.centre_seconds for position in positions]
        return read_windows(clips, centres, self._front_end, self._read_shard)[0]


def _numbers(positions: Sequence[FramePosition]) -> npt.NDArray[np.int64]:
    """The positions' frames, from 0."""
    return np.array([position.frame - 1 for position in positions])


class ImageAudioPairs(_Clips, Dataset[Pair]):
    """For training: a frame of each clip and the audio centred on it, uint8 (3, crop, crop), or
    float16 (features,) of a frozen tower, and float32 (1, mels, columns).

    In each round the frame is drawn at random from those whose window fits into the audio, and
    augmented.
    """

    def __init__(
        self,
        clips: ClipTable,
        sampling: FrameSampling,
        front_end: AudioFrontEnd,
        augment: AugmentConfig,
        seed: int,
        *,
        frames_per_clip: int = 1,
        read: ReadShard = read_extents,
        features: FeatureStore | None = None,
    ) -> None:
        """``frames_per_clip`` successive rounds take different frames of a clip, evenly spaced from
        one drawn at random, as far as it has so many.
        """
        super().__init__(clips, sampling, front_end, augment, read, features)
        self._frames_per_clip = frames_per_clip
        self._views = RandomFields(RandomStream.CLIP_VIEWS, seed, len(clips), _FIELDS)
        self._frames = RandomFields(RandomStream.CLIP_VIEWS, seed, len(clips), _FIELDS)
        self._masks = RandomFields(RandomStream.CLIP_MASKS, seed, len(clips), _MASK_FIELDS)

    def __getitem__(self, index: SampleIndex) -> Pair:
        views, windows = self.__getitems__([index])
        return views[0], windows[0]

    def __getitems__(self, indices: Sequence[SampleIndex]) -> Pair:
        """Samples of one round: uint8 (indices, 3, crop, crop) or float16 (indices, features),
        (indices, 1, mels, columns).
        """
        rows = np.array([index.sample for index in indices])
        clips = [self._clips[row] for row in rows.tolist()]
        random = self._views.of(indices)
        candidates = zip(self._fractions(indices), map(self.positions, clips), strict=True)
        chosen = [positions[int(fraction * len(positions))] for fraction, positions in candidates]
        windows = self._windows(clips, chosen)
        self._mask(windows, indices)
        return self._pictures.training(rows, _numbers(chosen), random), windows

    def _fractions(self, indices: Sequence[SampleIndex]) -> list[float]:
        """Where in the list of its positions each clip is sampled, in [0, 1)."""
        passed = indices[0].round % self._frames_per_clip
        first = [SampleIndex(index.round - passed, index.sample) for index in indices]
        drawn: npt.NDArray[np.float32] = self._frames.of(first)["frame"]
        fractions: list[float] = ((drawn + passed / self._frames_per_clip) % 1).tolist()
        return fractions

    def _mask(self, windows: Tensor, indices: Sequence[SampleIndex]) -> None:
        columns = round(self._augment.mask_seconds / self._front_end.mel.hop_seconds)
        if columns or self._augment.mask_mels:
            seeds = (_MASK_SEEDS * self._masks.of(indices)["seed"]).astype(int).tolist()
            mask_windows(windows, seeds, max_columns=columns, max_mels=self._augment.mask_mels)


class ImageAudioValidation(_Clips, Dataset[Pair]):
    """For validation, without randomness: the validation frame of each clip (or the nearest whose
    window fits) and the audio centred on it, uint8 (3, crop, crop), or float16 (features,) of a
    frozen tower, and float32 (1, mels, columns).
    """

    def __init__(
        self,
        clips: ClipTable,
        sampling: FrameSampling,
        front_end: AudioFrontEnd,
        augment: AugmentConfig,
        *,
        read: ReadShard = read_extents,
        features: FeatureStore | None = None,
    ) -> None:
        super().__init__(clips, sampling, front_end, augment, read, features)

    def __getitem__(self, row: int) -> Pair:
        views, windows = self.__getitems__([row])
        return views[0], windows[0]

    def __getitems__(self, rows: Sequence[int]) -> Pair:
        """Uint8 (rows, 3, crop, crop) or float16 (rows, features), (rows, 1, mels, columns)."""
        clips = [self._clips[row] for row in rows]
        chosen = [
            min(self.positions(clip), key=self._distance_to_validation_frame) for clip in clips
        ]
        windows = self._windows(clips, chosen)
        return self._pictures.validation(np.array(rows), _numbers(chosen)), windows

    def _distance_to_validation_frame(self, position: FramePosition) -> int:
        return abs(position.frame - self._sampling.validation_frame)
