"""The two training streams, image-audio and image-text, read by seek from shards.

Step s of a stream is a pure function of (seed, s): which samples it holds and every random choice
made for them. So the number of workers does not matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trimodal.core.files import read_table
from trimodal.core.records import DataError, Split, check_file_name
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA, WORDS
from trimodal.core.shards import Extent, check_member, read_extent
from trimodal.core.timing import Point, training_points
from trimodal.media.mel import (
    MASK_CHANCES,
    MelConfig,
    mask_windows,
    missing_columns,
    scale_windows,
    window_decibels,
    window_first_column,
)
from trimodal.models.preprocessing import AugmentConfig, centre_views, decode_jpeg
from trimodal.training.augment import VIEW_CHANCES, training_views
from trimodal.training.clip_index import AvClip

Pair = tuple[Tensor, Tensor]


class Draw(NamedTuple):
    """Sample ``sample`` in round ``round`` of a stream; round -1 is validation: nothing random."""

    round: int
    sample: int


@dataclass(frozen=True, kw_only=True)
class PointRule:
    """Which frames of a clip train (paper.md: 2..8) and which one validates (4)."""

    first_frame: int
    last_frame: int
    validation_frame: int


def read_windows(
    clips: Sequence[AvClip], centres_seconds: Sequence[float], mel: MelConfig
) -> tuple[Tensor, list[int]]:
    """The network's inputs for the sound of clips centred on seconds, float32 (windows, 1, mels,
    columns), and how many columns of each lie outside the clip's sound and are silence.
    """
    decibels = np.empty((len(clips), mel.columns, mel.mels), np.float32)
    missing = []
    size = mel.column_type.itemsize
    for window, clip, centre_seconds in zip(decibels, clips, centres_seconds, strict=True):
        first = window_first_column(centre_seconds, mel)
        start = min(max(first, 0), clip.mel_columns)
        stop = max(start, min(first + mel.columns, clip.mel_columns))
        content = read_extent(clip.shard, clip.mel_offset + start * size, (stop - start) * size)
        window[...] = window_decibels(np.frombuffer(content, mel.column_type), first, mel)
        missing.append(missing_columns(first, clip.mel_columns, mel))
    return torch.from_numpy(scale_windows(decibels, mel))[:, None], missing


def read_frame(clip: AvClip, frame: int) -> Tensor:
    """Frame ``frame`` (numbered from 1), uint8 (3, height, width)."""
    return read_picture(clip.shard, clip.frame_offsets[frame - 1], clip.frame_sizes[frame - 1])


def read_picture(shard: Path, offset: int, size: int) -> Tensor:
    """The JPEG at a place of a shard, uint8 (3, height, width); raises DataError if it is none."""
    try:
        return decode_jpeg(read_extent(shard, offset, size))
    except ValueError as error:
        raise DataError(
            f"{shard}: the {size} bytes at {offset} are no JPEG ({error}); the shard is damaged or "
            "not the one that the index describes"
        ) from error


class Chances:
    """What is random in a stream: ``count`` numbers in [0, 1) for each sample in each round."""

    def __init__(self, seed: int, stream: int, samples: int, count: int) -> None:
        self._key = (seed, stream)
        self._shape = (samples, count)
        self._round = -1
        self._table = np.empty((0, count), np.float32)

    def of(self, draws: Sequence[Draw]) -> npt.NDArray[np.float32]:
        """The numbers of samples of one round, (draws, count); a round's are drawn together, when
        it is first asked for.
        """
        if draws[0].round != self._round:
            rng = np.random.default_rng([*self._key, draws[0].round])
            self._table = rng.random(self._shape, np.float32)
            self._round = draws[0].round
        return self._table[[draw.sample for draw in draws]]


class AudioVisualPairs(Dataset[Pair]):
    """A frame of each clip and the sound centred on it: uint8 (3, crop, crop), (1, mels, columns).

    The frame is drawn anew every round among those whose whole window fits. Samples of one round
    are read together, the pictures and the windows of a batch as one array each.
    """

    def __init__(
        self,
        clips: Sequence[AvClip],
        rule: PointRule,
        mel: MelConfig,
        augment: AugmentConfig,
        seed: int,
    ) -> None:
        self._clips = clips
        self._rule = rule
        self._mel = mel
        self._augment = augment
        self._chances = Chances(seed, 0, len(clips), 1 + VIEW_CHANCES)
        self._mask_chances = Chances(seed, 2, len(clips), MASK_CHANCES)

    def __len__(self) -> int:
        return len(self._clips)

    def points(self, clip: AvClip) -> tuple[Point, ...]:
        """The moments that a clip may be shown at."""
        return training_points(
            clip.frames,
            clip.sound_s,
            self._mel.window_seconds,
            self._rule.first_frame,
            self._rule.last_frame,
        )

    def first_points(self) -> Iterator[tuple[AvClip, Point]]:
        """Each clip with the first moment it may be shown at."""
        return ((clip, self.points(clip)[0]) for clip in self._clips)

    def __getitem__(self, draw: Draw) -> Pair:
        views, windows = self.__getitems__([draw])
        return views[0], windows[0]

    def __getitems__(self, draws: Sequence[Draw]) -> Pair:
        """Samples of one round: uint8 (draws, 3, crop, crop), (draws, 1, mels, columns)."""
        clips = [self._clips[draw.sample] for draw in draws]
        if draws[0].round < 0:
            chosen = [min(self.points(clip), key=self._from_validation_frame) for clip in clips]
        else:
            chances = self._chances.of(draws)
            options = zip(chances[:, 0].tolist(), map(self.points, clips), strict=True)
            chosen = [points[int(chance * len(points))] for chance, points in options]
        pictures = [read_frame(clip, p.frame) for clip, p in zip(clips, chosen, strict=True)]
        windows, _ = read_windows(clips, [point.centre_seconds for point in chosen], self._mel)
        if draws[0].round < 0:
            return centre_views(pictures, self._augment), windows
        self._mask(windows, draws)
        return training_views(pictures, self._augment, chances[:, 1:]), windows

    def _mask(self, windows: Tensor, draws: Sequence[Draw]) -> None:
        columns = round(self._augment.mask_seconds / self._mel.hop_seconds)
        if columns or self._augment.mask_mels:
            mask_windows(
                windows[:, 0].numpy(),
                self._mask_chances.of(draws),
                most_columns=columns,
                most_mels=self._augment.mask_mels,
            )

    def _from_validation_frame(self, point: Point) -> int:
        return abs(point.frame - self._rule.validation_frame)


class CaptionedImages(Dataset[Pair]):
    """An image and one of its captions: uint8 (3, crop, crop), int64 (16,) word ids.

    The caption is drawn anew every round; validation takes the first. Raises DataError where the
    files of ``captions_dir`` do not belong together.
    """

    def __init__(
        self, captions_dir: Path, images_dir: Path, split: Split, augment: AugmentConfig, seed: int
    ) -> None:
        self._ids_path = captions_dir / "token_ids.npy"
        self._token_ids = _mapped(self._ids_path)
        wanted = pc.field("split") == split
        images = read_table(images_dir / "index.parquet", IMAGE_SCHEMA, filters=wanted)
        _check_image_shards(images_dir, images)
        captioned = _captioned_images(captions_dir, len(self._token_ids))
        places = pc.index_in(images["image_id"], captioned.values)
        images = images.filter(pc.is_valid(places)).combine_chunks()
        places = places.drop_null().to_numpy()
        behind = captioned.run_ends.to_numpy()
        self._behind: npt.NDArray[np.int32] = behind[places]
        self._first = np.concatenate([np.zeros(1, np.int32), behind])[places]
        shards = images["shard"].combine_chunks().dictionary_encode()
        self._shards = [images_dir / name for name in shards.dictionary.to_pylist()]
        self._shard_of = shards.indices.to_numpy()
        self._offsets = images["offset"].to_numpy()
        self._sizes = images["size"].to_numpy()
        self._augment = augment
        self._chances = Chances(seed, 1, len(places), 1 + VIEW_CHANCES)

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, draw: Draw) -> Pair:
        views, token_ids = self.__getitems__([draw])
        return views[0], token_ids[0]

    def __getitems__(self, draws: Sequence[Draw]) -> Pair:
        """Samples of one round: uint8 (draws, 3, crop, crop), int64 (draws, 16)."""
        samples = np.array([draw.sample for draw in draws])
        places = zip(
            self._shard_of[samples].tolist(),
            self._offsets[samples].tolist(),
            self._sizes[samples].tolist(),
            strict=True,
        )
        pictures = [read_picture(self._shards[shard], start, size) for shard, start, size in places]
        rows = self._first[samples]
        if draws[0].round < 0:
            views = centre_views(pictures, self._augment)
        else:
            chances = self._chances.of(draws)
            rows = rows + (chances[:, 0] * (self._behind[samples] - rows)).astype(np.int64)
            views = training_views(pictures, self._augment, chances[:, 1:])
        return views, torch.from_numpy(self._token_ids[rows].astype(np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_token_ids"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A process that is not forked maps the word ids anew."""
        vars(self).update(state)
        self._token_ids = _mapped(self._ids_path)


def _check_image_shards(images_dir: Path, images: pa.Table) -> None:
    """Looks for the first and the last image of each shard; raises DataError, naming the file."""
    path = images_dir / "index.parquet"
    ends: dict[str, list[int]] = {}
    for row, name in enumerate(images["shard"].to_pylist()):
        ends.setdefault(name, [row, row])[1] = row
    for name, rows in ends.items():
        for row in rows:
            image_id, offset, size = (
                images[c][row].as_py() for c in ("image_id", "offset", "size")
            )
            shard = images_dir / check_file_name(name, str(path))
            check_member(shard, f"{image_id}.jpg", Extent(offset=offset, size=size))


def _mapped(path: Path) -> npt.NDArray[np.int32]:
    try:
        ids = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy file: {error}") from error
    if ids.dtype != np.int32 or ids.shape[1:] != (WORDS,):
        raise DataError(f"{path}: {ids.dtype} {ids.shape} are no word ids")
    return ids


def _captioned_images(captions_dir: Path, captions: int) -> pa.RunEndEncodedArray:
    """The image ids of ``captions.parquet``, each once, with the row behind its last caption."""
    path = captions_dir / "captions.parquet"
    names = read_table(path, CAPTION_SCHEMA, columns=["image_id"])["image_id"]
    if len(names) != captions:
        raise DataError(
            f"{path} has {len(names)} captions, token_ids.npy beside it {captions}; "
            "run the captions stage again"
        )
    return pc.run_end_encode(pa.concat_arrays(names.chunks), run_end_type=pa.int32())
