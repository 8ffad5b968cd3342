"""The two training streams, image-audio and image-text, read by seek from shards.

Step s of a stream is a pure function of (seed, s): which samples it holds and every random choice
made for them. So the number of workers does not matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trimodal.av_index import AvClip
from trimodal.images import AugmentConfig, centre_view, decode_jpeg, training_view
from trimodal.mel import MelConfig, missing_columns, pad_window, scale_window, window_first_column
from trimodal.records import DataError, Split
from trimodal.shards import read_extent
from trimodal.tables import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.timing import Point, training_points

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Draw:
    """Sample ``index`` in round ``round`` of a stream; round -1 is validation: nothing random."""

    round: int
    index: int


@dataclass(frozen=True, kw_only=True)
class PointRule:
    """Which frames of a clip train (paper.md: 2..8) and which one validates (4)."""

    first_frame: int
    last_frame: int
    validation_frame: int


def read_window(clip: AvClip, centre_seconds: float, mel: MelConfig) -> tuple[Tensor, int]:
    """The network's input for the sound centred on a second, float32 (1, mels, columns), and how
    many of its columns lie outside the clip's sound and are silence.
    """
    first = window_first_column(centre_seconds, mel)
    start = min(max(first, 0), clip.mel_columns)
    stop = max(start, min(first + mel.columns, clip.mel_columns))
    row_bytes = mel.mels * 2
    content = read_extent(
        clip.shard, clip.mel_offset + start * row_bytes, (stop - start) * row_bytes
    )
    part = np.frombuffer(content, np.float16).reshape(-1, mel.mels)
    window = scale_window(pad_window(part, first, mel), mel)
    return torch.from_numpy(window)[None], missing_columns(first, clip.mel_columns, mel)


def read_frame(clip: AvClip, frame: int) -> Tensor:
    """Frame ``frame`` (numbered from 1), uint8 (3, height, width)."""
    return decode_jpeg(
        read_extent(clip.shard, clip.frame_offsets[frame - 1], clip.frame_sizes[frame - 1])
    )


class AudioVisualPairs(Dataset[Pair]):
    """A frame of each clip and the sound centred on it: uint8 (3, crop, crop), (1, mels, columns).

    The frame is drawn anew every round among those whose whole window fits.
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
        self._seed = seed

    def __len__(self) -> int:
        return len(self._clips)

    def points(self, index: int) -> list[Point]:
        """The moments that clip ``index`` may be shown at."""
        clip = self._clips[index]
        return training_points(
            clip.frames,
            clip.sound_s,
            self._mel.window_seconds,
            self._rule.first_frame,
            self._rule.last_frame,
        )

    def first_points(self) -> Iterator[tuple[AvClip, Point]]:
        """Each clip with the first moment it may be shown at."""
        return ((clip, self.points(index)[0]) for index, clip in enumerate(self._clips))

    def __getitem__(self, draw: Draw) -> Pair:
        clip = self._clips[draw.index]
        points = self.points(draw.index)
        if draw.round < 0:
            point = min(points, key=lambda p: abs(p.frame - self._rule.validation_frame))
            view = centre_view(read_frame(clip, point.frame), self._augment)
        else:
            rng = np.random.default_rng([self._seed, 0, draw.round, draw.index])
            point = points[int(rng.integers(len(points)))]
            view = training_view(read_frame(clip, point.frame), self._augment, rng)
        return view, read_window(clip, point.centre_seconds, self._mel)[0]


class CaptionedImages(Dataset[Pair]):
    """An image and one of its captions: uint8 (3, crop, crop), int64 (16,) word ids.

    The caption is drawn anew every round; validation takes the first.
    """

    def __init__(
        self, captions_dir: Path, images_dir: Path, split: Split, augment: AugmentConfig, seed: int
    ) -> None:
        wanted = pc.field("split") == split
        captions = pq.read_table(
            captions_dir / "captions.parquet",
            schema=CAPTION_SCHEMA,
            columns=["image_id", "token_ids"],
            filters=wanted,
        )
        images = pq.read_table(
            images_dir / "index.parquet", schema=IMAGE_SCHEMA, filters=wanted
        ).to_pydict()
        names = captions["image_id"].to_numpy()
        flat = captions["token_ids"].combine_chunks().flatten().to_numpy()
        self._token_ids: npt.NDArray[np.int32] = flat.reshape(len(names), -1)
        starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
        self._captions_of = dict(
            zip(names[starts], zip(starts, np.r_[starts[1:], len(names)], strict=True), strict=True)
        )
        self._images = [
            (images_dir / shard, offset, size, name)
            for shard, offset, size, name in zip(
                images["shard"], images["offset"], images["size"], images["image_id"], strict=True
            )
            if name in self._captions_of
        ]
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> Pair:
        shard, offset, size, name = self._images[draw.index]
        pixels = decode_jpeg(read_extent(shard, offset, size))
        first, behind = self._captions_of[name]
        if draw.round < 0:
            row, view = first, centre_view(pixels, self._augment)
        else:
            rng = np.random.default_rng([self._seed, 1, draw.round, draw.index])
            row = int(rng.integers(first, behind))
            view = training_view(pixels, self._augment, rng)
        return view, torch.from_numpy(self._token_ids[row].astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The four sets that training reads."""

    audio: AudioVisualPairs
    text: CaptionedImages
    audio_validation: AudioVisualPairs
    text_validation: CaptionedImages


class EndlessBatches(Sampler[list[Draw]]):
    """Batches without end: rounds of shuffled samples, no sample twice in a batch. A round's last
    samples that fill no batch are left for later rounds.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, stream: int) -> None:
        if samples < 2:
            raise DataError(f"a ranking loss needs at least two training samples, not {samples}")
        self.batch_size = min(batch_size, samples)
        self.batches_per_round = samples // self.batch_size
        self._samples = samples
        self._key = (seed, 2, stream)

    def __iter__(self) -> Iterator[list[Draw]]:
        for round_number in count():
            order = np.random.default_rng([*self._key, round_number]).permutation(self._samples)
            for batch in range(self.batches_per_round):
                chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [Draw(round_number, int(index)) for index in chosen]


def training_loader(
    dataset: Dataset[Pair], batches: EndlessBatches, workers: int
) -> DataLoader[Pair]:
    """Endless training batches of a stream, read ahead by ``workers`` processes (0: none)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def validation_batches(
    dataset: AudioVisualPairs | CaptionedImages, batch_size: int
) -> Iterator[list[Tensor]]:
    """All samples of a validation set in order, in batches of at least two."""
    samples = len(dataset)
    if samples < 2:
        raise DataError(f"validation needs at least two samples, not {samples}")
    starts = list(range(0, samples, batch_size))
    if samples - starts[-1] < 2:
        starts.pop()
    for first, behind in zip(starts, [*starts[1:], samples], strict=True):
        pairs = [dataset[Draw(-1, index)] for index in range(first, behind)]
        yield [torch.stack(side) for side in zip(*pairs, strict=True)]
