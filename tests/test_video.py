"""Frame N is the picture on screen at second N - 0.5, upright; limits and damaged files."""

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import numpy.typing as npt
import pytest
from media_fixtures import (
    COLOURS,
    LIMITS,
    RATE_HZ,
    brightness,
    ffmpeg,
    frames_of,
    write_steps,
)

from trimodal.core.timing import frame_count
from trimodal.media import video as module
from trimodal.media.container import Deadline, LimitError, MediaError, encode_video
from trimodal.media.video import decode_frames

STEPS = [20 + 22 * n for n in range(10)]
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_steps(tmp_path_factory.mktemp("frames") / "clip.mp4")


def moving(path: Path, *options: str | Path, rate: float = 25, seconds: float = 6) -> Path:
    source = f"testsrc2=size=128x96:rate={rate}:duration={seconds}"
    ffmpeg("-f", "lavfi", "-i", source, *X264, *options, path)
    return path


def test_frame_n_shows_second_n_minus_a_half(clip: Path) -> None:
    frames = frames_of(clip, 24, 24)
    assert (frames.shape, frames.dtype) == ((10, 24, 24, 3), np.uint8)
    assert brightness(frames) == pytest.approx(STEPS, abs=4)


@pytest.mark.parametrize("fps", [1, 3, 6, 7, 25])
def test_frame_is_the_last_picture_at_or_before_its_second(fps: int, tmp_path: Path) -> None:
    count = 5 * fps
    pictures = [np.full((32, 32, 3), 20 + 200 * k // count, np.uint8) for k in range(count)]
    path = tmp_path / "clip.mp4"
    encode_video(path, pictures, fps=fps, audio=None, audio_rate_hz=RATE_HZ)
    shown = [20 + 200 * int((n - 0.5) * fps) // count for n in range(1, 6)]
    near = 200 / count / 2
    assert brightness(frames_of(path, 32, 32)) == pytest.approx(shown, abs=max(1.9, near))


def test_variable_frame_rate(tmp_path: Path) -> None:
    """Ten pictures in the first second, then one every 0.7 s."""
    levels = range(20, 220, 12)
    pictures = b"".join(bytes([level]) * (32 * 32 * 3) for level in levels)
    path = tmp_path / "vfr.mp4"
    ffmpeg(
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x32", "-r", "10", "-i", "pipe:0", "-vf",
        "settb=1/1000,setpts='if(lt(N,10),N*100,1000+(N-10)*700)'", "-fps_mode", "vfr",
        "-pix_fmt", "yuv420p", path, stdin=pictures,
    )  # fmt: skip
    starts = [k * 0.1 if k < 10 else 1 + (k - 10) * 0.7 for k in range(len(levels))]
    frames = brightness(frames_of(path, 32, 32))
    assert len(frames) >= 5
    for number, shown in enumerate(frames, start=1):
        last = max(k for k, start in enumerate(starts) if start <= number - 0.5 + 1e-6)
        assert shown == pytest.approx(levels[last], abs=3)


def ffmpeg_frames(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Frames from ffmpeg's own filters: the last picture at or before each second N - 0.5."""
    filters = (
        "setpts=PTS-0.5/TB,fps=1:start_time=0:round=up,"
        f"scale={width}:{height}:flags=bicubic,format=rgb24"
    )
    content = ffmpeg("-i", path, "-vf", filters, "-f", "rawvideo", "pipe:1")
    return np.frombuffer(content, np.uint8).reshape(-1, height, width, 3)


def assert_close(ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8], levels: float) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean(axis=(1, 2, 3)).max() < levels


@pytest.mark.parametrize(
    "options",
    [(), ("-pix_fmt", "yuv444p"), ("-bf", "0", "-r", "7"),
     ("-vf", "hue=s=0,select='gt(random(1),0.4)'", "-fps_mode", "vfr")],
    ids=["plain", "444", "7_fps", "variable_rate"],
)  # fmt: skip
def test_grey_frames_are_those_of_ffmpegs_filters(options: tuple[str, ...], tmp_path: Path) -> None:
    path = moving(tmp_path / "clip.mp4", "-vf", "hue=s=0", *options)
    ours = frames_of(path, 48, 56)
    assert len(ours) == 6
    assert np.abs(np.diff(ours.astype(int), axis=0)).mean(axis=(1, 2, 3)).min() > 2
    assert_close(ours, ffmpeg_frames(path, 48, 56), 0.1)


@pytest.mark.parametrize(
    "options",
    [(), ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
     ("-color_range", "pc")],
    ids=["plain", "bt709", "full_range"],
)  # fmt: skip
def test_colours_are_those_of_ffmpegs_filters(options: tuple[str, ...], tmp_path: Path) -> None:
    """Colours change slowly here, since the position of the subsampled chroma may differ."""
    path = tmp_path / "clip.mp4"
    source = COLOURS.format("320x240:duration=4") + ",format=yuv420p"
    tags = "setparams=range=tv:colorspace=unknown"
    if options:
        tags = "setparams=" + ("range=pc" if "pc" in options else "colorspace=bt709")
    ffmpeg("-f", "lavfi", "-i", f"{source},{tags}", *X264, *options, path)
    assert_close(frames_of(path, 48, 56), ffmpeg_frames(path, 48, 56), 0.5)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_frames_are_upright(angle: int, codec: str, tmp_path: Path) -> None:
    plain = moving(tmp_path / "plain.mp4", "-vf", "hue=s=0", "-c:v", codec, seconds=2)
    path = tmp_path / "rotated.mp4"
    ffmpeg("-display_rotation", angle, "-i", plain, "-c", "copy", path)
    ours = frames_of(path, 48, 64)
    assert_close(ours, ffmpeg_frames(path, 48, 64), 1.0)
    if angle:
        with pytest.raises(AssertionError):
            assert_close(ours, frames_of(plain, 48, 64), 10.0)


def test_video_over_the_length_limit_is_refused_before_decoding(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_selected_pictures", lambda *_: pytest.fail("decodes"))
    with pytest.raises(LimitError, match=r"clip\.mp4: too_long: over 9 s of video") as caught:
        frames_of(clip, 8, 8, replace(LIMITS, clip_seconds=9.0))
    assert caught.value.reason == "too_long"
    monkeypatch.undo()
    assert len(frames_of(clip, 8, 8, replace(LIMITS, clip_seconds=10.0))) == 10


def test_length_limit_holds_where_only_decoding_shows_the_length(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = module._picture_times(clip, LIMITS, Deadline(clip, "frames", LIMITS))
    unknown = replace(times, frames=0, selected=())
    monkeypatch.setattr(module, "_picture_times", lambda *_: unknown)
    assert len(frames_of(clip, 8, 8)) == 10
    with pytest.raises(LimitError) as caught:
        frames_of(clip, 8, 8, replace(LIMITS, clip_seconds=5.0))
    assert caught.value.reason == "too_long"


def test_frames_over_the_size_limit_are_refused(clip: Path) -> None:
    """The frames are 48 x 32."""
    with pytest.raises(LimitError, match=r"too_large: 48 x 32 is over 1,535 pixels") as caught:
        frames_of(clip, 8, 8, replace(LIMITS, frame_pixels=1535))
    assert caught.value.reason == "too_large"
    assert len(frames_of(clip, 8, 8, replace(LIMITS, frame_pixels=1536))) == 10


@pytest.mark.parametrize("full", [False, True])
def test_pictures_that_grow_over_the_limit_are_not_decoded(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header states 32 x 32; from second 2 on the pictures are 640 x 480, and the last small
    one stays on screen.
    """
    if full:
        monkeypatch.setattr(module, "_NONREF_CODECS", frozenset())
    content = b""
    for size in ("32x32", "640x480"):
        source = f"testsrc2=size={size}:rate=25:duration=2"
        content += ffmpeg("-f", "lavfi", "-i", source, *X264, "-bf", 0, "-f", "h264", "pipe:1")
    path = tmp_path / "clip.mkv"
    ffmpeg(
        "-fflags", "+genpts", "-r", 25, "-f", "h264", "-i", "pipe:0", "-c", "copy", path,
        stdin=content,
    )  # fmt: skip
    changing = frames_of(path, 8, 8)
    limited = frames_of(path, 8, 8, replace(LIMITS, frame_pixels=32 * 32))
    assert len(changing) == len(limited) == 4
    assert np.array_equal(changing[:2], limited[:2])
    assert np.array_equal(limited[2], limited[3])
    assert not np.array_equal(changing[2], changing[3])


@pytest.mark.parametrize("full", [False, True])
def test_frames_over_the_time_limit_are_refused(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a clip whose pictures lie within a fraction of a second."""
    if full:
        monkeypatch.setattr(module, "_NONREF_CODECS", frozenset())
    path = tmp_path / "clip.mkv"
    burst = "settb=1/1000,setpts='if(lt(N,149),N,700)'"
    moving(path, "-vf", burst, "-fps_mode", "vfr", "-enc_time_base", "1/1000")
    with av.open(str(path)) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 150
    clock = iter(range(10_000))
    monkeypatch.setattr(
        "trimodal.media.container.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    with pytest.raises(LimitError, match="decoding its frames took over 100 s") as caught:
        frames_of(path, 8, 8, replace(LIMITS, timeout_seconds=100.0))
    assert caught.value.reason == "too_slow"
    assert next(clock) in range(101, 110)


def packet_positions(path: Path) -> list[tuple[int, int]]:
    """Offset and size in the file of the packets after the first eighth."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    return packets[len(packets) // 8 :]


@pytest.mark.parametrize("seed", [0, 7, 11, 20, 24, 33, 41, 56])
def test_damaged_pictures_affect_no_other_frame(seed: int, tmp_path: Path) -> None:
    """No crash, the same number of frames, and equal frames with and without skipping."""
    path = moving(tmp_path / "clip.mp4", "-bf", "3", "-g", "30", "-preset", "veryfast")
    intact = frames_of(path, 96, 128)
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)  # noqa: S311
    for position, size in rng.sample(packet_positions(path), 8):
        start = position + rng.randrange(5, max(6, size // 2))
        stop = min(position + size, start + rng.choice([1, 8, 60]))
        content[start:stop] = rng.randbytes(stop - start)
    path.write_bytes(content)
    damaged = frames_of(path, 96, 128)
    assert damaged.shape == intact.shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NONREF_CODECS", frozenset())
        full = frames_of(path, 96, 128)
    assert np.array_equal(damaged, full)
    assert not np.array_equal(damaged, intact)


def test_video_of_noise_is_corrupt(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path = tmp_path / "noise.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match="no frame of it") as caught:
        frames_of(path, 8, 8)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_late_first_picture_is_shown_from_the_start(codec: str, tmp_path: Path) -> None:
    steps = write_steps(tmp_path / "steps.mp4", seconds=3)
    path = tmp_path / "late.mp4"
    ffmpeg(
        "-i", steps, "-itsoffset", "2.25", "-i", steps, "-map", "0:a", "-map", "1:v", "-c:a",
        "copy", "-c:v", codec, path,
    )  # fmt: skip
    shown = brightness(frames_of(path, 8, 8))
    assert shown == pytest.approx([20, 20, 20, 42, 64], abs=4)


@pytest.mark.parametrize(("seconds", "count"), [(1, 1), (0.6, 1), (3, 3)])
def test_a_single_picture_fills_the_time_it_is_shown(
    seconds: float, count: int, tmp_path: Path
) -> None:
    path = moving(tmp_path / "clip.mp4", "-frames:v", "1", rate=1 / seconds, seconds=seconds)
    assert len(frames_of(path, 8, 8)) == count == frame_count(seconds)


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_truncated_files_are_refused(front: bool, share: float, clip: Path, tmp_path: Path) -> None:
    """Also those whose index is at the start and whose pictures after it are missing."""
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", clip, "-c", "copy", *(["-movflags", "+faststart"] if front else []), whole)
    path = tmp_path / "cut.mp4"
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        frames_of(path, 8, 8)


def test_first_frame_comes_before_the_rest_is_decoded(tmp_path: Path) -> None:
    """Damage later in the file does not affect it."""
    path = moving(tmp_path / "clip.mkv", "-g", "25")
    first = frames_of(path, 96, 128)[0]
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[50:]:
        content[position + 12 : position + size] = bytes(max(0, size - 12))
    path.write_bytes(content)
    frames = decode_frames(path, 96, 128, LIMITS)
    assert np.array_equal(next(frames), first)
    frames.close()


def test_a_long_clip_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    path = moving(tmp_path / "clip.mp4", "-preset", "ultrafast", rate=5, seconds=400)
    tracemalloc.start()
    try:
        assert sum(1 for _ in decode_frames(path, 96, 128, LIMITS)) == 400
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
