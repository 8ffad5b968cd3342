"""Fingerprints of stored images: when two are equal, and which count as uniform."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from data_fixtures import write_clip
from PIL import Image
from test_image_shards import image_file
from training_fixtures import TinyData, extract_config

from trimodal.core.archives import StoredFile
from trimodal.core.records import Clip
from trimodal.download.probe import inspect
from trimodal.media.image import UNIFORM_IMAGE, image_fingerprint
from trimodal.preprocess.clip_shards import ClipShard, extract_shard
from trimodal.preprocess.image_shards import ImageFormat, ImageShard, write_image_shard


def almost_uniform(low: int, high: int, channel: int = 0) -> npt.NDArray[np.uint8]:
    """All ``low``, but for one pixel of one channel."""
    pixels = np.full((8, 6, 3), low, np.uint8)
    pixels[5, 3, channel] = high
    return pixels


def test_fingerprint_is_the_beginning_of_sha_256() -> None:
    pixels = almost_uniform(0, 255)
    expected = [int(np.frombuffer(hashlib.sha256(b).digest()[:8], ">i8")[0]) for b in (b"a", b"b")]
    assert [image_fingerprint(b, pixels) for b in (b"a", b"b")] == expected
    assert min(image_fingerprint(bytes([n]), pixels) for n in range(20)) < 0


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (255, 255), (0, 16), (239, 255), (90, 100)])
def test_image_of_one_colour_is_uniform(low: int, high: int, channel: int) -> None:
    assert image_fingerprint(b"jpeg", almost_uniform(low, high, channel)) == UNIFORM_IMAGE


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize(("low", "high"), [(0, 17), (255, 238), (0, 255)])
def test_image_that_spans_more_in_any_channel_is_not_uniform(
    low: int, high: int, channel: int
) -> None:
    assert image_fingerprint(b"jpeg", almost_uniform(low, high, channel)) != UNIFORM_IMAGE


def test_colour_is_judged_channel_by_channel() -> None:
    red = np.broadcast_to(np.array([250, 3, 3], np.uint8), (4, 4, 3))
    assert image_fingerprint(b"jpeg", red) == UNIFORM_IMAGE


def expected_fingerprint(content: bytes) -> int:
    return int(np.frombuffer(hashlib.sha256(content).digest()[:8], ">i8")[0])


def test_index_holds_the_fingerprint_of_every_stored_frame(tiny_data: TinyData) -> None:
    for row in pq.read_table(tiny_data.av_dir / "index.parquet").to_pylist():
        shard = (tiny_data.av_dir / row["shard"]).read_bytes()
        extents = zip(row["frame_offsets"], row["frame_sizes"], strict=True)
        stored = [shard[offset : offset + size] for offset, size in extents]
        assert len(stored) == 10
        assert row["picture_fingerprints"] == list(map(expected_fingerprint, stored))


def test_index_holds_the_fingerprint_of_every_stored_image(tiny_data: TinyData) -> None:
    for row in pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist():
        shard = (tiny_data.images_dir / row["shard"]).read_bytes()
        assert row["picture_fingerprint"] == expected_fingerprint(
            shard[row["offset"] :][: row["size"]]
        )


def test_stored_images_of_one_colour_are_uniform(tiny_data: TinyData, tmp_path: Path) -> None:
    clip = Clip(clip_id="x", source="vggsound", split="train", label="", youtube_id="abcdefghijk")
    path = write_clip(tmp_path / "x.mp4", seconds=3)
    outcome = inspect(clip, StoredFile(path=path, size=path.stat().st_size), None)
    job = ClipShard(path=tmp_path / "train-000000.tar", split="train", clips=(outcome,))
    (row,) = extract_shard(extract_config(), tiny_data.mel, 60.0, job).rows
    assert (row["picture_fingerprints"], row["youtube_id"]) == ([0, 0, 0], "abcdefghijk")
    for name, high in (("black", 0), ("bar", 200)):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[10:20] = high
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = tuple(
        (image_file(name, None).image, StoredFile(path=tmp_path / f"{name}.png"))
        for name in ("black", "bar")
    )
    images = ImageShard(path=tmp_path / "train-000001.tar", split="train", images=files)
    image_format = ImageFormat(px=16, jpeg_quality=90, images_per_shard=2)
    black, bar = (
        row["picture_fingerprint"] for row in write_image_shard(image_format, images).rows
    )
    assert black == 0
    assert bar != 0
