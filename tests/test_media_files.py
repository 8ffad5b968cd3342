"""Real files through ffmpeg: frame N and its sound belong to second N - 0.5, whatever the file."""

import subprocess
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from data_fixtures import contents

from trimodal.media import (
    MediaError,
    decode_audio,
    decode_frames,
    encode_video,
    ffmpeg_executable,
    probe,
)
from trimodal.mel import MelConfig, log_mel, window_first_column

RATE_HZ = 16_000
TONES_HZ = [300 + 400 * second for second in range(10)]


def picture(second: int) -> npt.NDArray[np.uint8]:
    return np.full((32, 48, 3), 20 + 22 * second, np.uint8)


def tone(hz: float, seconds: float) -> npt.NDArray[np.float32]:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(
        np.float32
    ) * np.float32(0.5)


def write_clip(
    path: Path, *, seconds: int = 10, fps: int = 6, sound: bool = True, odd: bool = False
) -> Path:
    """Every second has a brightness and a tone of its own."""
    frames = [picture(second) for second in range(seconds) for _ in range(fps)]
    if odd:
        frames = [frame[:31, :31] for frame in frames]
    audio = np.concatenate([tone(hz, 1.0) for hz in TONES_HZ[:seconds]]) if sound else None
    encode_video(path, frames, fps=fps, audio=audio, audio_rate_hz=RATE_HZ)
    return path


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> None:
    command = [ffmpeg_executable(), "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, input=stdin, check=True, capture_output=True)


def brightness(frames: npt.NDArray[np.uint8]) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def pitch_hz(samples: npt.NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * RATE_HZ / len(samples)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4")


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "short.mp4", seconds=2)


def test_frame_n_shows_second_n_minus_a_half(clip: Path) -> None:
    frames = decode_frames(clip, 24, 24)
    assert (frames.shape, frames.dtype) == ((10, 24, 24, 3), np.uint8)
    assert brightness(frames) == pytest.approx([20 + 22 * n for n in range(10)], abs=4)


def test_sound_of_second_n_minus_a_half_is_frame_ns(clip: Path) -> None:
    samples = decode_audio(clip, RATE_HZ)
    assert len(samples) / RATE_HZ == pytest.approx(10.0, abs=0.07)
    for number, hz in enumerate(TONES_HZ, start=1):
        middle = round((number - 0.5) * RATE_HZ)
        assert pitch_hz(samples[middle - 7200 : middle + 7200]) == pytest.approx(hz, abs=3)


def test_middle_of_a_mel_window_is_its_frames_second(clip: Path) -> None:
    config = MelConfig(
        sample_rate_hz=RATE_HZ, n_fft=1024, window_samples=640, hop_samples=320, mels=64,
        window_seconds=3.0, decibel="power",
    )  # fmt: skip
    stored = log_mel(decode_audio(clip, RATE_HZ), config)
    expected = [int(log_mel(tone(hz, 1.0), config)[25].argmax()) for hz in TONES_HZ]
    assert len(set(expected)) == 10
    for number in range(2, 9):
        first = window_first_column(number - 0.5, config)
        loudest = stored[first : first + config.columns].argmax(axis=1)
        centre = config.columns // 2
        for shift, second in [(-50, number - 2), (0, number - 1), (50, number)]:
            columns = loudest[centre + shift - 20 : centre + shift + 20]
            assert set(columns.tolist()) == {expected[second]}


def test_sound_is_in_step_to_a_few_milliseconds(tmp_path: Path) -> None:
    click = np.zeros(3 * RATE_HZ, np.float32)
    click[2 * RATE_HZ : 2 * RATE_HZ + 80] = 0.9
    path = tmp_path / "click.mp4"
    encode_video(path, [picture(1)] * 12, fps=4, audio=click, audio_rate_hz=RATE_HZ)
    loudest = np.abs(decode_audio(path, RATE_HZ)).argmax()
    assert loudest / RATE_HZ == pytest.approx(2.0025, abs=0.005)


@pytest.mark.parametrize("fps", [1, 3, 6, 7, 25])
def test_frame_is_the_last_picture_at_or_before_its_second(fps: int, tmp_path: Path) -> None:
    count = 5 * fps
    pictures = [np.full((32, 32, 3), 20 + 200 * k // count, np.uint8) for k in range(count)]
    path = tmp_path / "clip.mp4"
    encode_video(path, pictures, fps=fps, audio=None, audio_rate_hz=RATE_HZ)
    shown = [20 + 200 * int((n - 0.5) * fps) // count for n in range(1, 6)]
    near = 200 / count / 2
    assert brightness(decode_frames(path, 32, 32)) == pytest.approx(shown, abs=max(1.9, near))


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
    frames = brightness(decode_frames(path, 32, 32))
    assert len(frames) >= 5
    for number, shown in enumerate(frames, start=1):
        last = max(k for k, start in enumerate(starts) if start <= number - 0.5 + 1e-6)
        assert shown == pytest.approx(levels[last], abs=3)


def test_late_sound_is_preceded_by_silence(short_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    ffmpeg(
        "-i", short_clip, "-itsoffset", "0.7", "-i", short_clip,
        "-map", "0:v", "-map", "1:a", "-c", "copy", path,
    )  # fmt: skip
    samples = decode_audio(path, RATE_HZ)
    start = round(0.7 * RATE_HZ)
    assert np.abs(samples[: start - 160]).max() < 0.01
    assert np.abs(samples[start + 160 : start + 1000]).max() > 0.3
    assert len(samples) / RATE_HZ == pytest.approx(2.7, abs=0.1)
    assert pitch_hz(samples[start + 2000 : start + 14_000]) == pytest.approx(TONES_HZ[0], abs=3)
    assert pitch_hz(samples[start + 18_000 : start + 30_000]) == pytest.approx(TONES_HZ[1], abs=3)


def test_probe_tells_duration_and_sound(clip: Path, tmp_path: Path) -> None:
    info = probe(clip)
    assert info.duration_seconds == pytest.approx(10.0, abs=0.1)
    assert info.has_audio
    silent = write_clip(tmp_path / "silent.mp4", seconds=2, sound=False)
    assert probe(silent).duration_seconds == pytest.approx(2.0, abs=0.01)
    assert not probe(silent).has_audio


def test_file_without_sound_has_none_to_decode(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", seconds=1, sound=False)
    assert len(decode_frames(silent, 8, 8)) == 1
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        decode_audio(silent, RATE_HZ)


def test_text_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("Video unavailable\n" * 100)
    with pytest.raises(MediaError, match=r"text\.mp4: corrupt") as caught:
        probe(path)
    assert caught.value.reason == "corrupt"
    with pytest.raises(MediaError, match=r"text\.mp4"):
        decode_frames(path, 8, 8)


def test_missing_file_is_a_media_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        probe(tmp_path / "absent.mp4")


def test_sound_alone_is_no_video(short_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    ffmpeg("-i", short_clip, "-vn", "-c", "copy", path)
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.reason == "no_video"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.0,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile secret.ts\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_cannot_reach_other_files(name: str, short_clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", short_clip, "-c", "copy", tmp_path / "secret.ts")
    for ending in ("mp4", "m3u8"):
        path = tmp_path / f"playlist.{ending}"
        path.write_text(PLAYLISTS[name])
        for look in (probe, lambda p: decode_frames(p, 8, 8), lambda p: decode_audio(p, RATE_HZ)):
            with pytest.raises(MediaError) as caught:
                look(path)
            assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(
    "name",
    [
        "-clip.mp4",
        "--help.mp4",
        "12:30.mp4",
        "a 'quoted' \"clip\".mp4",
        "100%d [1];&$x.mp4",
        "ü犬.mp4",
    ],
)
def test_awkward_file_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / "folder 'x'" / name):
        write_clip(path, seconds=1)
        assert path.is_file()
        assert probe(path).has_audio
        assert len(decode_frames(path, 8, 8)) == 1
        assert len(decode_audio(path, RATE_HZ)) > 15_000


def test_encoding_is_reproducible(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "first.mp4", seconds=2).read_bytes()
    assert write_clip(tmp_path / "second.mp4", seconds=2).read_bytes() == first


def test_codecs_are_h264_and_aac(short_clip: Path) -> None:
    with av.open(str(short_clip)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["h264"]
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
        assert container.streams.video[0].average_rate == 6


@pytest.mark.parametrize("existing", [True, False])
def test_failed_encoding_leaves_nothing_half_written(existing: bool, tmp_path: Path) -> None:
    """H.264 needs even sides. What stood there before stays."""
    path = tmp_path / "clip.mp4"
    if existing:
        path.write_bytes(b"before")
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        write_clip(path, seconds=1, odd=True)
    assert contents(tmp_path) == ({"clip.mp4": b"before"} if existing else {})


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_truncated_files_are_refused(front: bool, share: float, clip: Path, tmp_path: Path) -> None:
    """Also those whose table of contents stands in front: the pictures behind it are missing."""
    whole = tmp_path / "whole.mp4"
    ffmpeg("-i", clip, "-c", "copy", *(["-movflags", "+faststart"] if front else []), whole)
    path = tmp_path / "cut.mp4"
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        decode_frames(path, 8, 8)
