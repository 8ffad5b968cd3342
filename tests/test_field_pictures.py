"""Pictures as people have them: turned by EXIF, 16 bits, transparent, in other formats."""

import io
import itertools
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from clock_fixtures import CASES, COLOURS_RGB, corners
from configs import MACHINE
from data_fixtures import REAL, needs_real_data
from PIL import ExifTags, Image

from trimodal.core.archives import StoredFile
from trimodal.core.records import CaptionedImage
from trimodal.media import image as image_module
from trimodal.media.image import ImageError, resized, square
from trimodal.preprocess.image_shards import ImageFormat
from trimodal.preprocess.images import write_images
from trimodal.sources.image_files import ImageFile, read_coco_files

# What each EXIF orientation shows of red, green / blue, white (as test_field_videos.MATRICES).
TURNS = {1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(width: int = 96, height: int = 48) -> Image.Image:
    pixels = COLOURS_RGB.repeat(height // 2, axis=0).repeat(width // 2, axis=1)
    return Image.fromarray(pixels)


def pixels_of(content: bytes, px: int = 32) -> npt.NDArray[np.uint8]:
    return np.asarray(square(content, px))


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def case(name: str) -> bytes:
    path = CASES / "pictures" / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path.read_bytes()


def test_the_case_of_16_bits_of_grey() -> None:
    content = case("grey16.png")
    with Image.open(io.BytesIO(content)) as image:
        levels = np.asarray(image) // 256
    assert pixels_of(content, levels.shape[1]).mean(axis=(0, 2)) == pytest.approx(
        levels.mean(axis=0), abs=1
    )


def test_the_case_of_a_turned_jpeg() -> None:
    """Red above blue."""
    pixels = pixels_of(case("exif6.jpg")).astype(int)
    assert pixels[8, 16, 0] > 200 > 60 > pixels[8, 16, 2]
    assert pixels[24, 16, 2] > 200 > 60 > pixels[24, 16, 0]


def test_the_case_of_a_transparent_ground() -> None:
    content = case("cutout.png")
    with Image.open(io.BytesIO(content)) as image:
        opaque = np.asarray(image.resize((32, 32), Image.Resampling.NEAREST))[..., 3] == 255
    pixels = pixels_of(content)
    edges = np.zeros_like(opaque)
    edges[2:-2, 2:-2] = opaque[:-4, 2:-2] ^ opaque[4:, 2:-2] | opaque[2:-2, :-4] ^ opaque[2:-2, 4:]
    assert np.all(pixels[~opaque & ~edges] > 250)
    assert np.all(pixels[opaque & ~edges][:, 0] > 190)
    assert np.all(pixels[opaque & ~edges][:, 1:] < 60)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_exif_orientation(orientation: int, file_format: str) -> None:
    content = encoded(picture(), file_format, exif=exif(orientation))
    assert corners(pixels_of(content)) == TURNS[orientation]
    if file_format != "TIFF":  # Pillow turns it when it reads it
        assert corners(np.asarray(square(content, 32, "ignore"))) == TURNS[1]


@pytest.mark.parametrize("side", [2000, 96])
def test_a_turned_jpeg_is_that_of_its_upright_pixels(side: int) -> None:
    """Also where it is decoded at a smaller scale."""
    noise = np.random.default_rng(0).integers(0, 255, (side // 40, side // 20, 3), np.uint8)
    image = Image.fromarray(noise).resize((side, side // 2), Image.Resampling.BICUBIC)
    turned = encoded(image, "JPEG", quality=95, exif=exif(6))
    upright = encoded(image.transpose(Image.Transpose.ROTATE_270), "JPEG", quality=95)
    difference = pixels_of(turned, 64).astype(int) - pixels_of(upright, 64)
    assert np.abs(difference).mean() < 2


def photograph(width: int, height: int) -> Image.Image:
    """Detail of every size, as photographs have."""
    rng = np.random.default_rng(width)
    levels = np.zeros((height, width, 3))
    for octave in range(8):
        grid = rng.standard_normal((height >> octave or 1, width >> octave or 1, 3))
        planes = [
            Image.fromarray(plane).resize((width, height)) for plane in grid.transpose(2, 0, 1)
        ]
        levels += np.stack(planes, axis=-1) * 1.6**octave
    levels = (levels - levels.mean()) / levels.std()
    return Image.fromarray(np.clip(levels * 50 + 128, 0, 255).astype(np.uint8))


def decibels(content: bytes, side: int) -> float:
    """The signal-to-noise ratio against Pillow's full decode and resizing."""
    with Image.open(io.BytesIO(content)) as image:
        whole = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    error = np.square(pixels_of(content, side).astype(float) - np.asarray(whole)).mean()
    return 10 * math.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(40, 30), (50, 127), (16, 16), (3, 500), (1, 1)])
def test_a_jpeg_is_resized_as_pillow_does(mode: str, size: tuple[int, int]) -> None:
    assert decibels(encoded(photograph(*size).convert(mode), "JPEG", quality=90), 16) > 50


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize(("reduction", "side"), [(1, 60), (2, 50), (4, 25), (8, 12)])
def test_a_large_jpeg_is_decoded_at_the_size_needed(
    reduction: int, side: int, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By libjpeg-turbo, and by Pillow if the last byte is lost. No side is a multiple of eight."""
    content = encoded(photograph(301, 203), "JPEG", quality=90)
    if damaged:
        content = content[:-3] + content[-2:]
    seen: list[tuple[int, int]] = []

    def resize(pixels: npt.NDArray[np.uint8], *rest: Any) -> npt.NDArray[np.uint8]:
        seen.append(pixels.shape[:2])
        return resized(pixels, *rest)

    monkeypatch.setattr(image_module, "resized", resize)
    assert decibels(content, side) > 40
    assert seen == [(-(-203 // reduction), -(-301 // reduction))]


def test_a_part_is_resized_to_the_side_exactly() -> None:
    """PyTorch rounds length x (side / length) down, which is a little less for some of these."""
    for length, side in itertools.product((49, 98, 103, 107), range(2, 40)):
        part = resized(np.full((length, 60, 3), 7, np.uint8), side, (length, 59.5))
        assert part.shape == (side, side, 3)


def test_a_jpeg_that_two_readers_find_of_two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has checked its own."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded at a size that was not checked")

    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", lambda _: (65_500, 65_500, "YCbCr", ""))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    assert corners(pixels_of(encoded(picture(), "JPEG"))) == TURNS[1]


@needs_real_data
@pytest.mark.parametrize("side", [72, 256])
def test_photographs_are_those_of_a_full_decode(side: int) -> None:
    coco = sorted((REAL / "coco").glob("*2017/*.jpg"))
    flickr = sorted((REAL / "flickr8k").rglob("*.jpg"))[::350]
    assert len(coco) == 40
    assert min(decibels(path.read_bytes(), side) for path in coco[::4] + flickr) > 44


def _damaged_exif(change: bytes) -> bytes:
    content = encoded(picture(), "JPEG", exif=exif(6))
    start = content.index(b"Exif\0\0") + 6
    return content[:start] + change + content[start + len(change) :]


@pytest.mark.parametrize(
    "content",
    [
        _damaged_exif(b"XX"),
        _damaged_exif(b"MM\0*\0\0\xff\xff"),
        _damaged_exif(struct.pack(">2sHIHHHII", b"MM", 42, 8, 1, 0x112, 2, 60_000, 8)),
        encoded(picture(), "JPEG", exif=exif(0)),
        encoded(picture(), "JPEG", exif=exif(9)),
    ],
    ids=["mark", "directory", "type", "0", "9"],
)
def test_a_damaged_orientation_is_upright(content: bytes) -> None:
    assert corners(pixels_of(content)) == TURNS[1]


def test_the_first_picture_of_a_phone_s_multi_picture_jpeg() -> None:
    second = Image.new("RGB", (96, 48), "white")
    content = encoded(picture(), "MPO", save_all=True, append_images=[second], exif=exif(6))
    assert corners(pixels_of(content)) == TURNS[6]


def ramp(dtype: str = "<u2") -> npt.NDArray[np.uint16]:
    return np.linspace(0, 65_535, 32).astype(dtype)[None].repeat(32, axis=0)


@pytest.mark.parametrize(
    ("file_format", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")]
)
def test_16_bits_of_grey_are_scaled(file_format: str, dtype: str) -> None:
    content = encoded(Image.fromarray(ramp(dtype)), file_format)
    assert pixels_of(content)[0, :, 0].tolist() == (ramp()[0] // 256).tolist()


def png(colour_type: int, rows: npt.NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits, (height, width, channels)."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    parts = (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_16_bits_of_other_kinds() -> None:
    grey = ramp()[..., None]
    colours = np.concatenate([grey, grey[:, ::-1], grey // 2], axis=2)
    expected = colours // 256
    assert np.array_equal(pixels_of(png(2, colours)), expected)
    opaque = np.full_like(grey, 65_535)
    with_alpha = np.concatenate([colours, opaque], axis=2)
    assert np.abs(pixels_of(png(6, with_alpha)).astype(int) - expected).max() <= 1
    with_alpha[:, 16:, 3] = 0
    assert np.all(pixels_of(png(6, with_alpha))[:, 18:] >= 254)
    seen = pixels_of(png(0, np.full((32, 32, 1), 500, np.uint16), (b"tRNS", b"\x01\xf4")))
    assert np.all(seen == 255)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bits_are_named(mode: str) -> None:
    with pytest.raises(ImageError, match="32 bits are not read; save it with 8 or 16"):
        square(encoded(Image.new(mode, (8, 8)), "TIFF"), 8)


def cutout(mode: str) -> Image.Image:
    """Left half of opaque red, right half of transparent green."""
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[:, :32] = (220, 30, 30, 255)
    pixels[:, 32:, 1] = 220
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_what_is_transparent_is_white(file_format: str) -> None:
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    pixels = pixels_of(encoded(cutout("RGBA"), file_format, **options)).astype(int)
    assert np.abs(pixels[:, 18:] - 255).max() <= 3
    assert np.abs(pixels[:, :14] - [220, 30, 30]).max() <= 12


def test_other_ways_of_being_transparent() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(8, axis=0).repeat(8, axis=1), "L")
    indexed = Image.new("P", palette.size)
    indexed.putdata(list(palette.get_flattened_data()))
    indexed.putpalette([220, 30, 30, 30, 220, 30])
    one_colour = encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    grey = encoded(Image.new("L", (8, 8), 7), "PNG", transparency=7)
    with_alpha = encoded(Image.new("LA", (8, 8), (0, 0)), "PNG")
    for content in (one_colour, grey, with_alpha):
        assert np.all(pixels_of(content, 8) == 255)
    for transparency in (1, bytes([255, 0])):
        pixels = pixels_of(encoded(indexed, "PNG", transparency=transparency), 8)
        assert np.all(pixels[:, 5:] >= 250)
        assert np.all(pixels[:, :2] == [220, 30, 30])
    half = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")
    assert pixels_of(half, 8).mean() == pytest.approx(127, abs=1)


def test_cmyk() -> None:
    inks = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    for content in (encoded(inks, "JPEG", quality=95), encoded(inks, "TIFF")):
        assert np.abs(pixels_of(content).astype(int) - [255, 0, 0]).max() <= 4
    assert corners(pixels_of(encoded(picture().convert("CMYK"), "JPEG", exif=exif(6)))) == TURNS[6]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_the_first_picture_of_every_format(file_format: str) -> None:
    second = Image.new("RGB", (96, 48), "white")
    animated = {"save_all": True, "append_images": [second]} if file_format != "JPEG" else {}
    assert corners(pixels_of(encoded(picture(), file_format, **animated))) == TURNS[1]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), r"a HEIC \(HEIF\) picture.*save it as"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), r"a HEIC \(HEIF\) picture.*save it as"),
        (encoded(picture(), "BMP"), "a BMP picture"),
        (b"\xff\x0a" + bytes(50), "a JPEG XL picture"),
        (encoded(picture(), "JPEG2000"), "a JPEG 2000 picture"),
        (b"<?xml version='1.0'?>\n<svg></svg>", "an? SVG picture"),
        (b"rubbish", "not a picture in one of the formats JPEG, PNG, WEBP, AVIF, GIF, TIFF"),
        (b"", "not a picture in one of the formats"),
        (encoded(picture(), "JPEG")[:500], "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(content: bytes, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        square(content, 16)


@pytest.mark.parametrize(("setting", "expected"), [("apply", TURNS[6]), ("ignore", TURNS[1])])
def test_data_sets_are_upright_unless_they_are_needed_as_stored(
    setting: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG", quality=95, exif=exif(6)))
    image = CaptionedImage(
        image_id="a", split="train", source="coco", file_name="a.jpg", captions=("a dog",)
    )
    file = ImageFile(image=image, file=StoredFile.plain(tmp_path / "a.jpg"))
    image_format = ImageFormat(
        px=32, jpeg_quality=95, images_per_shard=1, exif_orientation=setting  # type: ignore[arg-type]
    )  # fmt: skip
    (row,) = write_images([file], tmp_path / "out", image_format, MACHINE).rows
    content = (tmp_path / "out" / row["shard"]).read_bytes()[row["offset"] :][: row["size"]]
    assert corners(pixels_of(content)) == expected


def test_data_sets_may_have_pictures_of_any_format(tmp_path: Path) -> None:
    import json

    names = [f"{number}.{ending}" for number, ending in enumerate(("webp", "avif", "gif", "tif"))]
    for split in ("train", "val"):
        folder = tmp_path / f"{split}2017"
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"")
        annotations = tmp_path / "annotations" / f"captions_{split}2017.json"
        annotations.parent.mkdir(exist_ok=True)
        images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
        captions = [{"image_id": number, "caption": "a dog"} for number in range(len(names))]
        annotations.write_text(json.dumps({"images": images, "annotations": captions}))
    files, _ = read_coco_files(tmp_path, "official")
    assert len(files) == 8
    assert all(file.file is not None for file in files)
