"""Extraction's limits on a clip, its memory use, and the stored JPEGs."""

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configs import MACHINE, config_for_tests
from data_fixtures import write_clip
from media_fixtures import COLOURS, ffmpeg, frames_of
from mel_fixtures import PAPER
from PIL import Image

from trimodal.core.manifest import ClipOutcome
from trimodal.core.records import Clip
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard

CONFIG = config_for_tests(ExtractConfig, frame_px=64, longest_seconds=1800.0, min_coverage=0.0)
TIMEOUT_SECONDS = MACHINE.clip_timeout_seconds


def job_of(folder: Path, *paths: Path) -> ClipShard:
    clips = tuple(
        ClipOutcome(
            clip=Clip(clip_id=path.stem, source="vggsound", split="train", label=""),
            path=str(path), status="ok", duration_s=1.0, has_audio=True,
        )
        for path in paths
    )  # fmt: skip
    return ClipShard(path=folder / "train-000000.tar", split="train", clips=clips)


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("limits", "timeout_seconds", "left_out"),
    [
        ({"longest_seconds": 3.2}, TIMEOUT_SECONDS, {"too_long": 2}),
        ({"largest_pixels": 32 * 32 - 1}, TIMEOUT_SECONDS, {"too_large": 4}),
        ({}, 1e-9, {"too_slow": 4}),
        ({"longest_seconds": 5.0, "largest_pixels": 32 * 32}, TIMEOUT_SECONDS, {}),
    ],
    ids=["length", "size", "time", "just_fits"],
)
def test_clips_over_a_limit_are_left_out_and_counted(
    limits: dict[str, Any], timeout_seconds: float, left_out: dict[str, int], tmp_path: Path
) -> None:
    """One has more video than audio, one more audio than video."""
    seconds = {"a": (2, 2), "b": (4, 2), "c": (2, 4), "d": (3, 3)}
    paths = [
        write_clip(tmp_path / f"{name}.mp4", seconds=video_s, sound_s=audio_s)
        for name, (video_s, audio_s) in seconds.items()
    ]
    job = job_of(tmp_path, *paths)
    done = extract_shard(replace(CONFIG, **limits), PAPER.mel, timeout_seconds, job)
    assert done.left_out == left_out
    expected = "ad" if "too_long" in left_out else "" if left_out else "abcd"
    assert {row["clip_id"] for row in done.rows} == set(expected)
    assert {name.split(".")[0] for name in members(job.path)} == set(expected)


@pytest.mark.parametrize("size", [64, 72])
def test_stored_images_are_the_frames_as_jpegs(size: int, tmp_path: Path) -> None:
    """In the configured quality, with chroma subsampled by 2 x 2."""
    path = tmp_path / "a.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", COLOURS.format("160x120:duration=3"),
        "-f", "lavfi", "-i", "sine=duration=3", "-pix_fmt", "yuv420p", path,
    )  # fmt: skip
    job = job_of(tmp_path, path)
    extract_shard(replace(CONFIG, frame_px=size), PAPER.mel, TIMEOUT_SECONDS, job)
    frames = frames_of(path, size, size)
    assert np.abs(frames.astype(int) - frames[..., ::-1]).mean() > 20
    expected = io.BytesIO()
    Image.fromarray(frames[0]).save(expected, "JPEG", quality=90, subsampling="4:2:0")
    for number, frame in enumerate(frames, start=1):
        with Image.open(io.BytesIO(members(job.path)[f"a.{number:02d}.jpg"])) as image:
            assert np.abs(np.asarray(image).astype(int) - frame).mean() < 2
            assert image.quantization == Image.open(expected).quantization
            assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
    assert len(frames) == 3


PEAK = """
import json, re, sys
from pathlib import Path
from trimodal.preprocess.clip_shards import ExtractConfig, ClipShard, extract_shard
from trimodal.core.manifest import ClipOutcome
from trimodal.media.mel import MelConfig
from trimodal.core.records import Clip
path = Path(sys.argv[1])
clip = Clip(clip_id="a", source="vggsound", split="train", label="")
outcome = ClipOutcome(clip=clip, path=str(path), status="ok", duration_s=1.0, has_audio=True)
job = ClipShard(path=path.parent / "a.tar", split="train", clips=(outcome,))
rows = extract_shard(
    ExtractConfig(**json.loads(sys.argv[2])), MelConfig(**json.loads(sys.argv[3])), 120.0, job
).rows
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(len(rows[0]["frame_offsets"]), rows[0]["mel_columns"], int(peak[1]) // 1000)
"""


@pytest.mark.nightly
def test_twenty_minutes_need_under_400_mb(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc=size=320x240:rate=5:duration=1200",
        "-f", "lavfi", "-i", "anoisesrc=duration=1200:sample_rate=44100:amplitude=0.3",
        "-ac", 2, "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-aac_coder", "fast", path,
    )  # fmt: skip
    config, mel = json.dumps(asdict(CONFIG)), json.dumps(asdict(PAPER.mel))
    command = [sys.executable, "-c", PEAK, str(path), config, mel]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames, columns, megabytes = map(int, done.stdout.split())
    assert frames == 1200
    assert columns == pytest.approx(120_000, abs=10)
    assert megabytes < 400
