"""Pairs of the shards as Arrow tables, and what their columns mean to Hugging Face ``datasets``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.files import read_table
from trimodal.core.records import Split
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.timing import FramePosition, frame_centre_seconds, training_positions
from trimodal.data.clip_index import IndexedClip
from trimodal.data.readers import read_windows
from trimodal.data.shard_files import ReadShard
from trimodal.media.windows import AudioFrontEnd

_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_OTHER_COLUMNS_BYTES = 100  # of a row, about


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of an exported table; ``feature`` is its type as ``datasets`` writes it in JSON
    (``datasets.Features.to_dict``).
    """

    name: str
    type: pa.DataType
    feature: Mapping[str, Any]
    description: str


class PairTable(Protocol):
    """The pairs of one split; rows are numbered from 0."""

    @property
    def columns(self) -> Sequence[Column]:
        """The columns, in order."""

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """About how many bytes each row takes in memory, (rows,)."""

    def rows(self, rows: range) -> pa.Table:
        """Some rows."""


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of a table with these columns; its metadata hold the features as ``datasets``
    looks for them.
    """
    features = {column.name: column.feature for column in columns}
    return pa.schema(
        [(column.name, column.type) for column in columns],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def _value(name: str, dtype: str, description: str) -> Column:
    return Column(
        name=name, type=pa.type_for_alias(dtype), feature={"dtype": dtype, "_type": "Value"},
        description=description,
    )  # fmt: skip


def _image(description: str) -> Column:
    return Column(name="image", type=_IMAGE, feature={"_type": "Image"}, description=description)


IMAGE_TEXT_COLUMNS = (
    _value("image_id", "string", "the image's name in its source"),
    _image("the image, a square JPEG"),
    Column(
        name="captions",
        type=pa.list_(pa.string()),
        feature={"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
        description="the captions of the image",
    ),
    _value("source", "string", "coco or flickr30k"),
)


def image_audio_columns(front_end: AudioFrontEnd) -> tuple[Column, ...]:
    """The columns of :class:`ImageAudioTable`."""
    window = Column(
        name="window",
        type=pa.list_(pa.list_(pa.float32())),
        feature={
            "shape": [front_end.mel.mels, front_end.columns],
            "dtype": "float32",
            "_type": "Array2D",
        },
        description=(
            f"log-mel of {front_end.window.seconds:g} s of audio, (mels, columns): decibels "
            "relative to the window's maximum, clipped at -80 and scaled to [-1, 1]"
        ),
    )
    return (
        _value("clip_id", "string", "the clip that frame and window come from"),
        _value("frame", "int32", "the frame's number in the clip, from 1"),
        _value("frame_time_s", "float64", "the time in the clip that the frame shows, in seconds"),
        _value("window_centre_s", "float64", "the time on which the window is centred, in seconds"),
        _image("the frame, a square JPEG"),
        window,
        _value("label", "string", "the clip's label; empty if its source has none"),
    )


class ImageAudioTable:
    """Pairs of a frame and the audio window around it: of every frame whose window fits, or of
    ``frames_per_clip`` of these, evenly spaced; of a clip shorter than a window, its middle.
    ``silent`` clips, those without audio, have none.
    """

    def __init__(
        self,
        clips: Sequence[IndexedClip],
        front_end: AudioFrontEnd,
        frames_per_clip: int | None,
        read: ReadShard,
    ) -> None:
        self.columns = image_audio_columns(front_end)
        self.silent = 0
        self._clips, self._front_end, self._read = clips, front_end, read
        pairs: list[tuple[int, int, float, int]] = []
        other_bytes = front_end.mel.mels * front_end.columns * 4 + _OTHER_COLUMNS_BYTES
        for number, clip in enumerate(clips):
            if not clip.has_audio:
                self.silent += 1
                continue
            positions = training_positions(
                clip.frames, clip.sound_s, front_end.window.seconds, 1, clip.frames
            )
            for position in _evenly_spaced(positions, frames_per_clip):
                size = clip.frame_sizes[position.frame - 1] + other_bytes
                pairs.append((number, position.frame, position.centre_seconds, size))
        self._pairs = np.array(
            pairs, [("clip", np.int32), ("frame", np.int32), ("centre", float), ("size", np.int64)]
        )

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """See :class:`PairTable`."""
        sizes: npt.NDArray[np.int64] = self._pairs["size"]
        return sizes

    def rows(self, rows: range) -> pa.Table:
        """See :class:`PairTable`. Raises DataError or OSError for a damaged shard."""
        pairs = self._pairs[rows.start : rows.stop]
        clips = [self._clips[number] for number in pairs["clip"].tolist()]
        frames, centres = pairs["frame"].tolist(), pairs["centre"].tolist()
        windows, _ = read_windows(clips, centres, self._front_end, self._read)
        jpegs = [
            self._read(clip.shard, [(clip.frame_offsets[n - 1], clip.frame_sizes[n - 1])])[0]
            for clip, n in zip(clips, frames, strict=True)
        ]
        names = [f"{c.clip_id}.{n:02d}.jpg" for c, n in zip(clips, frames, strict=True)]
        return pa.table(
            [
                pa.array([clip.clip_id for clip in clips], pa.string()),
                pa.array(frames, pa.int32()),
                pa.array([frame_centre_seconds(n) for n in frames], pa.float64()),
                pa.array(centres, pa.float64()),
                _images(jpegs, names),
                _nested(windows[:, 0].numpy()),
                pa.array([clip.label for clip in clips], pa.string()),
            ],
            schema=arrow_schema(self.columns),
        )


class ImageTextTable:
    """The images of a split with all their captions, those that training uses. Holds every caption
    in memory; images are read as they are asked for.
    """

    columns: Sequence[Column] = IMAGE_TEXT_COLUMNS

    def __init__(self, captions_dir: Path, images_dir: Path, split: Split, read: ReadShard) -> None:
        """Raises DataError, naming the file, for tables of another version or damaged ones."""
        captions = read_table(
            captions_dir / "captions.parquet",
            CAPTION_SCHEMA,
            columns=["image_id", "source", "caption"],
            filters=pc.field("split") == split,
        ).combine_chunks()
        runs = pc.run_end_encode(_column(captions, "image_id"), run_end_type=pa.int32())
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), runs.run_ends])
        images = read_table(
            images_dir / "index.parquet", IMAGE_SCHEMA, filters=pc.field("split") == split
        )
        rows = pc.index_in(images["image_id"], runs.values)
        images = images.append_column("caption_row", rows).filter(pc.is_valid(rows))
        self._images = images.combine_chunks()
        self._captions = pa.ListArray.from_arrays(offsets, _column(captions, "caption"))
        self._sources = _column(captions, "source").take(offsets[:-1])
        self._images_dir, self._read = images_dir, read

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """See :class:`PairTable`."""
        captions = self._captions.take(_column(self._images, "caption_row"))
        lengths = pc.multiply(pc.list_value_length(captions), _OTHER_COLUMNS_BYTES)
        sizes: npt.NDArray[np.int64] = pc.add(self._images["size"], lengths).to_numpy()
        return sizes

    def rows(self, rows: range) -> pa.Table:
        """See :class:`PairTable`. Raises DataError or OSError for a damaged shard."""
        images = self._images.slice(rows.start, len(rows))
        jpegs = [
            self._read(self._images_dir / row["shard"], [(row["offset"], row["size"])])[0]
            for row in images.select(["shard", "offset", "size"]).to_pylist()
        ]
        names = [f"{name}.jpg" for name in images["image_id"].to_pylist()]
        caption_rows = _column(images, "caption_row")
        return pa.table(
            [
                images["image_id"],
                _images(jpegs, names),
                self._captions.take(caption_rows),
                self._sources.take(caption_rows),
            ],
            schema=arrow_schema(self.columns),
        )


def _evenly_spaced(
    positions: Sequence[FramePosition], count: int | None
) -> Sequence[FramePosition]:
    """``count`` of the positions, in the middles of so many equal parts; all if there are fewer."""
    if count is None or count >= len(positions):
        return positions
    return [positions[(2 * part + 1) * len(positions) // (2 * count)] for part in range(count)]


def _images(jpegs: Sequence[bytes], names: Sequence[str]) -> pa.Array:
    fields = [pa.array(jpegs, pa.binary()), pa.array(names, pa.string())]
    return pa.StructArray.from_arrays(fields, fields=list(_IMAGE))


def _nested(windows: npt.NDArray[np.float32]) -> pa.Array:
    """An array (rows, mels, columns) as lists of lists."""
    rows, mels, columns = windows.shape
    values = pa.array(np.ascontiguousarray(windows).ravel())
    inner = pa.array(np.arange(rows * mels + 1) * columns, pa.int32())
    outer = pa.array(np.arange(rows + 1) * mels, pa.int32())
    return pa.ListArray.from_arrays(outer, pa.ListArray.from_arrays(inner, values))


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column of a table, as one chunk."""
    chunks = table[name].chunks
    return pa.concat_arrays(chunks) if chunks else pa.array([], table[name].type)
