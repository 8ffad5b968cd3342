"""Reads frames, images and audio windows from shards by offset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimodal.core.records import DataError
from trimodal.core.shards import read_extent
from trimodal.media.windows import (
    AudioFrontEnd,
    missing_columns,
    scale_windows,
    window_decibels,
    window_first_column,
)
from trimodal.models.preprocessing import decode_jpeg
from trimodal.training.clip_index import IndexedClip

Pair = tuple[Tensor, Tensor]  # images and their partners, of one sample or stacked to a batch


def read_windows(
    clips: Sequence[IndexedClip], centres_seconds: Sequence[float], front_end: AudioFrontEnd
) -> tuple[Tensor, list[int]]:
    """The audio windows of clips centred on the given seconds, float32 (windows, 1, mels, columns);
    and the number of columns of each that are outside the clip's audio and filled with silence.
    """
    mel = front_end.mel
    decibels = np.empty((len(clips), front_end.columns, mel.mels), np.float32)
    missing = []
    size = mel.column_type.itemsize
    for window, clip, centre_seconds in zip(decibels, clips, centres_seconds, strict=True):
        first = window_first_column(centre_seconds, front_end)
        start = min(max(first, 0), clip.mel_columns)
        stop = max(start, min(first + front_end.columns, clip.mel_columns))
        content = read_extent(clip.shard, clip.mel_offset + start * size, (stop - start) * size)
        window[...] = window_decibels(np.frombuffer(content, mel.column_type), first, front_end)
        missing.append(missing_columns(first, clip.mel_columns, front_end))
    return torch.from_numpy(scale_windows(decibels, front_end))[:, None], missing


def read_frame(clip: IndexedClip, frame: int) -> Tensor:
    """Frame ``frame`` (numbered from 1), uint8 (3, height, width)."""
    return read_image(clip.shard, clip.frame_offsets[frame - 1], clip.frame_sizes[frame - 1])


def read_image(shard: Path, offset: int, size: int) -> Tensor:
    """The JPEG at an offset of a shard, uint8 (3, height, width); raises DataError if it is
    not one.
    """
    try:
        return decode_jpeg(read_extent(shard, offset, size))
    except ValueError as error:
        raise DataError(
            f"{shard}: the {size} bytes at {offset} are not a JPEG ({error}); the shard is damaged "
            "or not the one that the index describes"
        ) from error
