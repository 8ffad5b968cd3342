"""Bad and unusual media files: one row per file, with its outcome in the manifest and in the
shards.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from media_fixtures import ffmpeg

from trimodal.core.records import ClipStatus


@dataclass(frozen=True, kw_only=True)
class BadClip:
    """A file, named ``<clip id>.mp4`` whatever its content. ``status`` and a part of ``reason`` are
    those of the manifest. An ok clip has ``frames`` in the index and ``sound_s`` seconds of audio
    (0: none); or extraction leaves it out for the reason ``left_out``.
    """

    name: str
    make: Callable[[Path], None]
    status: ClipStatus = "ok"
    reason: str = ""
    frames: int = 0
    sound_s: float = 0.0
    left_out: str = ""
    test: bool = False  # a test video, not a training clip

    def outcome(self) -> str:
        """The expected outcome, in words."""
        if self.status != "ok":
            return f"{self.status} ({self.reason})"
        if self.left_out:
            return f"ok; left out of the shards: {self.left_out}"
        audio = f"{self.sound_s:g} s of audio" if self.sound_s else "no audio"
        return f"ok; {self.frames} frames, {audio}"


# How the files are written. ffmpeg takes "file:" names literally, whatever characters they have.


def _x264(pixels: str) -> tuple[str, ...]:
    return ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", pixels)


_X264 = _x264("yuv420p")
_AAC = ("-c:a", "aac", "-aac_coder", "fast")


def _video(seconds: float, *, size: str = "32x32", rate: float = 5) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={seconds}")


def _tone(
    seconds: float, *, rate_hz: int = 16_000, shape: str = "sin(2000*t)/2"
) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"aevalsrc={shape}:s={rate_hz}:d={seconds}")


def _file(
    *arguments: str, muxer: str = "mp4", video: tuple[str, ...] = _X264,
    audio: tuple[str, ...] = _AAC,
) -> Callable[[Path], None]:  # fmt: skip
    def make(path: Path) -> None:
        ffmpeg(*arguments, *video, *audio, "-f", muxer, f"file:{path}")

    return make


def _of_length(seconds: float) -> Callable[[Path], None]:
    """Video and audio of exactly that length: AAC would round it up to whole packets."""
    rate = 20
    inputs = (*_video(seconds, rate=rate), *_tone(seconds))
    return _file(*inputs, muxer="matroska", audio=("-c:a", "pcm_s16le"))


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


_CLIP = (*_video(3), *_tone(3))


def _intact(*, front: bool = False) -> Callable[[Path], None]:
    return _file(*_CLIP, *(("-movflags", "+faststart") if front else ()))


def _changed(
    make: Callable[[Path], None], change: Callable[[bytes], bytes]
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        make(path)
        path.write_bytes(change(path.read_bytes()))

    return write


def _replaced(before: bytes, after: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert before in content
        assert len(before) == len(after)
        return content.replace(before, after)

    return change


def _noise_in_the_middle(content: bytes) -> bytes:
    """Replaces all video and audio data, which lie before the index of the file."""
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    noise = random.Random(1).randbytes(end - start)  # noqa: S311
    return content[:start] + noise + content[end:]


def _samples(*replaced: float) -> Callable[[Path], None]:
    """A float audio track with these samples in it."""

    def make(path: Path) -> None:
        samples = np.sin(np.arange(48_000) * 0.1, dtype=np.float32) / 2
        samples[20_000 : 20_000 + len(replaced)] = replaced
        raw = ("-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", "pipe:0")
        ffmpeg(
            *_video(3), *raw, *_X264, "-c:a", "pcm_f32le", "-f", "matroska", f"file:{path}",
            stdin=samples.astype("<f4").tobytes(),
        )  # fmt: skip

    return make


def _wav_of_nan(path: Path) -> None:
    raw = ("-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", "pipe:0")
    samples = np.full(48_000, np.nan, "<f4").tobytes()
    ffmpeg(*raw, "-c:a", "pcm_f32le", "-f", "wav", f"file:{path}", stdin=samples)


def _rotated(path: Path) -> None:
    upright = path.with_suffix(".upright")
    _intact()(upright)
    rotation = ("-display_rotation", "90", "-i", f"file:{upright}")
    ffmpeg(*rotation, "-c", "copy", "-f", "mp4", f"file:{path}")
    upright.unlink()


def _with_cover(path: Path) -> None:
    cover = ("-c:v", "mjpeg", "-frames:v", "1", "-disposition:v", "attached_pic")
    _file(*_video(1), *_tone(3), muxer="mp4", video=cover)(path)


_WEBM = {"muxer": "webm", "audio": ("-c:a", "libopus", "-ac", "1")}
_MKV = {"muxer": "matroska"}
_VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
_AV1 = ("-c:v", "libsvtav1", "-preset", "13")
_HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
_MKV_OF_PCM = _file(*_CLIP, **_MKV, audio=("-c:a", "pcm_s16le"))
_NO_AUDIO: tuple[str, ...] = ()
_HTML = b"<!DOCTYPE html><html><body>Sign in to confirm you're not a bot</body></html>\n" * 50
_VARIABLE = "setpts='if(lt(N,5),N*0.04,if(lt(N,9),0.2+(N-5)*0.5,2.2+(N-9)*0.1))/TB'"


# Not a video at all
NO_MEDIA = [
    BadClip(name="empty file", make=_bytes(b""), status="corrupt", reason="Invalid data"),
    BadClip(name="one byte", make=_bytes(b"\0"), status="corrupt", reason="Invalid data"),
    BadClip(name="HTML page", make=_bytes(_HTML), status="corrupt", reason="Invalid data"),
    BadClip(name="zeros", make=_bytes(bytes(9000)), status="corrupt", reason="Invalid data"),
    BadClip(
        name="noise", status="corrupt", reason="Invalid data",
        make=_bytes(random.Random(2).randbytes(9000)),  # noqa: S311
    ),
    BadClip(
        name="playlist of another file", status="corrupt", reason="Invalid data",
        make=_bytes(b"#EXTM3U\n#EXTINF:2.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
    ),
    BadClip(
        name="image", status="corrupt", reason="a form of file that is not read",
        make=_file(*_video(1), "-frames:v", "1", muxer="mjpeg", video=(), audio=()),
    ),
    BadClip(
        name="float WAV of NaN", make=_wav_of_nan, status="no_video", reason="no video stream",
    ),
    BadClip(
        name="MP4 header alone", status="corrupt", reason="",
        make=_changed(_intact(), lambda content: content[:32]),
    ),
    BadClip(
        name="truncated MP4, its index lost", status="corrupt", reason="Invalid data",
        make=_changed(_intact(), lambda content: content[: len(content) // 2]),
    ),
    BadClip(
        name="video of an unknown codec", status="corrupt", reason="unknown codec",
        make=_changed(_intact(), _replaced(b"avc1", b"zzzz")),
    ),
    BadClip(
        name="audio without video", status="no_video", reason="no video stream",
        make=_file(*_tone(3), video=()),
    ),
    BadClip(
        name="audio with a cover image", make=_with_cover, status="no_video",
        reason="no video stream",
    ),
]  # fmt: skip

# Containers that promise more than they hold
DAMAGED = [
    BadClip(
        name="truncated MP4, its index at the start", left_out="corrupt",
        make=_changed(_intact(front=True), lambda content: content[: 2 * len(content) // 3]),
    ),
    BadClip(
        name="noise between intact headers", left_out="corrupt",
        make=_changed(_intact(), _noise_in_the_middle),
    ),
    BadClip(
        name="audio of an unknown codec", left_out="corrupt",
        make=_changed(_MKV_OF_PCM, _replaced(b"A_PCM", b"A_XYZ")),
    ),
    BadClip(
        name="audio of an unknown codec, test video", test=True, frames=3,
        make=_changed(_MKV_OF_PCM, _replaced(b"A_PCM", b"A_XYZ")),
    ),
    BadClip(
        name="title in Latin-1", frames=3, sound_s=3.0,
        make=_changed(
            _file(*_CLIP, "-metadata", "title=cafe"), _replaced(b"cafe", "café".encode("latin-1"))
        ),
    ),
    BadClip(name="over the longest", make=_file(*_video(32, rate=1), *_tone(2)),
            left_out="too_long"),
    BadClip(name="audio over the longest", make=_file(*_video(2), *_tone(32)),
            left_out="too_long"),
    BadClip(
        name="4096 x 4096, over the largest", left_out="too_large",
        make=_file(*_video(1, size="4096x4096", rate=1), *_tone(1)),
    ),
]  # fmt: skip

# Lengths: frame N shows second N - 0.5, so 0.5 s have no frame and 2.9 s have three
LENGTHS = [
    BadClip(name="one frame of 0.05 s", make=_of_length(0.05), status="too_short",
            reason="hold no frame"),
    BadClip(name="0.5 s", make=_of_length(0.5), status="too_short", reason="0.50 s hold no frame"),
    BadClip(name="0.6 s", make=_of_length(0.6), frames=1, sound_s=0.6),
    BadClip(name="2.9 s", make=_of_length(2.9), frames=3, sound_s=2.9),
    BadClip(name="9.6 s", make=_of_length(9.6), frames=10, sound_s=9.6),
    BadClip(
        name="one frame shown for 3 s", frames=3, sound_s=3.0,
        make=_file(*_video(3, rate=1 / 3), *_tone(3)),
    ),
    BadClip(
        name="variable frame rate", frames=3, sound_s=3.0,
        make=_file(*_video(3), *_tone(3), "-vf", _VARIABLE, "-fps_mode", "vfr"),
    ),
    BadClip(
        name="clock that starts at 100 s", frames=3, sound_s=3.0,
        make=_file(*_CLIP, "-output_ts_offset", "100", muxer="mpegts"),
    ),
]  # fmt: skip

# Frames
FRAMES = [
    BadClip(name="rotated", make=_rotated, frames=3, sound_s=3.0),
    BadClip(
        name="1 x 1", frames=3, sound_s=3.0,
        make=_file(*_video(3, size="2x2"), *_tone(3), "-vf", "scale=1:1", **_MKV,
                   video=("-c:v", "ffv1", "-pix_fmt", "bgr0")),
    ),
    BadClip(
        name="4096 x 2160", frames=2, sound_s=2.0,
        make=_file(*_video(2, size="4096x2160", rate=1), *_tone(2)),
    ),
    BadClip(
        name="odd width and height", frames=3, sound_s=3.0,
        make=_file(*_video(3, size="33x31"), *_tone(3), video=_x264("yuv444p")),
    ),
    BadClip(
        name="2000 x 2", frames=3, sound_s=3.0,
        make=_file(*_video(3, size="2000x2"), *_tone(3)),
    ),
    BadClip(
        name="10 bit H.264", frames=3, sound_s=3.0, make=_file(*_CLIP, video=_x264("yuv420p10le"))
    ),
    BadClip(
        name="10 bit HEVC in MP4", frames=3, sound_s=3.0,
        make=_file(*_CLIP, video=(*_HEVC, "-pix_fmt", "yuv420p10le")),
    ),
    BadClip(name="grey", frames=3, sound_s=3.0, make=_file(*_CLIP, video=_x264("gray"))),
    BadClip(
        name="interlaced", frames=3, sound_s=3.0,
        make=_file(*_CLIP, "-flags", "+ildct+ilme", "-x264-params", "tff=1"),
    ),
    BadClip(
        name="transparent VP9 in WebM", frames=3, sound_s=3.0,
        make=_file(*_CLIP, video=(*_VP9, "-pix_fmt", "yuva420p"), **_WEBM),
    ),
    BadClip(name="VP9 and Opus in WebM", frames=3, sound_s=3.0,
            make=_file(*_CLIP, video=_VP9, **_WEBM)),
    BadClip(name="AV1 and Opus in WebM", frames=3, sound_s=3.0,
            make=_file(*_video(3, size="64x64"), *_tone(3), video=_AV1, **_WEBM)),
    BadClip(name="HEVC in MKV", frames=3, sound_s=3.0, make=_file(*_CLIP, video=_HEVC, **_MKV)),
    BadClip(
        name="MPEG-4 and MP3 in AVI", frames=3, sound_s=3.0,
        make=_file(*_CLIP, muxer="avi", video=("-c:v", "mpeg4"), audio=("-c:a", "libmp3lame")),
    ),
    BadClip(
        name="two video and two audio streams", frames=3, sound_s=3.0,
        make=_file(*_CLIP, *_video(1, size="16x16"), *_tone(1), "-map", "0", "-map", "1",
                   "-map", "2", "-map", "3"),
    ),
]  # fmt: skip

# Audio
AUDIO = [
    BadClip(name="video without audio", make=_file(*_video(3), audio=_NO_AUDIO),
            left_out="no_audio"),
    BadClip(name="video without audio, test video", frames=3, test=True,
            make=_file(*_video(3), audio=_NO_AUDIO)),
    BadClip(
        name="Opus in MP4", frames=3, sound_s=3.0,
        make=_file(*_CLIP, audio=("-c:a", "libopus")),
    ),
    BadClip(
        name="5.1 channels", frames=3, sound_s=3.0,
        make=_file(*_video(3), *_tone(3, shape="|".join(["sin(2000*t)/2"] * 6))),
    ),
    BadClip(name="8 kHz", frames=3, sound_s=3.0,
            make=_file(*_video(3), *_tone(3, rate_hz=8000))),
    BadClip(name="96 kHz", frames=3, sound_s=3.0,
            make=_file(*_video(3), *_tone(3, rate_hz=96_000))),
    BadClip(
        name="audio that starts 1.5 s late", frames=3, sound_s=3.0,
        make=_file(*_video(3), "-itsoffset", "1.5", *_tone(1.5)),
    ),
    BadClip(name="audio that ends after 1 s", frames=3, sound_s=1.0,
            make=_file(*_video(3), *_tone(1))),
    BadClip(name="audio 2 s longer than the video", frames=3, sound_s=5.0,
            make=_file(*_video(3), *_tone(5))),
    BadClip(name="silence", frames=3, sound_s=3.0, make=_file(*_video(3), *_tone(3, shape="0"))),
    BadClip(
        name="clipping", frames=3, sound_s=3.0,
        make=_file(*_video(3), *_tone(3, shape="clip(9*sin(2000*t)\\,-1\\,1)")),
    ),
    BadClip(name="NaN in float audio", make=_samples(np.nan), left_out="corrupt"),
    BadClip(name="NaN in float audio, test video", make=_samples(np.nan), frames=3, test=True),
    BadClip(name="infinite sample", make=_samples(-np.inf), left_out="corrupt"),
    BadClip(name="samples of 20 times full scale", make=_samples(20.0, -20.0), frames=3,
            sound_s=3.0),
]  # fmt: skip


def _folder(path: Path) -> None:
    path.mkdir()


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere.mp4")


# What may have the clip's name in a folder; archives hold none of these
NO_FILE = [
    BadClip(name="missing", make=lambda _: None, status="unavailable", reason="no such file"),
    BadClip(name="folder of that name", make=_folder, status="unavailable", reason="no such file"),
    BadClip(name="link to nowhere", make=_link_to_nowhere, status="unavailable",
            reason="no such file"),
    BadClip(
        name="unicode and quotes before the name", status="unavailable", reason="no such file",
        make=lambda path: _intact()(path.with_name(f"é '犬' \"{path.name}")),
    ),
]  # fmt: skip

CLIPS = [*NO_MEDIA, *DAMAGED, *LENGTHS, *FRAMES, *AUDIO, *NO_FILE]


def clip_id(number: int, clip: BadClip) -> str:
    """An id in VGGSound's form, some beginning with '-' or '_'; MSR-VTT's for test videos."""
    return f"video{7000 + number}" if clip.test else f"{'-_a'[number % 3]}{number:010d}_000030"
