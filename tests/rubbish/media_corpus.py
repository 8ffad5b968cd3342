"""Bad and odd media files: one row a file, with what becomes of it in the manifest and in the
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
    """A file, named ``<clip id>.mp4`` whatever it is. ``status`` and a part of the ``reason`` are
    the manifest's. An ok clip has ``frames`` in the index, and sound of ``sound_s`` seconds or none
    (0); or it is ``left_out`` by extraction for that reason.
    """

    name: str
    make: Callable[[Path], None]
    status: ClipStatus = "ok"
    reason: str = ""
    frames: int = 0
    sound_s: float = 0.0
    left_out: str = ""
    test: bool = False  # asked for as a test video, not as a clip to train on

    def outcome(self) -> str:
        """What must become of it, in words."""
        if self.status != "ok":
            return f"{self.status} ({self.reason})"
        if self.left_out:
            return f"ok; left out of the shards: {self.left_out}"
        sound = f"{self.sound_s:g} s of sound" if self.sound_s else "no sound"
        return f"ok; {self.frames} frames, {sound}"


# How files are made. ffmpeg writes "file:" names as they are, whatever letters they have.


def _x264(pixels: str) -> tuple[str, ...]:
    return ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", pixels)


_X264 = _x264("yuv420p")
_AAC = ("-c:a", "aac", "-aac_coder", "fast")


def _pictures(seconds: float, *, size: str = "32x32", rate: float = 5) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={seconds}")


def _tone(
    seconds: float, *, rate_hz: int = 16_000, shape: str = "sin(2000*t)/2"
) -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"aevalsrc={shape}:s={rate_hz}:d={seconds}")


def _made(
    *arguments: str, form: str = "mp4", video: tuple[str, ...] = _X264,
    audio: tuple[str, ...] = _AAC,
) -> Callable[[Path], None]:  # fmt: skip
    def make(path: Path) -> None:
        ffmpeg(*arguments, *video, *audio, "-f", form, f"file:{path}")

    return make


def _of_length(seconds: float) -> Callable[[Path], None]:
    """Pictures and sound of exactly that length: AAC would round it up to its packets."""
    rate = 20
    inputs = (*_pictures(seconds, rate=rate), *_tone(seconds))
    return _made(*inputs, form="matroska", audio=("-c:a", "pcm_s16le"))


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


_CLIP = (*_pictures(3), *_tone(3))


def _whole(*, front: bool = False) -> Callable[[Path], None]:
    return _made(*_CLIP, *(("-movflags", "+faststart") if front else ()))


def _changed(
    make: Callable[[Path], None], change: Callable[[bytes], bytes]
) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        make(path)
        path.write_bytes(change(path.read_bytes()))

    return made


def _replaced(before: bytes, after: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert before in content
        assert len(before) == len(after)
        return content.replace(before, after)

    return change


def _noise_in_the_middle(content: bytes) -> bytes:
    """Every byte of the pictures and the sound, which lie before the index of the file."""
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    noise = random.Random(1).randbytes(end - begin)  # noqa: S311
    return content[:begin] + noise + content[end:]


def _samples(*odd: float) -> Callable[[Path], None]:
    """A float track in which some samples are odd."""

    def make(path: Path) -> None:
        samples = np.sin(np.arange(48_000) * 0.1, dtype=np.float32) / 2
        samples[20_000 : 20_000 + len(odd)] = odd
        raw = ("-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", "pipe:0")
        ffmpeg(
            *_pictures(3), *raw, *_X264, "-c:a", "pcm_f32le", "-f", "matroska", f"file:{path}",
            stdin=samples.astype("<f4").tobytes(),
        )  # fmt: skip

    return make


def _wav_of_nan(path: Path) -> None:
    raw = ("-f", "f32le", "-ar", 16_000, "-ac", 1, "-i", "pipe:0")
    samples = np.full(48_000, np.nan, "<f4").tobytes()
    ffmpeg(*raw, "-c:a", "pcm_f32le", "-f", "wav", f"file:{path}", stdin=samples)


def _turned(path: Path) -> None:
    upright = path.with_suffix(".upright")
    _whole()(upright)
    turn = ("-display_rotation", "90", "-i", f"file:{upright}")
    ffmpeg(*turn, "-c", "copy", "-f", "mp4", f"file:{path}")
    upright.unlink()


def _with_cover(path: Path) -> None:
    cover = ("-c:v", "mjpeg", "-frames:v", "1", "-disposition:v", "attached_pic")
    _made(*_pictures(1), *_tone(3), form="mp4", video=cover)(path)


_WEBM = {"form": "webm", "audio": ("-c:a", "libopus", "-ac", "1")}
_MKV = {"form": "matroska"}
_VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
_AV1 = ("-c:v", "libsvtav1", "-preset", "13")
_HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
_MKV_OF_PCM = _made(*_CLIP, **_MKV, audio=("-c:a", "pcm_s16le"))
_NO_SOUND: tuple[str, ...] = ()
_HTML = b"<!DOCTYPE html><html><body>Sign in to confirm you're not a bot</body></html>\n" * 50
_VARIABLE = "setpts='if(lt(N,5),N*0.04,if(lt(N,9),0.2+(N-5)*0.5,2.2+(N-9)*0.1))/TB'"


# What is no video at all
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
        name="picture", status="corrupt", reason="a form of file that is not read",
        make=_made(*_pictures(1), "-frames:v", "1", form="mjpeg", video=(), audio=()),
    ),
    BadClip(
        name="float WAV of NaN", make=_wav_of_nan, status="no_video", reason="no video stream",
    ),
    BadClip(
        name="MP4 header alone", status="corrupt", reason="",
        make=_changed(_whole(), lambda content: content[:32]),
    ),
    BadClip(
        name="MP4 cut, its index lost", status="corrupt", reason="Invalid data",
        make=_changed(_whole(), lambda content: content[: len(content) // 2]),
    ),
    BadClip(
        name="pictures of an unknown codec", status="corrupt", reason="unknown codec",
        make=_changed(_whole(), _replaced(b"avc1", b"zzzz")),
    ),
    BadClip(
        name="sound without video", status="no_video", reason="no video stream",
        make=_made(*_tone(3), video=()),
    ),
    BadClip(
        name="sound with a cover picture", make=_with_cover, status="no_video",
        reason="no video stream",
    ),
]  # fmt: skip

# What a container promises and does not hold
DAMAGED = [
    BadClip(
        name="MP4 cut, its index in front", left_out="corrupt",
        make=_changed(_whole(front=True), lambda content: content[: 2 * len(content) // 3]),
    ),
    BadClip(
        name="all noise between whole headers", left_out="corrupt",
        make=_changed(_whole(), _noise_in_the_middle),
    ),
    BadClip(
        name="sound of an unknown codec", left_out="corrupt",
        make=_changed(_MKV_OF_PCM, _replaced(b"A_PCM", b"A_XYZ")),
    ),
    BadClip(
        name="sound of an unknown codec, test video", test=True, frames=3,
        make=_changed(_MKV_OF_PCM, _replaced(b"A_PCM", b"A_XYZ")),
    ),
    BadClip(
        name="title in Latin-1", frames=3, sound_s=3.0,
        make=_changed(
            _made(*_CLIP, "-metadata", "title=cafe"), _replaced(b"cafe", "café".encode("latin-1"))
        ),
    ),
    BadClip(name="over the longest", make=_made(*_pictures(32, rate=1), *_tone(2)),
            left_out="too_long"),
    BadClip(name="sound over the longest", make=_made(*_pictures(2), *_tone(32)),
            left_out="too_long"),
    BadClip(
        name="4096 x 4096, over the largest", left_out="too_large",
        make=_made(*_pictures(1, size="4096x4096", rate=1), *_tone(1)),
    ),
]  # fmt: skip

# Lengths: frame N shows second N - 0.5, so that 0.5 s hold none and 2.9 s three
LENGTHS = [
    BadClip(name="one frame of 0.05 s", make=_of_length(0.05), status="too_short",
            reason="hold no frame"),
    BadClip(name="0.5 s", make=_of_length(0.5), status="too_short", reason="0.50 s hold no frame"),
    BadClip(name="0.6 s", make=_of_length(0.6), frames=1, sound_s=0.6),
    BadClip(name="2.9 s", make=_of_length(2.9), frames=3, sound_s=2.9),
    BadClip(name="9.6 s", make=_of_length(9.6), frames=10, sound_s=9.6),
    BadClip(
        name="one frame shown for 3 s", frames=3, sound_s=3.0,
        make=_made(*_pictures(3, rate=1 / 3), *_tone(3)),
    ),
    BadClip(
        name="variable frame rate", frames=3, sound_s=3.0,
        make=_made(*_pictures(3), *_tone(3), "-vf", _VARIABLE, "-fps_mode", "vfr"),
    ),
    BadClip(
        name="clock that starts at 100 s", frames=3, sound_s=3.0,
        make=_made(*_CLIP, "-output_ts_offset", "100", form="mpegts"),
    ),
]  # fmt: skip

# Pictures
PICTURES = [
    BadClip(name="rotated", make=_turned, frames=3, sound_s=3.0),
    BadClip(
        name="1 x 1", frames=3, sound_s=3.0,
        make=_made(*_pictures(3, size="2x2"), *_tone(3), "-vf", "scale=1:1", **_MKV,
                   video=("-c:v", "ffv1", "-pix_fmt", "bgr0")),
    ),
    BadClip(
        name="4096 x 2160", frames=2, sound_s=2.0,
        make=_made(*_pictures(2, size="4096x2160", rate=1), *_tone(2)),
    ),
    BadClip(
        name="odd width and height", frames=3, sound_s=3.0,
        make=_made(*_pictures(3, size="33x31"), *_tone(3), video=_x264("yuv444p")),
    ),
    BadClip(
        name="2000 x 2", frames=3, sound_s=3.0,
        make=_made(*_pictures(3, size="2000x2"), *_tone(3)),
    ),
    BadClip(
        name="10 bit H.264", frames=3, sound_s=3.0, make=_made(*_CLIP, video=_x264("yuv420p10le"))
    ),
    BadClip(
        name="10 bit HEVC in MP4", frames=3, sound_s=3.0,
        make=_made(*_CLIP, video=(*_HEVC, "-pix_fmt", "yuv420p10le")),
    ),
    BadClip(name="grey", frames=3, sound_s=3.0, make=_made(*_CLIP, video=_x264("gray"))),
    BadClip(
        name="interlaced", frames=3, sound_s=3.0,
        make=_made(*_CLIP, "-flags", "+ildct+ilme", "-x264-params", "tff=1"),
    ),
    BadClip(
        name="transparent VP9 in WebM", frames=3, sound_s=3.0,
        make=_made(*_CLIP, video=(*_VP9, "-pix_fmt", "yuva420p"), **_WEBM),
    ),
    BadClip(name="VP9 and Opus in WebM", frames=3, sound_s=3.0,
            make=_made(*_CLIP, video=_VP9, **_WEBM)),
    BadClip(name="AV1 and Opus in WebM", frames=3, sound_s=3.0,
            make=_made(*_pictures(3, size="64x64"), *_tone(3), video=_AV1, **_WEBM)),
    BadClip(name="HEVC in MKV", frames=3, sound_s=3.0, make=_made(*_CLIP, video=_HEVC, **_MKV)),
    BadClip(
        name="MPEG-4 and MP3 in AVI", frames=3, sound_s=3.0,
        make=_made(*_CLIP, form="avi", video=("-c:v", "mpeg4"), audio=("-c:a", "libmp3lame")),
    ),
    BadClip(
        name="two video and two sound streams", frames=3, sound_s=3.0,
        make=_made(*_CLIP, *_pictures(1, size="16x16"), *_tone(1), "-map", "0", "-map", "1",
                   "-map", "2", "-map", "3"),
    ),
]  # fmt: skip

# Sound
SOUND = [
    BadClip(name="video without sound", make=_made(*_pictures(3), audio=_NO_SOUND),
            left_out="no_audio"),
    BadClip(name="video without sound, test video", frames=3, test=True,
            make=_made(*_pictures(3), audio=_NO_SOUND)),
    BadClip(
        name="Opus in MP4", frames=3, sound_s=3.0,
        make=_made(*_CLIP, audio=("-c:a", "libopus")),
    ),
    BadClip(
        name="5.1 channels", frames=3, sound_s=3.0,
        make=_made(*_pictures(3), *_tone(3, shape="|".join(["sin(2000*t)/2"] * 6))),
    ),
    BadClip(name="8 kHz", frames=3, sound_s=3.0,
            make=_made(*_pictures(3), *_tone(3, rate_hz=8000))),
    BadClip(name="96 kHz", frames=3, sound_s=3.0,
            make=_made(*_pictures(3), *_tone(3, rate_hz=96_000))),
    BadClip(
        name="sound that starts 1.5 s late", frames=3, sound_s=3.0,
        make=_made(*_pictures(3), "-itsoffset", "1.5", *_tone(1.5)),
    ),
    BadClip(name="sound that ends after 1 s", frames=3, sound_s=1.0,
            make=_made(*_pictures(3), *_tone(1))),
    BadClip(name="sound 2 s longer than the pictures", frames=3, sound_s=5.0,
            make=_made(*_pictures(3), *_tone(5))),
    BadClip(name="silence", frames=3, sound_s=3.0, make=_made(*_pictures(3), *_tone(3, shape="0"))),
    BadClip(
        name="clipping", frames=3, sound_s=3.0,
        make=_made(*_pictures(3), *_tone(3, shape="clip(9*sin(2000*t)\\,-1\\,1)")),
    ),
    BadClip(name="NaN in float sound", make=_samples(np.nan), left_out="corrupt"),
    BadClip(name="NaN in float sound, test video", make=_samples(np.nan), frames=3, test=True),
    BadClip(name="infinite sample", make=_samples(-np.inf), left_out="corrupt"),
    BadClip(name="samples of 20 times full scale", make=_samples(20.0, -20.0), frames=3,
            sound_s=3.0),
]  # fmt: skip


def _folder(path: Path) -> None:
    path.mkdir()


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere.mp4")


# What stands under the name in a folder; in an archive there is none of it
NO_FILE = [
    BadClip(name="missing", make=lambda _: None, status="unavailable", reason="no such file"),
    BadClip(name="folder of the name", make=_folder, status="unavailable", reason="no such file"),
    BadClip(name="link to nowhere", make=_link_to_nowhere, status="unavailable",
            reason="no such file"),
    BadClip(
        name="unicode and quotes before the name", status="unavailable", reason="no such file",
        make=lambda path: _whole()(path.with_name(f"é '犬' \"{path.name}")),
    ),
]  # fmt: skip

CLIPS = [*NO_MEDIA, *DAMAGED, *LENGTHS, *PICTURES, *SOUND, *NO_FILE]


def clip_id(place: int, clip: BadClip) -> str:
    """VGGSound's form, ids that begin with '-' and '_' among them; MSR-VTT's for test videos."""
    return f"video{7000 + place}" if clip.test else f"{'-_a'[place % 3]}{place:010d}_000030"
