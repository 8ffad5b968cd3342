"""Media files: PyAV opens containers and looks into them, ffmpeg encodes (decoding:
trimodal.media.video, trimodal.media.audio).

ffmpeg-python composes the command lines; they run as argument lists with a time limit, without
standard input and with their messages kept. Files from strangers are opened by the ``file``
protocol alone, so that a playlist that calls itself .mp4 cannot reach other files or hosts.
"""

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from trimodal.core.errors import UserError
from trimodal.core.files import atomic_path, temporary_folder

AnyStream = TypeVar("AnyStream", AudioStream, VideoStream)
_TIMEOUT_SECONDS = 120.0
_SAFE_INPUT = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,wav,mp3,flac,aac",
}


class MediaError(UserError, ValueError):
    """A media file that cannot be used; ``reason`` is its status in the manifest."""

    def __init__(
        self, path: Path, reason: Literal["corrupt", "no_video", "no_audio"], detail: str
    ) -> None:
        super().__init__(f"{path}: {reason}: {detail}")
        self.path = path
        self.reason: Literal["corrupt", "no_video", "no_audio"] = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a worker can raise it."""
        return type(self), (self.path, self.reason, self.detail), vars(self)


class LimitError(UserError, ValueError):
    """A clip that asks for more than :class:`DecodingLimits` allow. ``too_slow`` may heal: it may
    have been the machine.
    """

    def __init__(
        self, path: Path, reason: Literal["too_long", "too_large", "too_slow"], detail: str
    ) -> None:
        super().__init__(f"{path}: {reason}: {detail}")
        self.path = path
        self.reason: Literal["too_long", "too_large", "too_slow"] = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a worker can raise it."""
        return type(self), (self.path, self.reason, self.detail), vars(self)


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What a clip from a stranger may ask of this machine: length, pixels a picture, and wall
    seconds for its pictures or its sound.
    """

    clip_seconds: float
    frame_pixels: int
    timeout_seconds: float


class Deadline:
    """The moment by which a clip's pictures, or its sound, must be decoded."""

    def __init__(self, path: Path, what: str, limits: DecodingLimits) -> None:
        self._path = path
        self._detail = f"its {what} took over {limits.timeout_seconds:g} s"
        self._moment = time.monotonic() + limits.timeout_seconds

    def keep(self) -> None:
        """Raises LimitError when it is over."""
        if time.monotonic() > self._moment:
            raise LimitError(self._path, "too_slow", self._detail)


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What a container says of itself; nothing is decoded."""

    duration_seconds: float
    has_audio: bool


@cache
def missing_media_tools() -> str:
    """What this machine lacks to decode and to encode, in words; empty if nothing."""
    try:
        command = [ffmpeg_executable(), "-version"]
        subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"has no working ffmpeg: {error}"
    return ""


def ffmpeg_executable() -> str:
    """The ffmpeg binary that comes with the imageio-ffmpeg wheel (or IMAGEIO_FFMPEG_EXE)."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def missing_encoders() -> list[str]:
    """Those of the encoders that clips are written with which this ffmpeg has not."""
    command = [ffmpeg_executable(), "-hide_banner", "-encoders"]
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    known = done.stdout.split()
    return [name for name in ("libx264", "aac") if name.encode() not in known]


def open_media(path: Path) -> InputContainer:
    """Opens a media file from strangers: that file alone, whatever it calls itself. Titles need not
    be UTF-8. Raises MediaError for a form that is not read, and PyAV's errors.
    """
    try:
        return av.open(f"file:{path}", options=_SAFE_INPUT, metadata_errors="replace")
    except av.ArgumentError as error:  # what FFmpeg says of a form that is not on the list
        raise MediaError(path, "corrupt", "a form of file that is not read here") from error


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turns PyAV's errors into a MediaError of this file."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise MediaError(path, "corrupt", str(error)) from error


def known_codec(path: Path, stream: AnyStream) -> AnyStream:
    """Returns a stream that can be decoded; raises MediaError for one of a codec that FFmpeg does
    not know, which PyAV gives no codec context.
    """
    if stream.codec_context is None:
        raise MediaError(path, "corrupt", f"its {stream.type} stream is of an unknown codec")
    return stream


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The first video stream that is no cover picture of a sound; raises MediaError if there is
    none or it is of an unknown codec.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return known_codec(path, stream)
    raise MediaError(path, "no_video", "has no video stream")


def probe(path: Path) -> MediaInfo:
    """Reads duration and streams of a video file; raises MediaError if it is none."""
    with errors_of(path), open_media(path) as container:
        stream = video_stream(path, container)
        if container.duration is not None:
            duration = container.duration / 1e6
        elif stream.duration is not None and stream.time_base is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            raise MediaError(path, "corrupt", "states no duration")
        return MediaInfo(duration_seconds=duration, has_audio=bool(container.streams.audio))


def encode_video(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: int,
    audio: npt.NDArray[np.float32] | None,
    audio_rate_hz: int,
) -> None:
    """Writes an MP4 (H.264, and AAC unless ``audio`` is None) atomically and reproducibly.

    ``frames`` are (height, width, 3) RGB pictures of one even-sided size; ``audio`` is mono.
    """
    pictures = np.stack(list(frames))
    height, width = pictures.shape[1:3]
    video = ffmpeg.input(
        "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=fps
    ).video
    options = {
        "format": "mp4", "vcodec": "libx264", "preset": "superfast", "crf": 23,
        "pix_fmt": "yuv420p", "threads": 1, "fflags": "+bitexact", "flags:v": "+bitexact",
        "flags:a": "+bitexact", "map_metadata": -1,
    }  # fmt: skip
    with atomic_path(path) as temporary, temporary_folder() as folder:
        streams = [video]
        if audio is not None:
            samples = folder / "audio.f32"
            samples.write_bytes(audio.astype("<f4").tobytes())
            streams.append(ffmpeg.input(str(samples), format="f32le", ac=1, ar=audio_rate_hz).audio)
            options |= {"acodec": "aac", "aac_coder": "fast", "audio_bitrate": "64k"}
        output = ffmpeg.output(*streams, f"file:{temporary}", **options).overwrite_output()
        try:
            done = _execute(output, pictures.tobytes(), _TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            detail = f"ffmpeg took over {_TIMEOUT_SECONDS:.0f} s"
            raise MediaError(path, "corrupt", detail) from error
        if done.returncode:
            raise MediaError(path, "corrupt", _told(done.stderr.decode(errors="replace")))


@dataclass(frozen=True, kw_only=True)
class RemoteStream:
    """Where a stream is served over HTTP, and the headers to ask for it with."""

    url: str
    headers: Mapping[str, str]


class SectionError(Exception):
    """A section that could not be cut; the message is ffmpeg's."""


def cut_section(
    streams: Sequence[RemoteStream],
    path: Path,
    *,
    start_seconds: float,
    seconds: float,
    crf: int,
    audio_kbps: int,
    stall_seconds: float,
    timeout_seconds: float,
) -> None:
    """Writes ``seconds`` of a served video from ``start_seconds`` on as an MP4 (H.264, and AAC if
    there is sound), atomically, at H.264's quality ``crf`` (lower is better). One stream holds
    picture and sound, or the first holds the picture and the second the sound.

    It is decoded from the key frame before and encoded again, so that the first frame is the first
    one at or after ``start_seconds``. Raises SectionError, also when the server says nothing for
    ``stall_seconds`` or all takes longer than ``timeout_seconds``.
    """
    inputs = [
        ffmpeg.input(
            stream.url, ss=start_seconds, t=seconds, threads=1,
            rw_timeout=round(stall_seconds * 1e6), protocol_whitelist="http,https,tcp,tls,crypto",
            headers="".join(f"{name}: {value}\r\n" for name, value in stream.headers.items()),
        )
        for stream in streams
    ]  # fmt: skip
    options = {
        "format": "mp4", "vcodec": "libx264", "preset": "veryfast", "crf": crf,
        "pix_fmt": "yuv420p", "acodec": "aac", "audio_bitrate": f"{audio_kbps}k", "threads": 1,
        "map_metadata": -1, "vf": "crop=trunc(iw/2)*2:trunc(ih/2)*2",
    }  # fmt: skip
    with atomic_path(path) as temporary:
        output = ffmpeg.output(
            inputs[0]["v:0"], inputs[-1]["a:0?"], f"file:{temporary}", **options
        ).overwrite_output()
        began = time.monotonic()
        try:
            done = _execute(output, None, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise SectionError(f"timed out: not done after {timeout_seconds:g} s") from error
        messages = done.stderr.decode(errors="replace")
        # A body that ends early decodes to its first part with exit code 0.
        if done.returncode or "ends prematurely" in messages or not temporary.exists():
            stalled = time.monotonic() - began >= stall_seconds
            start = f"timed out: no answer for {stall_seconds:g} s: " if stalled else ""
            raise SectionError(start + _told(messages))


def _told(messages: str) -> str:
    """ffmpeg's messages in a line, without the addresses of streams and of memory."""
    lines = [re.sub(r"^\[[^]]* @ \w+\] ", "", line.strip()) for line in messages.splitlines()]
    told = dict.fromkeys(line for line in lines if line and "://" not in line)
    return "; ".join(told)[:300] or "ffmpeg failed and said nothing"


def _execute(
    stream: Any, stdin: bytes | None, timeout_seconds: float
) -> "subprocess.CompletedProcess[bytes]":
    command = ffmpeg.compile(stream, cmd=ffmpeg_executable())
    command[1:1] = ["-hide_banner", "-loglevel", "error"]
    if stdin is None:
        command.insert(1, "-nostdin")
    return subprocess.run(
        command,
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
    )
