"""The index of the audio-visual shards, ``data/av/index.parquet``: one row for each clip.

It has the offsets of every frame and mel, so that a training sample costs two small reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.files import read_table
from trimodal.core.records import DataError, Split, check_file_name, check_name
from trimodal.core.schemas import AV_SCHEMA
from trimodal.data.shard_files import shard_fingerprints
from trimodal.media.mel import MelConfig
from trimodal.media.shard_format import check_index_metadata

_NUMBER_COLUMNS = ("duration_s", "sound_s", "mel_offset", "top_db_offset", "mel_columns")


@dataclass(frozen=True, kw_only=True)
class IndexedClip:
    """Where a clip's frames and mel are in its shard, in bytes. Frame N (numbered from 1) is at
    ``frame_offsets[N - 1]``.
    """

    shard: Path
    clip_id: str
    label: str
    duration_s: float
    sound_s: float
    frame_offsets: tuple[int, ...]
    frame_sizes: tuple[int, ...]
    mel_offset: int
    top_db_offset: int
    mel_columns: int

    @property
    def frames(self) -> int:
        """The number of frames, one for each second."""
        return len(self.frame_offsets)

    @property
    def has_audio(self) -> bool:
        """Whether there is a mel."""
        return self.mel_columns > 0


class ClipTable(Sequence[IndexedClip]):
    """Clips stored as columns; an IndexedClip is created on access. So forked processes share the
    memory of a large index: there are no Python objects whose reference counts they would write.
    """

    def __init__(self, av_dir: Path, rows: pa.Table) -> None:
        """``rows`` have AV_SCHEMA; their shards are in ``av_dir``. Raises DataError if a clip has
        not as many frame sizes as frame offsets.
        """
        rows = rows.combine_chunks()
        self._length = len(rows)
        self._string_columns = [(name, _column(rows, name)) for name in ("clip_id", "label")]
        self._number_columns = [(name, _column(rows, name).to_numpy()) for name in _NUMBER_COLUMNS]
        shards = _column(rows, "shard").dictionary_encode()
        self._shards = [av_dir / name for name in shards.dictionary.to_pylist()]
        self._shard_of: npt.NDArray[np.int32] = shards.indices.to_numpy()
        #: The fingerprint of each shard's content.
        self.fingerprints = shard_fingerprints(av_dir, rows)
        offsets, sizes = _column(rows, "frame_offsets"), _column(rows, "frame_sizes")
        self._frame_bounds = offsets.offsets.to_numpy()
        self._frame_offsets = offsets.values.to_numpy()
        self._frame_sizes = sizes.values.to_numpy()
        if not np.array_equal(self._frame_bounds, sizes.offsets.to_numpy()):
            raise DataError(
                f"{av_dir}/index.parquet: a clip has not as many frame_sizes as frame_offsets"
            )

    def __len__(self) -> int:
        return self._length

    @property
    def shard_of(self) -> npt.NDArray[np.int32]:
        """The number of each clip's shard, (clips,)."""
        return self._shard_of

    def frame_extents(self) -> dict[Path, npt.NDArray[np.int64]]:
        """By shard, offset and size of the frames of its clips, in order of clips, (frames, 2)."""
        counts = np.diff(self._frame_bounds)
        shard_of_frame = np.repeat(self._shard_of, counts)
        frames = slice(self._frame_bounds[0], self._frame_bounds[-1])
        extents = np.stack([self._frame_offsets[frames], self._frame_sizes[frames]], axis=1)
        order = np.argsort(shard_of_frame, kind="stable")
        bounds = np.searchsorted(shard_of_frame[order], np.arange(1, len(self._shards)))
        return dict(zip(self._shards, np.split(extents[order], bounds), strict=True))

    def frames_before(self) -> npt.NDArray[np.int64]:
        """How many frames the clips before each one in its shard have, (clips,): the row of its
        first frame in :meth:`frame_extents`.
        """
        order = np.argsort(self._shard_of, kind="stable")
        shards, counts = self._shard_of[order], np.diff(self._frame_bounds)[order]
        starts = np.cumsum(counts, dtype=np.int64) - counts
        before = np.empty(self._length, np.int64)
        before[order] = starts - starts[np.searchsorted(shards, shards)]
        return before

    @property
    def shards(self) -> list[Path]:
        """The shards that :attr:`shard_of` numbers."""
        return self._shards

    def frame_extent(self, row: int, frame: int) -> tuple[Path, int, int]:
        """The shard, offset and size of a clip's frame, numbered from 1: :meth:`__getitem__` takes
        as long as reading it.
        """
        place = self._frame_bounds[row] + frame - 1
        shard = self._shards[self._shard_of[row]]
        return shard, self._frame_offsets[place].item(), self._frame_sizes[place].item()

    @overload
    def __getitem__(self, index: int) -> IndexedClip: ...

    @overload
    def __getitem__(self, index: slice) -> list[IndexedClip]: ...

    def __getitem__(self, index: int | slice) -> IndexedClip | list[IndexedClip]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        row = range(self._length)[index]
        start, stop = self._frame_bounds[row], self._frame_bounds[row + 1]
        return IndexedClip(
            shard=self._shards[self._shard_of[row]],
            frame_offsets=tuple(self._frame_offsets[start:stop].tolist()),
            frame_sizes=tuple(self._frame_sizes[start:stop].tolist()),
            **{name: column[row].as_py() for name, column in self._string_columns},
            **{name: column[row].item() for name, column in self._number_columns},
        )


def _column(rows: pa.Table, name: str) -> pa.Array:
    """A column as one chunk."""
    chunks = rows[name].chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def read_index(av_dir: Path, split: Split, mel: MelConfig | None) -> ClipTable:
    """The clips of one split, in shard order.

    Raises DataError, naming file and key, if the shards were made with other settings than ``mel``
    (None: whatever they are, for who reads no sound) or by another version, and for values that no
    clip can have.
    """
    path = av_dir / "index.parquet"
    table = read_table(path, AV_SCHEMA).filter(pc.field("split") == split)
    if mel is not None:
        check_index_metadata(path, table.schema.metadata or {}, mel)
    _check_rows(path, table)
    return ClipTable(av_dir, table)


def _check_rows(path: Path, rows: pa.Table) -> None:
    """Raises DataError for values that no clip can have."""
    for name in rows["clip_id"].to_pylist():
        check_name(name, str(path))
    for name in rows["shard"].unique().to_pylist():
        check_file_name(name, str(path))
    for name in (*_NUMBER_COLUMNS, "frame_offsets", "frame_sizes"):
        column = rows[name] if name in _NUMBER_COLUMNS else pc.list_flatten(rows[name])
        numbers = column.to_numpy()
        if not ((numbers >= 0) & (numbers < np.inf)).all():
            raise DataError(f"{path}: a value of {name} is negative or not finite")
    if pc.any(pc.equal(pc.list_value_length(rows["frame_offsets"]), 0)).as_py():
        raise DataError(f"{path}: a clip without frames")
