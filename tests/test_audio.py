"""The audio track: mono blocks on the clip's clock, silence in gaps, damaged files, limits."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import numpy.typing as npt
import pytest
from configs import front_end_for_tests
from media_fixtures import (
    LIMITS,
    RATE_HZ,
    TONES_HZ,
    brightness,
    ffmpeg,
    frames_of,
    pitch_hz,
    samples_of,
    solid_frame,
    tone,
    write_steps,
)

from trimodal.media import audio as module
from trimodal.media.audio import decode_audio
from trimodal.media.container import LimitError, MediaError, encode_video
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import window_first_column

Samples = npt.NDArray[np.float32]
BLACK_VIDEO = ("-f", "lavfi", "-i", "color=black:size=32x32:rate=5:duration=4")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_steps(tmp_path_factory.mktemp("audio") / "clip.mp4")


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_steps(tmp_path_factory.mktemp("audio") / "short.mp4", seconds=2)


def test_audio_of_second_n_minus_a_half_is_frame_ns(clip: Path) -> None:
    samples = samples_of(clip)
    assert samples.dtype == np.float32
    assert len(samples) / RATE_HZ == pytest.approx(10.0, abs=0.07)
    for number, hz in enumerate(TONES_HZ, start=1):
        middle = round((number - 0.5) * RATE_HZ)
        assert pitch_hz(samples[middle - 7200 : middle + 7200]) == pytest.approx(hz, abs=3)


def test_middle_of_a_mel_window_is_its_frames_second(clip: Path) -> None:
    front_end = front_end_for_tests(
        sample_rate_hz=RATE_HZ, n_fft=1024, window_samples=640, hop_samples=320, mels=64
    )
    config = front_end.mel
    stored = log_mel(decode_audio(clip, RATE_HZ, LIMITS), config).codes
    expected = [int(log_mel([tone(hz, 1.0)], config).codes[25].argmax()) for hz in TONES_HZ]
    assert len(set(expected)) == 10
    for number in range(2, 9):
        first = window_first_column(number - 0.5, front_end)
        loudest = stored[first : first + front_end.columns].argmax(axis=1)
        centre = front_end.columns // 2
        for shift, second in [(-50, number - 2), (0, number - 1), (50, number)]:
            columns = loudest[centre + shift - 20 : centre + shift + 20]
            assert set(columns.tolist()) == {expected[second]}


def test_audio_is_in_sync_to_a_few_milliseconds(tmp_path: Path) -> None:
    click = np.zeros(3 * RATE_HZ, np.float32)
    click[2 * RATE_HZ : 2 * RATE_HZ + 80] = 0.9
    path = tmp_path / "click.mp4"
    encode_video(path, [solid_frame(1)] * 12, fps=4, audio=click, audio_rate_hz=RATE_HZ)
    loudest = np.abs(samples_of(path)).argmax()
    assert loudest / RATE_HZ == pytest.approx(2.0025, abs=0.005)


def test_late_audio_is_preceded_by_silence(short_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    ffmpeg(
        "-i", short_clip, "-itsoffset", "0.7", "-i", short_clip,
        "-map", "0:v", "-map", "1:a", "-c", "copy", path,
    )  # fmt: skip
    samples = samples_of(path)
    start = round(0.7 * RATE_HZ)
    assert np.abs(samples[: start - 160]).max() < 0.01
    assert np.abs(samples[start + 160 : start + 1000]).max() > 0.3
    assert len(samples) / RATE_HZ == pytest.approx(2.7, abs=0.1)
    assert pitch_hz(samples[start + 2000 : start + 14_000]) == pytest.approx(TONES_HZ[0], abs=3)
    assert pitch_hz(samples[start + 18_000 : start + 30_000]) == pytest.approx(TONES_HZ[1], abs=3)


def test_a_clock_that_starts_late_starts_at_second_0(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "shifted.ts"
    ffmpeg("-i", clip, "-c", "copy", "-output_ts_offset", "7.3", path)
    samples = samples_of(path)
    assert len(samples) / RATE_HZ == pytest.approx(10.0, abs=0.15)
    for number, hz in enumerate(TONES_HZ, start=1):
        middle = round((number - 0.5) * RATE_HZ)
        assert pitch_hz(samples[middle - 6400 : middle + 6400]) == pytest.approx(hz, abs=3)
    shown = brightness(frames_of(path, 8, 8))
    assert shown == pytest.approx([20 + 22 * n for n in range(10)], abs=4)


def test_file_without_audio_is_refused(tmp_path: Path) -> None:
    silent = write_steps(tmp_path / "silent.mp4", seconds=1, with_audio=False)
    assert len(frames_of(silent, 8, 8)) == 1
    with pytest.raises(MediaError, match=r"silent\.mp4: no_audio") as caught:
        samples_of(silent)
    assert caught.value.reason == "no_audio"


def with_pieces(path: Path, pieces: list[tuple[float, Samples]], rate_hz: int = 48_000) -> Path:
    """A file whose audio is these pieces, each from its second on, and gaps between them."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mjpeg", rate=1, options={"strict": "-1"})
        video.width = video.height = 32
        video.pix_fmt = "yuvj420p"
        audio = container.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        for black.pts in range(3):
            container.mux(video.encode(black))
        container.mux(video.encode())
        for start, samples in pieces:
            for offset in range(0, len(samples), 960):
                part = np.rint(samples[None, offset : offset + 960] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
                frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
                frame.pts = round(start * rate_hz) + offset
                container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


def noise(seconds: float, rate_hz: int = 48_000) -> Samples:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, round(seconds * rate_hz))
    return samples.astype(np.float32)


@pytest.mark.parametrize("late", [0.0, 0.6, 1.4, 2.5])
@pytest.mark.parametrize("gap", [0.3, 0.98, 1.02, 2.7, 45.25])
def test_a_gap_becomes_silence_of_its_length(gap: float, late: float, tmp_path: Path) -> None:
    first, second = noise(1.52), noise(1.0)[::-1]
    resumed = late + 1.52 + gap
    samples = samples_of(
        with_pieces(tmp_path / "clip.mkv", [(late, first), (resumed, second)]), 48_000
    )
    expected = np.zeros(round((resumed + 1.0) * 48_000), np.float32)
    for start, piece in ((late, first), (resumed, second)):
        offset = round(start * 48_000)
        expected[offset : offset + len(piece)] = piece
    assert len(samples) == pytest.approx(len(expected), abs=48)
    length = min(len(samples), len(expected))
    np.testing.assert_allclose(samples[:length], expected[:length], rtol=0, atol=1e-4)


@pytest.mark.parametrize("first", [True, False])
def test_a_gap_of_days_costs_no_memory(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libswresample would hold a gigabyte for an hour and a half."""
    pieces = [(0.0, noise(1.0))] * (not first) + [(100_000.0, noise(1.0))]
    path = with_pieces(tmp_path / "clip.mkv", pieces)
    frame_seconds = []
    resampler = module._Resampler

    class Watched(resampler):  # type: ignore[valid-type, misc]
        def push(self, frame: av.AudioFrame) -> object:
            frame_seconds.append(frame.time)
            return super().push(frame)

    monkeypatch.setattr(module, "_Resampler", Watched)
    with pytest.raises(LimitError, match="too_long: over 1800 s of audio") as caught:
        samples_of(path)
    assert caught.value.reason == "too_long"
    assert not [second for second in frame_seconds if second > 1800]


def test_a_track_may_change_its_format(tmp_path: Path) -> None:
    """48 kHz stereo of 500 Hz for 3 seconds, then 24 kHz mono of 900 Hz."""
    content = b""
    for rate, channels, hz, start in ((48_000, 2, 500, 0), (24_000, 1, 900, 3)):
        content += ffmpeg(
            "-f", "lavfi", "-i", "color=black:size=32x32:duration=3",
            "-f", "lavfi", "-i", f"sine=frequency={hz}:sample_rate={rate}:duration=3",
            "-ac", channels, "-output_ts_offset", start, "-muxdelay", 0, "-f", "mpegts", "pipe:1",
        )  # fmt: skip
    path = tmp_path / "clip.ts"
    path.write_bytes(content)
    samples = samples_of(path)
    assert len(samples) / RATE_HZ == pytest.approx(6.0, abs=0.1)
    pitches = [pitch_hz(samples[k : k + 4000]) for k in range(0, len(samples) - 4000, 4000)]
    assert pitches[:11] == pytest.approx([500] * 11, abs=3)
    assert pitches[12:] == pytest.approx([900] * len(pitches[12:]), abs=3)
    assert len(pitches) >= 23


FORMATS = {
    "aac_8_khz": ("mp4", "-ar", 8000, "-c:a", "aac"),
    "aac_22_khz": ("mp4", "-ar", 22_050, "-c:a", "aac"),
    "aac_48_khz_5_1": ("mp4", "-ar", 48_000, "-ac", 6, "-c:a", "aac"),
    "mp3": ("mp4", "-ar", 44_100, "-ac", 2, "-c:a", "libmp3lame"),
    "opus": ("webm", "-ar", 48_000, "-ac", 2, "-c:a", "libopus", "-c:v", "libvpx-vp9"),
    "vorbis": ("mkv", "-ar", 44_100, "-c:a", "libvorbis"),
    "flac": ("mkv", "-ar", 44_100, "-ac", 2, "-c:a", "flac"),
    "float": ("mkv", "-ar", 48_000, "-ac", 1, "-c:a", "pcm_f32le"),
}


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("name", FORMATS)
def test_blocks_equal_ffmpegs_resampling_of_the_whole(
    name: str, rate_hz: int, tmp_path: Path
) -> None:
    ending, *options = FORMATS[name]
    path = tmp_path / f"clip.{ending}"
    source = "aevalsrc=0.3*sin(1000*t*t)+0.1*random(0):duration=3.7:sample_rate=48000"
    ffmpeg(*BLACK_VIDEO, "-f", "lavfi", "-i", source, *options, path)
    blocks = list(decode_audio(path, rate_hz, LIMITS))
    assert len(blocks) > 3
    assert max(len(block) for block in blocks) <= rate_hz
    ours = np.concatenate(blocks)
    theirs = np.frombuffer(
        ffmpeg(
            "-i", path, "-map", "0:a:0", "-ar", rate_hz, "-ac", 1, "-af",
            "aresample=async=1:first_pts=0", "-f", "f32le", "pipe:1",
        ),
        np.float32,
    )  # fmt: skip
    assert len(ours) == pytest.approx(3.7 * rate_hz, abs=0.13 * rate_hz)
    assert 0 <= len(ours) - len(theirs) <= 2300 * rate_hz / 16_000
    assert np.abs(theirs).max() > 0.2
    np.testing.assert_allclose(ours[: len(theirs) - 100], theirs[:-100], rtol=0, atol=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30, -1e5])
def test_samples_that_are_not_finite_or_huge_are_refused(wrong: float, tmp_path: Path) -> None:
    """Their power would not be finite either."""
    samples = noise(2.0).astype("<f4")
    path = tmp_path / "clip.mkv"
    raw = ("-f", "f32le", "-ar", 48_000, "-ac", 1, "-i", "pipe:0")
    samples[70_000] = -20.0
    ffmpeg(*BLACK_VIDEO, *raw, "-c:a", "pcm_f32le", path, stdin=samples.tobytes())
    assert samples_of(path, 48_000).min() == -20.0
    samples[70_000] = wrong
    ffmpeg(*BLACK_VIDEO, *raw, "-c:a", "pcm_f32le", path, stdin=samples.tobytes())
    with pytest.raises(MediaError, match="samples that are not finite") as caught:
        samples_of(path)
    assert caught.value.reason == "corrupt"


def test_damaged_packets_keep_the_rest_in_sync(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    for position, size in packets[60:70]:  # a second and a half of 0.064 s packets
        content[position : position + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    samples = samples_of(path)
    assert len(samples) == pytest.approx(10 * RATE_HZ, abs=0.07 * RATE_HZ)
    for second in (0, 1, 2, 6, 9):
        middle = round((second + 0.5) * RATE_HZ)
        pitch = pitch_hz(samples[middle - 7200 : middle + 7200])
        assert pitch == pytest.approx(TONES_HZ[second], abs=3)


def test_audio_over_the_length_limit_is_refused(clip: Path) -> None:
    assert len(samples_of(clip, limits=replace(LIMITS, clip_seconds=10.1))) > 9.9 * RATE_HZ
    with pytest.raises(LimitError, match=r"clip\.mp4: too_long: over 9 s of audio") as caught:
        samples_of(clip, limits=replace(LIMITS, clip_seconds=9.0))
    assert caught.value.reason == "too_long"


def test_audio_over_the_time_limit_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(
        "trimodal.media.container.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    with pytest.raises(LimitError, match="decoding its audio took over 5 s") as caught:
        samples_of(clip, limits=replace(LIMITS, timeout_seconds=5.0))
    assert caught.value.reason == "too_slow"


def test_a_truncated_file_is_refused(clip: Path, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "+faststart", whole)
    path.write_bytes(whole.read_bytes()[: 2 * whole.stat().st_size // 3])
    with pytest.raises(MediaError, match=r"cut\.mp4: corrupt"):
        samples_of(path)
