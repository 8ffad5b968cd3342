"""The index of the audio-visual shards, ``data/av/index.parquet``: one row a clip.

It says where each frame and the mel lie, so that a training sample costs two small reads.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.files import read_json, read_table
from trimodal.core.records import DataError, Split, check_file_name, check_name
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.shards import Extent, check_member
from trimodal.media.mel import MelConfig

_NUMBERS = ("duration_s", "sound_s", "mel_offset", "mel_columns")


@dataclass(frozen=True, kw_only=True)
class IndexedClip:
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


class ClipTable(Sequence[IndexedClip]):
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

    def ends_of_shards(self) -> Iterator[tuple[IndexedClip, IndexedClip]]:
        """The first and the last clip of each shard."""
        for shard in range(len(self._shards)):
            rows = np.flatnonzero(self._shard_of == shard)
            yield self[int(rows[0])], self[int(rows[-1])]

    @overload
    def __getitem__(self, index: int) -> IndexedClip: ...

    @overload
    def __getitem__(self, index: slice) -> list[IndexedClip]: ...

    def __getitem__(self, index: int | slice) -> IndexedClip | list[IndexedClip]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        row = range(self._length)[index]
        first, behind = self._frame_ends[row], self._frame_ends[row + 1]
        return IndexedClip(
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

    Raises DataError, naming the file, if the shards or one of them were made by another mel
    front-end than ``mel``, and if files are damaged or do not belong together: the first and the
    last clip of each shard are looked for in it.
    """
    stats = read_json(av_dir / "stats.json")
    if not isinstance(stats, dict) or not isinstance(stats.get("front_end"), str):
        raise DataError(f"{av_dir / 'stats.json'}: states no front_end; run the extract stage")
    _check_front_end(av_dir, stats["front_end"], mel)
    path = av_dir / "index.parquet"
    table = read_table(path, AV_SCHEMA).filter(pc.field("split") == split)
    _check_rows(path, table)
    clips = ClipTable(av_dir, table)
    for first, last in clips.ends_of_shards():
        facts = _check_clip(first)
        _check_clip(last)
        _check_front_end(first.shard, facts.get("front_end", "unknown"), mel)
    return clips


def _check_front_end(path: Path, made_by: str, mel: MelConfig) -> None:
    if made_by != mel.front_end_fingerprint():
        raise DataError(
            f"{path}: made by mel front-end {made_by}, but the params say "
            f"{mel.front_end_fingerprint()}; run the extract stage again"
        )


def _check_rows(path: Path, rows: pa.Table) -> None:
    """Raises DataError for values that no clip can have."""
    for name in rows["clip_id"].to_pylist():
        check_name(name, str(path))
    for name in rows["shard"].unique().to_pylist():
        check_file_name(name, str(path))
    for name in (*_NUMBERS, "frame_offsets", "frame_sizes"):
        column = rows[name] if name in _NUMBERS else pc.list_flatten(rows[name])
        numbers = column.to_numpy()
        if not ((numbers >= 0) & (numbers < np.inf)).all():
            raise DataError(f"{path}: a number of {name} is below zero or not finite")
    if pc.any(pc.equal(pc.list_value_length(rows["frame_offsets"]), 0)).as_py():
        raise DataError(f"{path}: a clip without frames")


def _check_clip(clip: IndexedClip) -> dict[str, Any]:
    """Looks whether the clip's last frame is in its shard and its mel can be; returns its facts."""
    name = f"{clip.clip_id}.{clip.frames:02d}.jpg"
    last = Extent(offset=clip.frame_offsets[-1], size=clip.frame_sizes[-1])
    told = check_member(clip.shard, name, last, next_name=f"{clip.clip_id}.json")
    try:
        facts = json.loads(told)
    except ValueError as error:
        raise DataError(f"{clip.shard}: {clip.clip_id}.json: not valid JSON: {error}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{clip.shard}: {clip.clip_id}.json: no facts")
    return facts
