"""The index of clips as columns against its rows."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.core.schemas import AV_SCHEMA
from trimodal.data.clip_index import ClipTable, read_index


def index_rows(count: int) -> list[dict[str, Any]]:
    """Clips of 0 to 11 frames in three shards; no two numbers are equal."""
    return [
        {
            "split": "train", "shard": f"train-{n // 5:06d}.tar", "shard_fingerprint": "f",
            "clip_id": f"clip{n}", "label": f"label {n % 3}", "duration_s": n + 0.25,
            "sound_s": n + 0.125, "frame_offsets": [1000 * n + k for k in range(n % 12)],
            "frame_sizes": [50 * n + k for k in range(n % 12)], "mel_offset": 7 * n,
            "top_db_offset": 11 * n, "mel_columns": 3 * n, "youtube_id": "",
            "picture_fingerprints": [0] * (n % 12),
        }
        for n in range(count)
    ]  # fmt: skip


def expected(av_dir: Path, row: dict[str, Any]) -> dict[str, Any]:
    others = ("split", "shard_fingerprint", "youtube_id", "picture_fingerprints")
    columns = {name: value for name, value in row.items() if name not in others}
    sequences = {name: tuple(row[name]) for name in ("frame_offsets", "frame_sizes")}
    return columns | sequences | {"shard": av_dir / row["shard"]}


@pytest.mark.parametrize("pieces", [1, 3])
def test_clips_have_the_values_of_the_rows(pieces: int, tmp_path: Path) -> None:
    rows = index_rows(15)
    step = 15 // pieces
    parts = [pa.Table.from_pylist(rows[k : k + step], AV_SCHEMA) for k in range(0, 15, step)]
    clips = ClipTable(tmp_path, pa.concat_tables(parts))
    expected_clips = [expected(tmp_path, row) for row in rows]
    assert len(clips) == 15
    assert [asdict(clip) for clip in clips] == expected_clips
    assert asdict(clips[-1]) == expected_clips[-1]
    assert [asdict(clip) for clip in clips[3:9:2]] == expected_clips[3:9:2]
    assert isinstance(clips[14].mel_offset, int)
    assert isinstance(clips[14].frame_sizes[0], int)
    for outside in (15, -16):
        with pytest.raises(IndexError):
            clips[outside]


def test_a_split_without_clips_is_empty(tmp_path: Path) -> None:
    clips = ClipTable(tmp_path, AV_SCHEMA.empty_table())
    assert (len(clips), list(clips)) == (0, [])


def test_a_slice_of_a_table_gives_its_own_rows(tmp_path: Path) -> None:
    rows = index_rows(15)
    part = pa.Table.from_pylist(rows, AV_SCHEMA).slice(4, 6)
    clips = ClipTable(tmp_path, part)
    assert [asdict(clip) for clip in clips] == [expected(tmp_path, row) for row in rows[4:10]]


def test_frames_without_sizes_are_refused(tmp_path: Path) -> None:
    rows = index_rows(4)
    rows[2]["frame_sizes"] = [1]
    with pytest.raises(DataError, match=r"index\.parquet: .* frame_sizes"):
        ClipTable(tmp_path, pa.Table.from_pylist(rows, AV_SCHEMA))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_index_is_read_split_by_split(split: str, tiny_data: TinyData) -> None:
    rows = pq.read_table(tiny_data.av_dir / "index.parquet").to_pylist()
    expected_clips = [expected(tiny_data.av_dir, row) for row in rows if row["split"] == split]
    clips = read_index(tiny_data.av_dir, split, tiny_data.mel)
    assert [asdict(clip) for clip in clips] == expected_clips


def test_shards_of_another_front_end_are_refused(tiny_data: TinyData) -> None:
    other = replace(tiny_data.mel, mels=32)
    with pytest.raises(DataError) as caught:
        read_index(tiny_data.av_dir, "train", other)
    assert "index.parquet: mels is 16, but params and this version have 32" in str(caught.value)
    assert len(read_index(tiny_data.av_dir, "train", tiny_data.mel)) == 7
