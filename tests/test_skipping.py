"""Skipping non-reference pictures gives the same bytes as a full decode."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import pytest
from data_fixtures import needs_real_data, real_clips, six_real_clips_or_all
from media_fixtures import brightness, ffmpeg, frames_of, write_steps

from trimodal.media import video as module
from trimodal.media.container import open_media

SIZE = (96, 128)
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
STREAMS: dict[str, tuple[float, tuple[str, ...]]] = {
    "b_pyramid": (25, ("-x264-params", "bframes=8:b-pyramid=normal:b-adapt=2:keyint=60")),
    "strict_b_pyramid": (25, ("-x264-params", "bframes=3:b-pyramid=strict")),
    "many_references": (25, ("-x264-params", "ref=16:bframes=5:b-pyramid=normal:keyint=100")),
    "open_gop": (25, ("-x264-params", "open_gop=1:keyint=30:bframes=4:scenecut=0")),
    "long_gop": (25, ("-x264-params", "keyint=250:bframes=3:scenecut=0")),
    "only_key_frames": (25, ("-x264-params", "keyint=1")),
    "intra_refresh": (25, ("-x264-params", "intra-refresh=1:keyint=40")),
    "slices": (25, ("-x264-params", "slices=4:bframes=3")),
    "no_b_frames": (25, ("-preset", "ultrafast")),
    "veryfast": (29.97, ("-preset", "veryfast")),
    "slow": (30, ("-preset", "slow")),
    "baseline": (25, ("-profile:v", "baseline")),
    "bt709_full_range": (25, ("-color_range", "pc", "-colorspace", "bt709")),
    "ten_bits": (25, ("-pix_fmt", "yuv420p10le", "-preset", "fast")),
    "1_fps": (1, ()),
    "6_fps": (6, ()),
    "60_fps": (60, ("-preset", "fast")),
    "variable_rate": (25, ("-vf", "select='gt(random(1),0.4)'", "-fps_mode", "vfr")),
    "slide_show": (25, ("-vf", "select='lt(mod(t,4.3),0.7)'", "-fps_mode", "vfr")),
    "fragmented": (25, ("-movflags", "+frag_keyframe+empty_moov", "-g", "30")),
    "no_edit_list": (25, ("-use_editlist", "0", "-bf", "3")),
}


def write_stream(path: Path, rate: float, options: tuple[Any, ...] = (), seconds: int = 8) -> Path:
    """Moving video with noise on it."""
    source = f"testsrc2=size=128x96:rate={rate}:duration={seconds},noise=alls=20:allf=t:all_seed=1"
    ffmpeg("-f", "lavfi", "-i", source, *X264, *options, path)
    return path


def refuse(*_: Any) -> NoReturn:
    raise AssertionError("a full decode")


def assert_both_routes_agree(
    path: Path, size: tuple[int, int] = SIZE, *, may_fall_back: bool = False
) -> int:
    """Asserts that skipping alone and the full decode alone give equal frames; their number."""
    with pytest.MonkeyPatch.context() as patch:
        if not may_fall_back:
            patch.setattr(module, "_full_decode", refuse)
        skipping = frames_of(path, *size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NONREF_CODECS", frozenset())
        patch.setattr(module, "_skipping_decode", refuse)
        full = frames_of(path, *size)
    assert skipping.shape == full.shape
    assert np.array_equal(skipping, full)
    return len(full)


@pytest.mark.parametrize("name", STREAMS)
def test_skipping_gives_the_bytes_of_a_full_decode(name: str, tmp_path: Path) -> None:
    rate, options = STREAMS[name]
    count = assert_both_routes_agree(write_stream(tmp_path / "clip.mp4", rate, options))
    assert count in ((5, 8) if name == "slide_show" else (8,))


@pytest.mark.parametrize("ending", ["mkv", "ts", "mov", "flv"])
def test_skipping_gives_the_bytes_of_a_full_decode_in_other_containers(
    ending: str, tmp_path: Path
) -> None:
    options = ("-x264-params", "bframes=4:b-pyramid=normal:keyint=40")
    path = write_stream(tmp_path / f"clip.{ending}", 25, options)
    assert assert_both_routes_agree(path) == 8


@pytest.mark.parametrize("start", ["0.4", "1.7", "3.03"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_skipping_gives_the_bytes_of_a_full_decode_of_a_section(
    ending: str, start: str, tmp_path: Path
) -> None:
    """Cut without decoding: either pictures before the start are decoded but not shown (mp4), or
    the first pictures refer to missing ones, which only a full decode handles.
    """
    options = ("-x264-params", "open_gop=1:keyint=50:bframes=4:scenecut=0")
    whole = write_stream(tmp_path / "whole.mp4", 25, options)
    path = tmp_path / f"section.{ending}"
    headers = ("-bsf:v", "h264_mp4toannexb,dump_extra=freq=keyframe") if ending == "ts" else ()
    ffmpeg("-ss", start, "-i", whole, "-c", "copy", *headers, path)
    with av.open(str(path)) as container:
        discarded = sum(packet.is_discard for packet in container.demux(video=0))
    assert bool(discarded) == (ending == "mp4")
    assert assert_both_routes_agree(path, may_fall_back=start == "3.03") in range(5, 9)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("late", ["video", "audio", "both"])
def test_skipping_gives_the_bytes_of_a_full_decode_of_a_late_start(
    late: str, ending: str, tmp_path: Path
) -> None:
    video = write_stream(tmp_path / "video.mp4", 25, ("-bf", "3"))
    audio = tmp_path / "audio.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=8", audio)
    shift = {"video": ("2.3", "0"), "audio": ("0", "1.3"), "both": ("3.7", "3.2")}[late]
    path = tmp_path / f"clip.{ending}"
    ffmpeg(
        "-itsoffset", shift[0], "-i", video, "-itsoffset", shift[1], "-i", audio, "-c", "copy",
        "-muxdelay", "0", path,
    )  # fmt: skip
    assert assert_both_routes_agree(path) in ((10,) if late == "video" else (8, 9))


class DecodeCounter:
    """Wraps a container or a packet; records the number of pictures each decode returns."""

    def __init__(self, inner: Any, counts: list[int]) -> None:
        self._inner, self._counts = inner, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> "DecodeCounter":
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def demux(self, *streams: Any) -> Iterator["DecodeCounter"]:
        return (DecodeCounter(packet, self._counts) for packet in self._inner.demux(*streams))

    def decode(self) -> list[Any]:
        frames: list[Any] = self._inner.decode()
        self._counts.append(len(frames))
        return frames


def test_most_non_reference_pictures_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four are non-reference pictures; eight frames are selected."""
    path = write_stream(
        tmp_path / "clip.mp4", 25, ("-x264-params", "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0")
    )
    decoded: list[int] = []
    monkeypatch.setattr(module, "open_media", lambda p: DecodeCounter(open_media(p), decoded))
    assert len(frames_of(path, 8, 8)) == 8
    assert 50 < sum(decoded) <= 50 + 8 + 2


def interlaced(path: Path, *options: str) -> Path:
    """Eight seconds of 25 interlaced pictures, a brightness for each second."""
    source = "color=black:size=128x96:rate=25:duration=8,geq=lum='20+25*floor(T)':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", source, *X264, *options, path)
    return path


@pytest.mark.parametrize(
    "options",
    [("-x264-params", "interlaced=1"), ("-flags", "+ilme+ildct", "-x264-params", "tff=1"),
     ("-flags", "+ilme+ildct", "-x264-params", "bff=1:bframes=3")],
)  # fmt: skip
def test_interlaced_pictures_are_all_decoded(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = interlaced(tmp_path / "clip.mp4", *options)
    plain = interlaced(tmp_path / "plain.mp4")
    shown = brightness(frames_of(path, 8, 8))
    assert shown == pytest.approx(brightness(frames_of(plain, 8, 8)), abs=2)
    assert all(later - earlier > 15 for earlier, later in pairwise(shown))
    monkeypatch.setattr(module, "_full_decode", refuse)
    assert len(frames_of(plain, 8, 8)) == 8
    with pytest.raises(AssertionError, match="a full decode"):
        frames_of(path, 8, 8)


CODECS = {
    "mpeg4": ("mp4", "-c:v", "mpeg4", "-bf", "2"),
    "mpeg4_in_avi": ("avi", "-c:v", "mpeg4", "-bf", "2"),
    "mpeg2_in_ts": ("ts", "-c:v", "mpeg2video", "-bf", "2"),
    "hevc": ("mp4", "-c:v", "libx265", "-preset", "superfast", "-x265-params", "log-level=error"),
    "vp9": ("webm", "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "av1": ("mp4", "-c:v", "libsvtav1", "-preset", "12"),
}


@pytest.mark.parametrize("name", CODECS)
def test_other_codecs_are_decoded_in_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, *options = CODECS[name]
    path = tmp_path / f"clip.{ending}"
    ffmpeg("-i", write_steps(tmp_path / "steps.mp4", with_audio=False), *options, path)
    monkeypatch.setattr(module, "_skipping_decode", refuse)
    frames = frames_of(path, 16, 16)
    assert brightness(frames) == pytest.approx([20 + 22 * n for n in range(10)], abs=4)


def test_h264_in_a_container_without_presentation_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    ffmpeg("-i", write_steps(tmp_path / "steps.mp4", with_audio=False), "-bf", "3", *X264, path)
    assert assert_both_routes_agree(path, may_fall_back=True) == 10
    shown = brightness(frames_of(path, 16, 16))
    assert shown == pytest.approx([20 + 22 * n for n in range(10)], abs=4)


@needs_real_data
@six_real_clips_or_all
def test_skipping_gives_the_full_decodes_bytes_of_real_clips(count: int) -> None:
    for path in real_clips(count):
        assert assert_both_routes_agree(path, (64, 64)) >= 1
