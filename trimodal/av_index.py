"""The index of the audio-visual shards, ``data/av/index.parquet``: one row a clip.

It says where each frame and the mel lie, so that a training sample costs two small reads.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from trimodal.mel import MelConfig
from trimodal.records import DataError, Split
from trimodal.tables import AV_SCHEMA


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


def read_index(av_dir: Path, split: Split, mel: MelConfig) -> list[AvClip]:
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
    rows = (
        table.filter(pc.field("split") == split)
        .drop_columns(["split", "shard_fingerprint"])
        .to_pylist()
    )
    return [
        AvClip(
            **row
            | {
                "shard": av_dir / row["shard"],
                "frame_offsets": tuple(row["frame_offsets"]),
                "frame_sizes": tuple(row["frame_sizes"]),
            }
        )
        for row in rows
    ]
