"""Clips of known frames and tones, written by ffmpeg, and whole tracks decoded by trimodal."""

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.media.audio import decode_audio
from trimodal.media.container import DecodingLimits, encode_video, ffmpeg_executable
from trimodal.media.video import decode_frames

RATE_HZ = 16_000
TONES_HZ = [300 + 400 * second for second in range(10)]
LIMITS = DecodingLimits(clip_seconds=1800.0, frame_pixels=9_437_184, timeout_seconds=120.0)

# A source of slowly changing colours, for a size and a duration.
COLOURS = (
    "color=black:rate=5:size={},format=gbrp,"
    "geq=r='255*X/W':g='255*Y/H':b='128+100*sin(2*T+X/W)',format=rgb24"
)


def solid_frame(second: int) -> npt.NDArray[np.uint8]:
    return np.full((32, 48, 3), 20 + 22 * second, np.uint8)


def tone(hz: float, seconds: float) -> npt.NDArray[np.float32]:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(
        np.float32
    ) * np.float32(0.5)


def write_steps(
    path: Path, *, seconds: int = 10, fps: int = 6, with_audio: bool = True, odd: bool = False
) -> Path:
    """A clip with a different brightness and tone each second (:data:`TONES_HZ`)."""
    frames = [solid_frame(second) for second in range(seconds) for _ in range(fps)]
    if odd:
        frames = [frame[:31, :31] for frame in frames]
    audio = np.concatenate([tone(hz, 1.0) for hz in TONES_HZ[:seconds]]) if with_audio else None
    encode_video(path, frames, fps=fps, audio=audio, audio_rate_hz=RATE_HZ)
    return path


def ffmpeg(*arguments: str | float | Path, stdin: bytes | None = None) -> bytes:
    """Runs ffmpeg and returns what it writes to ``pipe:1``."""
    command = [ffmpeg_executable(), "-y", "-loglevel", "error", *map(str, arguments)]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


def frames_of(
    path: Path, height: int, width: int, limits: DecodingLimits = LIMITS
) -> npt.NDArray[np.uint8]:
    """All frames of a file, (count, height, width, 3)."""
    return np.stack(list(decode_frames(path, height, width, limits)))


def samples_of(
    path: Path, rate_hz: int = RATE_HZ, limits: DecodingLimits = LIMITS
) -> npt.NDArray[np.float32]:
    """The whole audio track of a file, (samples,)."""
    return np.concatenate(list(decode_audio(path, rate_hz, limits)))


def brightness(frames: npt.NDArray[np.uint8]) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def pitch_hz(samples: npt.NDArray[np.float32], rate_hz: int = RATE_HZ) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate_hz / len(samples)
