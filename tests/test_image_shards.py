"""Image shards: what is stored, in which order, one image at a time."""

import io
from pathlib import Path

import numpy as np
import pytest
from archive_fixtures import KINDS, overwrite, pack
from configs import MACHINE
from PIL import Image

import trimodal.preprocess.image_shards
from trimodal.core.archives import StoredFile, files_by_name
from trimodal.core.records import CaptionedImage
from trimodal.media.image import square
from trimodal.preprocess.image_shards import ImageFormat, ImageShard, stored_jpeg, write_image_shard
from trimodal.preprocess.images import write_images
from trimodal.sources.image_files import ImageFile

IMAGE_FORMAT = ImageFormat(px=16, jpeg_quality=90, images_per_shard=2)


def jpeg(seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def image_file(name: str, file: StoredFile | None, split: str = "train") -> ImageFile:
    image = CaptionedImage(
        image_id=name, split=split, source="coco", file_name=f"{name}.jpg",  # type: ignore[arg-type]
        captions=("a dog",),
    )  # fmt: skip
    return ImageFile(image=image, file=file)


def test_stored_jpeg_shows_a_transparent_image_on_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (50, 20), (200, 30, 90, 10)).save(buffer, "PNG")
    with Image.open(io.BytesIO(stored_jpeg(buffer.getvalue(), 16, 95))) as image:
        mean = np.asarray(image).reshape(-1, 3).mean(axis=0)
    assert mean == pytest.approx([255 - 55 / 25.5, 255 - 225 / 25.5, 255 - 165 / 25.5], abs=2)


def test_stored_jpeg_is_pillows_of_that_quality() -> None:
    content = jpeg(1, (300, 200))
    buffer = io.BytesIO()
    Image.fromarray(square(content, 16)).save(buffer, "JPEG", quality=80)
    with Image.open(buffer) as expected, Image.open(io.BytesIO(stored_jpeg(content, 16, 80))) as it:
        assert it.quantization == expected.quantization
        assert it.layer == expected.layer  # the colours' sampling
        assert np.abs(np.asarray(it).astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_in_image_order_or_in_a_zipped_tars_own_order(
    kind: str, tmp_path: Path
) -> None:
    names = ["d", "a", "c", "b"]
    archive = pack(tmp_path / f"pack{kind}", {f"{name}.jpg": jpeg(ord(name)) for name in names})
    by_name, _ = files_by_name(archive, (".jpg",))
    files = [image_file(name, by_name[f"{name}.jpg"]) for name in "abcd"]
    done = write_images(files, tmp_path / "out", IMAGE_FORMAT, MACHINE)
    stored = "abcd" if kind in (".zip", ".tar") else "dacb"
    assert [(row["image_id"], row["shard"]) for row in done.rows] == [
        (name, f"train-{number // 2:06d}.tar") for number, name in enumerate(stored)
    ]
    for row in done.rows:
        content = (tmp_path / "out" / row["shard"]).read_bytes()[row["offset"] :][: row["size"]]
        assert content == stored_jpeg(jpeg(ord(row["image_id"])), 16, 90)
    assert not done.left_out


def test_missing_vanished_and_damaged_files_are_counted(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(0))
    packed = pack(tmp_path / "pack.zip", {"c.jpg": jpeg(0), "d.jpg": b"not an image"}, method=0)
    by_name, _ = files_by_name(packed, (".jpg",))
    plain = {name: StoredFile(path=tmp_path / f"{name}.jpg") for name in "ab"}
    files = {**plain, "c": by_name["c.jpg"], "d": by_name["d.jpg"], "e": None}
    images = tuple((image_file(name, None).image, file) for name, file in files.items())
    (tmp_path / "b.jpg").unlink()
    overwrite(packed, jpeg(0)[-40:], bytes(40))  # its checksum is now wrong
    job = ImageShard(path=tmp_path / "train-000000.tar", split="train", images=images)
    done = write_image_shard(IMAGE_FORMAT, job)
    assert [row["image_id"] for row in done.rows] == ["a"]
    assert done.left_out == {
        "image file missing": 1, "image file gone": 1, "image file broken": 2,
    }  # fmt: skip


def left_out(content: bytes, folder: Path) -> dict[str, int]:
    """What a shard of this file and a good one leaves out; the good one is in it."""
    (folder / "x.jpg").write_bytes(content)
    (folder / "good.jpg").write_bytes(jpeg(0))
    images = tuple(
        (image_file(name, None).image, StoredFile(path=folder / f"{name}.jpg"))
        for name in ("x", "good")
    )
    job = ImageShard(path=folder / "train-000000.tar", split="train", images=images)
    done = write_image_shard(IMAGE_FORMAT, job)
    assert [row["image_id"] for row in done.rows][-1:] == ["good"]
    return dict(done.left_out)


def test_decompression_bomb_is_counted_as_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = jpeg(0, (200, 200))
    assert left_out(bomb, tmp_path) == {}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert left_out(bomb, tmp_path) == {"image file broken": 1}


@pytest.mark.parametrize(
    "content",
    [b"", b"P6\n3\xff 4\n255\n", b"GIF89a", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"BM\0\0", b"<html>"],
)
def test_file_that_is_not_an_image_is_counted_as_broken(content: bytes, tmp_path: Path) -> None:
    assert left_out(content, tmp_path) == {"image file broken": 1}


def test_truncated_image_is_counted_as_broken(tmp_path: Path) -> None:
    assert left_out(jpeg(0, (200, 200))[:-3000], tmp_path) == {"image file broken": 1}


def test_one_image_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is written to the shard before the next one is read."""
    path = tmp_path / "train-000000.tar"
    sizes = []

    def read(file: StoredFile) -> bytes:
        temporary = path.with_name(f".{path.name}.tmp")
        sizes.append(temporary.stat().st_size if temporary.exists() else 0)
        return jpeg(int(file.path.stem), (400, 300))

    monkeypatch.setattr(trimodal.preprocess.image_shards, "read_file", read)
    images = tuple(
        (image_file(f"i{n}", None).image, StoredFile(path=Path(f"{n}.jpg"))) for n in range(40)
    )
    image_format = ImageFormat(px=256, jpeg_quality=95, images_per_shard=40)
    write_image_shard(image_format, ImageShard(path=path, split="train", images=images))
    assert sizes[20] > sizes[10] > sizes[1]
