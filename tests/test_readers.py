"""Frames, images and audio windows read from shards."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mel_fixtures import scaled
from stream_fixtures import (
    clips_of,
    member,
    pixels,
    read_window,
    shown_second,
    stored_mel,
)
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.data.readers import read_frame
from trimodal.media.mel import FLOOR_DB


@pytest.mark.parametrize("split", ["train", "val"])
def test_window_is_cut_from_the_stored_columns(split: str, tiny_data: TinyData) -> None:
    for clip in clips_of(tiny_data, split)[:3]:
        stored = stored_mel(clip)
        for centre, first in [(1.5, 0), (4.5, 150), (8.5, 350)]:
            window, missing = read_window(clip, centre, tiny_data.front_end)
            expected = scaled(stored[first : first + 151], tiny_data.front_end)
            assert (window.shape, window.dtype, missing) == ((1, 16, 151), torch.float32, 0)
            assert np.array_equal(window[0].numpy(), expected)


@pytest.mark.parametrize(("centre", "missing"), [(0.5, 50), (9.5, None), (-4.0, 151), (20.0, 151)])
def test_window_beyond_the_audio_is_padded_with_silence(
    centre: float, missing: int | None, tiny_data: TinyData
) -> None:
    clip = clips_of(tiny_data)[0]
    stored = stored_mel(clip)
    first = round((centre - 1.5) / 0.02)
    rows = [
        stored[c] if 0 <= c < len(stored) else np.full(16, FLOOR_DB, np.float32)
        for c in range(first, first + 151)
    ]
    window, silent_columns = read_window(clip, centre, tiny_data.front_end)
    assert np.array_equal(window[0].numpy(), scaled(np.stack(rows), tiny_data.front_end))
    assert silent_columns == (first + 151 - len(stored) if missing is None else missing)


def test_frame_is_the_jpeg_in_the_shard(tiny_data: TinyData) -> None:
    for clip in clips_of(tiny_data)[:2]:
        assert clip.frames == 10
        for frame in range(1, 11):
            jpeg = member(clip.shard, f"{clip.clip_id}.{frame:02d}.jpg")
            assert torch.equal(read_frame(clip, frame), pixels(jpeg))
            assert shown_second(read_frame(clip, frame)) == frame - 1


def test_clip_metadata_is_in_the_shard(tiny_data: TinyData) -> None:
    silent = next(clip for clip in clips_of(tiny_data, "test") if not clip.has_audio)
    metadata = json.loads(member(silent.shard, f"{silent.clip_id}.json"))
    assert metadata.pop("mel") == {
        **asdict(tiny_data.mel), "scale": "slaney", "norm": "slaney",
        "step_db": 80 / 255, "depth_db": 80.0, "floor_db": -100.0,
    }  # fmt: skip
    assert metadata == {
        "format": "trimodal clip", "format_version": 2, "label": "", "duration_s": 10.0,
        "frame_times_s": [n + 0.5 for n in range(10)], "has_audio": False, "audio_s": 0.0,
        "gaps": "",
    }  # fmt: skip


def test_damaged_image_is_named_with_its_offset(tiny_data: TinyData, tmp_path: Path) -> None:
    clip = clips_of(tiny_data)[0]
    content = bytearray(clip.shard.read_bytes())
    content[clip.frame_offsets[2] : clip.frame_offsets[2] + 4] = b"oops"
    broken = replace(clip, shard=tmp_path / "broken.tar")
    broken.shard.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_frame(broken, 3)
    assert f"{broken.shard}: the {clip.frame_sizes[2]} bytes at {clip.frame_offsets[2]}" in str(
        caught.value
    )
