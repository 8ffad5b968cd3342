"""Reads frames, images and audio windows from shards by offset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimodal.core.records import DataError
from trimodal.core.shards import read_extents
from trimodal.data.clip_index import IndexedClip
from trimodal.data.shard_files import ReadShard
from trimodal.media.windows import (
    SILENCE_TOP_DB,
    AudioFrontEnd,
    missing_columns,
    window_first_column,
    windows_of_codes,
)
from trimodal.models.preprocessing import decode_jpeg

Pair = tuple[Tensor, Tensor]  # images and their partners, of one sample or stacked to a batch
_TOP_DB = np.dtype("<f2")


def read_windows(
    clips: Sequence[IndexedClip],
    centres_seconds: Sequence[float],
    front_end: AudioFrontEnd,
    read: ReadShard = read_extents,
) -> tuple[Tensor, list[int]]:
    """The audio windows of clips centred on the given seconds, float32 (windows, 1, mels, columns);
    and the number of columns of each that are outside the clip's audio and filled with silence.
    """
    mels, columns = front_end.mel.mels, front_end.columns
    codes = np.zeros((len(clips), columns, mels), np.uint8)
    top_db = np.full((len(clips), columns), SILENCE_TOP_DB, _TOP_DB)
    missing = []
    for row, (clip, centre_seconds) in enumerate(zip(clips, centres_seconds, strict=True)):
        first = window_first_column(centre_seconds, front_end)
        start = min(max(first, 0), clip.mel_columns)
        stop = max(start, min(first + columns, clip.mel_columns))
        stored_codes, stored_top_db = read(
            clip.shard,
            [
                (clip.mel_offset + start * mels, (stop - start) * mels),
                (
                    clip.top_db_offset + start * _TOP_DB.itemsize,
                    (stop - start) * _TOP_DB.itemsize,
                ),
            ],
        )
        inside = slice(start - first, stop - first)
        codes[row, inside] = np.frombuffer(stored_codes, np.uint8).reshape(-1, mels)
        top_db[row, inside] = np.frombuffer(stored_top_db, _TOP_DB)
        missing.append(missing_columns(first, clip.mel_columns, front_end))
    return torch.from_numpy(windows_of_codes(codes, top_db, front_end))[:, None], missing


def read_frame(clip: IndexedClip, frame: int, read: ReadShard = read_extents) -> Tensor:
    """Frame ``frame`` (numbered from 1), uint8 (3, height, width)."""
    return read_image(clip.shard, clip.frame_offsets[frame - 1], clip.frame_sizes[frame - 1], read)


def read_image(shard: Path, offset: int, size: int, read: ReadShard = read_extents) -> Tensor:
    """The JPEG at an offset of a shard, uint8 (3, height, width); raises DataError if it is
    not one.
    """
    try:
        return decode_jpeg(read(shard, [(offset, size)])[0])
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{shard}: the {size} bytes at {offset} are not a JPEG ({error}); the shard is damaged "
            "or not the one that the index describes"
        ) from error
