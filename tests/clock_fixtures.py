"""Clips whose pictures show their own number, ten a second, and pictures of four colours."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from media_fixtures import LIMITS, ffmpeg, frames_of

CASES = Path(__file__).parents[2] / "shared" / "cases"
_BITS, _BLOCK = 12, 16
H264 = ("-c:v", "libx264", "-g", "10", "-bf", "0", "-pix_fmt", "yuv420p", "-preset", "ultrafast")
AAC = ("-c:a", "aac", "-aac_coder", "fast")


def tone_input(seconds: float = 4, hz: int = 440) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"sine=frequency={hz}:sample_rate=48000:duration={seconds}")


def clock(
    path: Path,
    *options: str | float | Path,
    pictures: int = 40,
    video: tuple[str, ...] = H264,
    inputs: tuple[str | float | Path, ...] | None = None,
) -> Path:
    """Picture K shows K in binary, lowest bit left. ``inputs`` are ffmpeg's further ones, a tone of
    four seconds unless given.
    """
    bits = np.arange(pictures)[:, None] >> np.arange(_BITS) & 1
    rows = np.repeat(np.uint8(20 + 200 * bits), _BLOCK, axis=1)
    frames = np.repeat(rows[:, None, :, None], 32, axis=1).repeat(3, axis=3)
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{_BITS * _BLOCK}x32", "-r", 10, "-i",
        "pipe:0", *(tone_input() if inputs is None else inputs), *video, *options, f"file:{path}",
        stdin=frames.tobytes(),
    )  # fmt: skip
    return path


def numbers(path: Path) -> list[int]:
    """The number that each frame shows."""
    return [number_of(frame) for frame in frames_of(path, 32, _BITS * _BLOCK, LIMITS)]


def number_of(frame: npt.NDArray[np.uint8]) -> int:
    bits = frame[16, _BLOCK // 2 :: _BLOCK].mean(axis=-1) > 128
    return int((bits << np.arange(_BITS)).sum())


# The corners of a picture, from the top left on, by row.
COLOURS_RGB = np.array([[[220, 30, 30], [30, 220, 30]], [[30, 30, 220], [220, 220, 220]]], np.uint8)


def corners(pixels: npt.NDArray[np.uint8]) -> str:
    """The colours of a picture's quarters by row, as letters of red, green, blue and white."""
    height, width = pixels.shape[:2]
    points = pixels[height // 4 :: height // 2, width // 4 :: width // 2][:2, :2].astype(int)
    flat = COLOURS_RGB.reshape(4, 3).astype(int)
    distances = np.abs(points.reshape(4, 1, 3) - flat).sum(axis=-1)
    assert distances.min(axis=1).max() < 120, points
    return "".join("rgbw"[index] for index in distances.argmin(axis=1))


def four_colours(
    path: Path, *options: str, pictures: int = 10, video: tuple[str, ...] = H264
) -> Path:
    """A video of 10 pictures a second, 64 x 32, red and green above blue and white."""
    picture = COLOURS_RGB.repeat(16, axis=0).repeat(32, axis=1)
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x32", "-r", 10, "-i", "pipe:0", *video,
        *options, f"file:{path}", stdin=picture.tobytes() * pictures,
    )  # fmt: skip
    return path
