"""The mel front-end against librosa; a window cut from a stored mel against one of its own."""

from dataclasses import replace

import librosa
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.mel import (
    FLOOR_DB,
    MelConfig,
    log_mel,
    missing_columns,
    pad_window,
    scale_window,
    window_first_column,
)

Samples = npt.NDArray[np.float32]

PAPER = MelConfig(
    sample_rate_hz=44_100, n_fft=1024, window_samples=882, hop_samples=441, mels=128,
    window_seconds=3.0, decibel="power",
)  # fmt: skip
DEMO = MelConfig(
    sample_rate_hz=16_000, n_fft=1024, window_samples=640, hop_samples=320, mels=64,
    window_seconds=3.0, decibel="power",
)  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [PAPER, DEMO], ids=["paper", "demo"])
FLOAT16_DB = 0.04  # half a float16 step below -64 dB is 0.031


def sound(config: MelConfig, seconds: float, *, gain: float = 1.0) -> Samples:
    """Tones and noise; louder around second 4.7, so that no edge holds a window's maximum."""
    time = np.arange(round(seconds * config.sample_rate_hz)) / config.sample_rate_hz
    noise = np.random.default_rng(3).standard_normal(len(time))
    tones = np.sin(2 * np.pi * 440 * time) + 0.3 * np.sin(2 * np.pi * 3_000 * time)
    loudness = 0.05 + 0.5 * np.exp(-(((time - 4.7) / 0.3) ** 2))
    return (gain * loudness * (tones + 0.1 * noise)).astype(np.float32)


def librosa_power_mel(samples: Samples, config: MelConfig) -> npt.NDArray[np.float32]:
    return librosa.feature.melspectrogram(
        y=samples, sr=config.sample_rate_hz, n_fft=config.n_fft, hop_length=config.hop_samples,
        win_length=config.window_samples, n_mels=config.mels, power=2.0,
    )  # fmt: skip


def librosa_input(samples: Samples, config: MelConfig) -> npt.NDArray[np.float32]:
    """The authors' network input for exactly these samples."""
    to_db = {"power": librosa.power_to_db, "amplitude": librosa.amplitude_to_db}[config.decibel]
    decibels = to_db(librosa_power_mel(samples, config), ref=np.max, top_db=80)
    return (decibels + 40) / 40


def cut(stored: npt.NDArray[np.float16], centre_seconds: float, config: MelConfig) -> npt.NDArray:
    first = window_first_column(centre_seconds, config)
    return scale_window(stored[first : first + config.columns], config)


@CONFIGS
def test_log_mel_is_librosas(config: MelConfig) -> None:
    samples = sound(config, 6.0)
    ours = log_mel(samples, config)
    theirs = librosa.power_to_db(librosa_power_mel(samples, config), top_db=None).T
    assert ours.dtype == np.float16
    assert ours.shape == (1 + len(samples) // config.hop_samples, config.mels)
    np.testing.assert_allclose(ours.astype(np.float32), theirs, rtol=0, atol=FLOAT16_DB)


def test_three_seconds_are_128_by_301_at_the_papers_scale() -> None:
    stored = log_mel(sound(PAPER, 3.0), PAPER)
    assert stored.shape == (301, 128)
    assert PAPER.columns == 301
    assert scale_window(stored, PAPER).shape == (128, 301)


@CONFIGS
@pytest.mark.parametrize("decibel", ["power", "amplitude"])
@pytest.mark.parametrize("frame", [4, 5])
def test_a_view_of_the_stored_mel_is_the_mel_of_just_those_three_seconds(
    config: MelConfig, decibel: str, frame: int
) -> None:
    """But for its two edge columns: their analysis windows reach half a window beyond the three
    seconds, where the clip goes on but a mel of its own sees padding.
    """
    config = replace(config, decibel=decibel)
    samples = sound(config, 10.0)
    view = cut(log_mel(samples, config), frame - 0.5, config)
    start = (frame - 2) * config.sample_rate_hz
    own = librosa_input(samples[start : start + 3 * config.sample_rate_hz], config)
    assert view.shape == own.shape == (config.mels, config.columns)
    assert view.dtype == np.float32
    tolerance = FLOAT16_DB * 2 * (2 if decibel == "amplitude" else 1) / 40
    np.testing.assert_allclose(view[:, 1:-1], own[:, 1:-1], rtol=0, atol=tolerance)
    assert np.abs(view[:, [0, -1]] - own[:, [0, -1]]).max() > 2 * tolerance


def test_input_spans_minus_1_to_1_with_its_maximum_at_1() -> None:
    view = cut(log_mel(sound(PAPER, 10.0), PAPER), 4.5, PAPER)
    assert view.max() == 1.0
    assert view.min() >= -1.0
    decibels = np.array([[0.0, -40.0, -80.0, -90.0]], np.float16)
    assert scale_window(decibels, PAPER).T.tolist() == [[1.0, 0.0, -1.0, -1.0]]
    assert scale_window(decibels + np.float16(10), PAPER).T.tolist() == [[1.0, 0.0, -1.0, -1.0]]


def test_amplitude_decibels_keep_only_the_top_40_db_of_power() -> None:
    decibels = np.array([[20.0, 0.0, -20.0, -30.0, -90.0]], np.float16)
    doubled = scale_window(decibels, replace(PAPER, decibel="amplitude"))
    assert doubled.T.tolist() == [[1.0, 0.0, -1.0, -1.0, -1.0]]


@pytest.mark.parametrize("decibel", ["power", "amplitude"])
@pytest.mark.parametrize("gain", [0.02, 1e-3, 1e-4, 0.0])
def test_quiet_sounds_and_silence_come_out_as_librosas(gain: float, decibel: str) -> None:
    """Both decibels have an absolute floor: -100 dB of power, -50 dB for the doubled ones."""
    config = replace(PAPER, decibel=decibel)
    samples = sound(config, 3.0, gain=gain)
    view = scale_window(log_mel(samples, config), config)
    np.testing.assert_allclose(view, librosa_input(samples, config), rtol=0, atol=5e-3)


def test_silence_is_finite_and_constant() -> None:
    stored = log_mel(np.zeros(30_000, np.float32), PAPER)
    assert (stored == FLOOR_DB).all()
    assert (scale_window(stored, PAPER) == 1.0).all()


@settings(deadline=None)
@given(st.integers(-700, 1500), st.integers(0, 1200))
def test_missing_columns_are_those_outside_the_stored_ones(first: int, stored: int) -> None:
    outside = [not 0 <= column < stored for column in range(first, first + PAPER.columns)]
    assert missing_columns(first, stored, PAPER) == sum(outside)


@pytest.mark.parametrize("first", [-100, 0, 20, 330, 400, -301, -500, 600, 631, -20])
@pytest.mark.parametrize("stored", [631, 40])
def test_columns_outside_the_sound_are_silence(first: int, stored: int) -> None:
    clip = np.arange(stored * PAPER.mels, dtype=np.float32).reshape(stored, PAPER.mels) % 97
    clip = clip.astype(np.float16)
    window = pad_window(clip[max(0, first) : max(0, first + PAPER.columns)], first, PAPER)
    assert window.shape == (PAPER.columns, PAPER.mels)
    for row, column in zip(window, range(first, first + PAPER.columns), strict=True):
        expected = clip[column] if 0 <= column < stored else np.full(PAPER.mels, FLOOR_DB)
        assert (row == expected).all()


def test_fingerprint_is_of_what_is_stored() -> None:
    """How a window is cut from it does not count."""
    fingerprint = PAPER.front_end_fingerprint()
    assert replace(PAPER, decibel="amplitude").front_end_fingerprint() == fingerprint
    assert replace(PAPER, window_seconds=2.0).front_end_fingerprint() == fingerprint
    changed = [
        replace(PAPER, **{key: getattr(PAPER, key) - 1}).front_end_fingerprint()
        for key in ("sample_rate_hz", "n_fft", "window_samples", "hop_samples", "mels")
    ]
    assert len({fingerprint, *changed}) == 6


@pytest.mark.parametrize(
    "wrong",
    [{"hop_samples": 0}, {"hop_samples": 883}, {"window_samples": 1025}, {"mels": 0},
     {"sample_rate_hz": 0}, {"window_seconds": 0.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="mel: .*" + next(iter(wrong))):
        replace(PAPER, **wrong)
