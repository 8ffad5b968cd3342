"""Media files: PyAV opens containers, ffmpeg encodes (probing: trimodal.media.tracks; decoding:
trimodal.media.video, trimodal.media.audio).

ffmpeg-python builds the command lines; they run as argument lists with a time limit, without
standard input, and their messages are captured. Untrusted files are opened with the ``file``
protocol only, so that a playlist named .mp4 cannot reach other files or hosts.
"""

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import av
import ffmpeg
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from trimodal.core.errors import UserError
from trimodal.core.files import atomic_path, temporary_folder
from trimodal.core.machine_errors import refuse_unreadable

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
        """Makes it picklable, so that a worker can raise it."""
        return type(self), (self.path, self.reason, self.detail), vars(self)


class LimitError(UserError, ValueError):
    """A clip that exceeds :class:`DecodingLimits`. ``too_slow`` is worth a retry: the machine may
    have been busy.
    """

    def __init__(
        self, path: Path, reason: Literal["too_long", "too_large", "too_slow"], detail: str
    ) -> None:
        super().__init__(f"{path}: {reason}: {detail}")
        self.path = path
        self.reason: Literal["too_long", "too_large", "too_slow"] = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes it picklable, so that a worker can raise it."""
        return type(self), (self.path, self.reason, self.detail), vars(self)


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What an untrusted clip may take: its length, pixels per frame, and wall-clock seconds for its
    frames or its audio.
    """

    clip_seconds: float
    frame_pixels: int
    timeout_seconds: float


class Deadline:
    """The time by which a clip's frames, or its audio, must be decoded."""

    def __init__(self, path: Path, what: str, limits: DecodingLimits) -> None:
        self._path = path
        self._detail = f"decoding its {what} took over {limits.timeout_seconds:g} s"
        self._time_limit = time.monotonic() + limits.timeout_seconds

    def check(self) -> None:
        """Raises LimitError once the time is over."""
        if time.monotonic() > self._time_limit:
            raise LimitError(self._path, "too_slow", self._detail)


@cache
def missing_media_tools() -> str:
    """What this machine lacks for decoding and encoding, in words; empty if nothing."""
    try:
        done = _try_out(vcodec="rawvideo")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"has no working ffmpeg: {error}"
    return f"has no working ffmpeg: {_error_summary(done)}" if done else ""


def ffmpeg_executable() -> str:
    """The ffmpeg binary that comes with the imageio-ffmpeg wheel (or IMAGEIO_FFMPEG_EXE)."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def missing_encoders() -> list[str]:
    """The encoders needed to write clips that do not work in this ffmpeg."""
    needed = {"libx264": {"vcodec": "libx264"}, "aac": {"acodec": "aac"}}
    return [name for name, option in needed.items() if _try_out(**option)]


def _try_out(**codec: str) -> str:
    """Encodes a black picture or silence and discards it; ffmpeg's messages if that fails."""
    picture = {"format": "rawvideo", "pix_fmt": "yuv420p", "s": "64x64"}
    silence = {"format": "s16le", "ac": 1, "ar": 16000}
    given = ffmpeg.input("pipe:0", **(picture if "vcodec" in codec else silence))
    output = given.output("-", format="null", **codec)
    done = _execute(output, bytes(64 * 64 * 3 // 2), _TIMEOUT_SECONDS)
    return done.stderr.decode(errors="replace") or "failed" if done.returncode else ""


def open_media(path: Path) -> InputContainer:
    """Opens an untrusted media file and no other file, whatever it contains. Metadata need not be
    UTF-8. Raises MediaError for a container format that is not supported, and PyAV's errors.
    """
    try:
        return av.open(f"file:{path}", options=_SAFE_INPUT, metadata_errors="replace")
    except av.ArgumentError as error:  # FFmpeg's error for a format not on the whitelist
        raise MediaError(path, "corrupt", "a form of file that is not read here") from error


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Turns PyAV's errors into a MediaError for this file, or into an UnreadableError if this
    machine could not read it.
    """
    try:
        yield
    except (av.FFmpegError, OSError, MemoryError, MediaError) as error:
        refuse_unreadable(path, error)
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, "corrupt", str(error)) from error


def encode_video(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: int,
    audio: npt.NDArray[np.float32] | None,
    audio_rate_hz: int,
) -> None:
    """Writes an MP4 (H.264, and AAC unless ``audio`` is None) atomically and reproducibly.

    ``frames`` are (height, width, 3) uint8 RGB, all of one even-sided size; ``audio`` is mono,
    (samples,).
    """
    pixels = np.stack(list(frames))
    height, width = pixels.shape[1:3]
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
            done = _execute(output, pixels.tobytes(), _TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            detail = f"ffmpeg took over {_TIMEOUT_SECONDS:.0f} s"
            raise MediaError(path, "corrupt", detail) from error
        if done.returncode:
            raise MediaError(path, "corrupt", _error_summary(done.stderr.decode(errors="replace")))


@dataclass(frozen=True, kw_only=True)
class RemoteStream:
    """Where a stream is served over HTTP, and the headers to request it with. Every user of this
    machine can read both. A ``local`` one is requested without the environment's proxy.
    """

    url: str
    headers: Mapping[str, str]
    local: bool = False


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
    """Writes ``seconds`` of a remote video from ``start_seconds`` on as an MP4 (H.264, and AAC if
    there is audio), atomically, at H.264 quality ``crf`` (lower is better). One stream holds video
    and audio, or the first holds the video and the second the audio.

    It is decoded from the preceding key frame and re-encoded, so that the first frame is the first
    one at or after ``start_seconds``. Raises SectionError, also when the server sends nothing for
    ``stall_seconds`` or the whole takes longer than ``timeout_seconds``.
    """
    inputs = [
        ffmpeg.input(
            stream.url, ss=start_seconds, t=seconds, threads=1,
            rw_timeout=round(stall_seconds * 1e6), protocol_whitelist="http,https,tcp,tls,crypto",
            headers="".join(f"{name}: {value}\r\n" for name, value in stream.headers.items()),
            **({"http_proxy": ""} if stream.local else {}),
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
        started = time.monotonic()
        try:
            done = _execute(output, None, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise SectionError(f"timed out: not done after {timeout_seconds:g} s") from error
        messages = done.stderr.decode(errors="replace")
        # ffmpeg decodes a truncated response as far as it goes and exits with code 0.
        if done.returncode or "ends prematurely" in messages or not temporary.exists():
            stalled = time.monotonic() - started >= stall_seconds
            prefix = f"timed out: no answer for {stall_seconds:g} s: " if stalled else ""
            raise SectionError(prefix + _error_summary(messages))


def _error_summary(messages: str) -> str:
    """ffmpeg's messages in one line, without stream URLs and memory addresses."""
    lines = [re.sub(r"^\[[^]]* @ \w+\] ", "", line.strip()) for line in messages.splitlines()]
    distinct = dict.fromkeys(line for line in lines if line and "://" not in line)
    return "; ".join(distinct)[:300] or "ffmpeg failed and said nothing"


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
