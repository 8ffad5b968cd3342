"""The index of the audio-visual shards, ``data/av/index.parquet``: one row a clip.

It says where each frame and the mel lie, so that a training sample costs two small reads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trimodal.mel import MelConfig
from trimodal.records import DataError, Split
from trimodal.tables import AV_SCHEMA

_NUMBERS = ("duration_s", "sound_s", "mel_offset", "mel_columns")


@dataclass(frozen=True, kw_only=True)
class AvClip:
    """A clip in its shard. Frame N (from 1) is at ``frame_offsets[N - 1]``."""

    shard: Path
    clip_id: str
    label: str
    duration_s: float
    sound_s: float
    frame_offsets: tuple[int, ...]
    frame_sizes: tuple[int, ...]
    mel_offset: int
    mel_columns: int

    @property
    def frames(self) -> int:
        """How many one-per-second frames the clip has."""
        return len(self.frame_offsets)

    @property
    def has_audio(self) -> bool:
        """Whether there is a mel."""
        return self.mel_columns > 0


class ClipTable(Sequence[AvClip]):
    """Clips held as columns; a clip is made when it is asked for. So the processes that read a
    large index share its memory: there are no objects whose counts of references they write to.
    """

    def __init__(self, av_dir: Path, rows: pa.Table) -> None:
        """``rows`` of AV_SCHEMA, their shards in ``av_dir``."""
        rows = rows.combine_chunks()
        self._length = len(rows)
        self._texts = [(name, _column(rows, name)) for name in ("clip_id", "label")]
        self._numbers = [(name, _column(rows, name).to_numpy()) for name in _NUMBERS]
        shards = _column(rows, "shard").dictionary_encode()
        self._shards = [av_dir / name for name in shards.dictionary.to_pylist()]
        self._shard_of = shards.indices.to_numpy()
        offsets, sizes = _column(rows, "frame_offsets"), _column(rows, "frame_sizes")
        self._frame_ends = offsets.offsets.to_numpy()
        self._frame_offsets = offsets.values.to_numpy()
        self._frame_sizes = sizes.values.to_numpy()
        if not np.array_equal(self._frame_ends, sizes.offsets.to_numpy()):
            raise DataError(f"{av_dir}/index.parquet: not as many frame_sizes as frame_offsets")

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> AvClip: ...

    @overload
    def __getitem__(self, index: slice) -> list[AvClip]: ...

    def __getitem__(self, index: int | slice) -> AvClip | list[AvClip]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        row = range(self._length)[index]
        first, behind = self._frame_ends[row], self._frame_ends[row + 1]
        return AvClip(
            shard=self._shards[self._shard_of[row]],
            frame_offsets=tuple(self._frame_offsets[first:behind].tolist()),
            frame_sizes=tuple(self._frame_sizes[first:behind].tolist()),
            **{name: column[row].as_py() for name, column in self._texts},
            **{name: column[row].item() for name, column in self._numbers},
        )


def _column(rows: pa.Table, name: str) -> pa.Array:
    """A column in one piece."""
    chunks = rows[name].chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def read_index(av_dir: Path, split: Split, mel: MelConfig) -> ClipTable:
    """The clips of one split, in shard order.

    Raises DataError if the shards were made by another mel front-end than ``mel``.
    """
    stats = json.loads((av_dir / "stats.json").read_text())
    if stats["front_end"] != mel.front_end_fingerprint():
        raise DataError(
            f"{av_dir}: made by mel front-end {stats['front_end']}, but the params say "
            f"{mel.front_end_fingerprint()}; run the extract stage again"
        )
    table = pq.read_table(av_dir / "index.parquet", schema=AV_SCHEMA)
    return ClipTable(av_dir, table.filter(pc.field("split") == split))
