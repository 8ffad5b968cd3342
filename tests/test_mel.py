"""The stored log-mel, and windows cut from it against librosa's mel of just their seconds."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mel_fixtures import (
    CONFIGS,
    PAPER,
    STEP_DB,
    TOP_DB,
    Decibels,
    Samples,
    assert_same,
    decibels_of,
    librosa_decibels,
    librosa_input,
    scaled,
    sound,
)

from trimodal.core.config import ConfigError, parse_section
from trimodal.media.mel import (
    FLOOR_DB,
    MelConfig,
    StoredMel,
    concatenated,
    empty_mel,
    store_decibels,
)
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import (
    AudioFrontEnd,
    WindowConfig,
    missing_columns,
    window_decibels,
    window_first_column,
)


def read_window(stored: StoredMel, first: int, config: AudioFrontEnd) -> Decibels:
    """The window's decibels, from the stored columns that a loader reads."""
    start = min(max(first, 0), len(stored))
    stop = max(start, min(first + config.columns, len(stored)))
    return window_decibels(stored[start:stop], first, config)


def cut(stored: StoredMel, centre_seconds: float, config: AudioFrontEnd) -> Decibels:
    """The network's input."""
    return scaled(read_window(stored, window_first_column(centre_seconds, config), config), config)


def with_decibel(config: AudioFrontEnd, decibel: str) -> AudioFrontEnd:
    return replace(config, window=replace(config.window, decibel=decibel))


def test_three_seconds_are_128_by_301_at_the_papers_scale() -> None:
    stored = log_mel([sound(PAPER.mel, 3.0)], PAPER.mel)
    assert stored.codes.shape == (301, 128)
    assert stored.top_db.shape == (301,)
    assert (stored.codes.dtype, stored.top_db.dtype) == (np.uint8, np.dtype("<f2"))
    assert PAPER.columns == 301
    assert cut(stored, 1.5, PAPER).shape == (128, 301)


@settings(max_examples=30)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 6), st.just(128)),
        elements=st.floats(FLOOR_DB, 60.0, width=32),
    )
)  # fmt: skip
def test_a_byte_is_off_by_half_a_step_within_80_db_of_its_column(decibels: Decibels) -> None:
    """Lower values lie at the floor of any window that has the column, or just above it."""
    stored = store_decibels(decibels)
    assert (stored.codes.dtype, stored.top_db.dtype) == (np.uint8, np.dtype("<f2"))
    assert np.abs(stored.top_db.astype(np.float32) - decibels.max(axis=1)).max() <= TOP_DB
    top = decibels.max(axis=1, keepdims=True)
    shown = window_decibels(stored, 0, PAPER)[: len(decibels)]
    inside = decibels >= top - 80
    assert np.abs(shown - decibels)[inside].max() <= STEP_DB
    assert (shown - top)[~inside].max(initial=-80.0) <= -80 + STEP_DB + TOP_DB
    assert (stored.codes.max(axis=1) == 255).all()


@CONFIGS
@pytest.mark.parametrize("decibel", ["power", "amplitude"])
@pytest.mark.parametrize("frame", [4, 5])
def test_a_window_of_the_stored_mel_is_the_mel_of_just_those_three_seconds(
    config: AudioFrontEnd, decibel: str, frame: int
) -> None:
    """Except in its two edge columns: their analysis windows reach half a window beyond the three
    seconds, where the clip continues but a mel of just these seconds has padding.
    """
    config = with_decibel(config, decibel)
    samples = sound(config.mel, 10.0)
    ours = cut(log_mel([samples], config.mel), frame - 0.5, config)
    start = (frame - 2) * config.mel.sample_rate_hz
    own = librosa_input(samples[start : start + 3 * config.mel.sample_rate_hz], config)
    assert ours.shape == own.shape == (config.mel.mels, config.columns)
    assert ours.dtype == np.float32
    tolerance = (STEP_DB + TOP_DB) * (2 if decibel == "amplitude" else 1) / 40
    np.testing.assert_allclose(ours[:, 1:-1], own[:, 1:-1], rtol=0, atol=tolerance)
    assert np.abs(ours[:, [0, -1]] - own[:, [0, -1]]).max() > 2 * tolerance


def quiet_after_loud(config: MelConfig) -> Samples:
    """Seconds 3 to 6 are 60 dB below the clip's maximum."""
    samples = sound(config, 10.0)
    samples[3 * config.sample_rate_hz : 6 * config.sample_rate_hz] *= 1e-3
    samples[7 * config.sample_rate_hz :] *= 2
    return samples


def tones(config: MelConfig) -> Samples:
    time = np.arange(10 * config.sample_rate_hz) / config.sample_rate_hz
    pitches = (60 * 2 ** (np.floor(time * 4) / 6) * time) % 1
    return np.sin(2 * np.pi * pitches).astype(np.float32)


def white_noise(config: MelConfig) -> Samples:
    return np.random.default_rng(5).normal(0, 0.2, 10 * config.sample_rate_hz).astype(np.float32)


@CONFIGS
@pytest.mark.parametrize("make", [sound, tones, white_noise, quiet_after_loud])
def test_a_windows_decibels_are_off_by_a_sixth_at_most(config: AudioFrontEnd, make: object) -> None:
    """Within 80 dB of the window's maximum, against the mel of just its three seconds."""
    samples = sound(config.mel, 10.0) if make is sound else make(config.mel)  # type: ignore[operator]
    stored = log_mel([samples], config.mel)
    for frame in range(2, 10):
        start = (frame - 2) * config.mel.sample_rate_hz
        own = librosa_decibels(samples[start : start + 3 * config.mel.sample_rate_hz], config.mel)[
            1:-1
        ]
        ours = read_window(stored, window_first_column(frame - 0.5, config), config)[1:-1]
        top = own.max()
        assert ours.max() == pytest.approx(top, abs=TOP_DB)
        audible = own > max(top - 80, FLOOR_DB)
        assert audible.mean() > 0.05
        # librosa's float32 spectra differ from ours about 100 dB below the maximum.
        assert np.abs(ours - own)[audible & (own > top - 60)].max() <= STEP_DB + 0.01
        assert np.abs(np.maximum(ours, top - 80) - np.maximum(own, top - 80)).max() <= 0.25


def test_input_spans_minus_1_to_1_with_its_maximum_at_1() -> None:
    shown = cut(log_mel([sound(PAPER.mel, 10.0)], PAPER.mel), 4.5, PAPER)
    assert shown.max() == 1.0
    assert -1.0 <= shown.min() < -0.5
    decibels = np.array([[0.0, -40.0, -80.0, -90.0]], np.float16)
    assert scaled(decibels, PAPER).T.tolist() == [[1.0, 0.0, -1.0, -1.0]]
    assert scaled(decibels + np.float16(10), PAPER).T.tolist() == [[1.0, 0.0, -1.0, -1.0]]


def test_amplitude_decibels_keep_only_the_top_40_db_of_power() -> None:
    decibels = np.array([[20.0, 0.0, -20.0, -30.0, -90.0]], np.float16)
    doubled = scaled(decibels, with_decibel(PAPER, "amplitude"))
    assert doubled.T.tolist() == [[1.0, 0.0, -1.0, -1.0, -1.0]]


@pytest.mark.parametrize("decibel", ["power", "amplitude"])
@pytest.mark.parametrize("gain", [0.02, 1e-3, 1e-4, 0.0])
def test_quiet_audio_and_silence_equal_librosas(gain: float, decibel: str) -> None:
    """Both decibels have an absolute floor: -100 dB of power, -50 dB for the doubled ones."""
    config = with_decibel(PAPER, decibel)
    tolerance = (STEP_DB + TOP_DB) * (2 if decibel == "amplitude" else 1) / 40
    samples = sound(config.mel, 3.0, gain=gain)
    ours = cut(log_mel([samples], config.mel), 1.5, config)
    np.testing.assert_allclose(ours, librosa_input(samples, config), rtol=0, atol=tolerance)


def test_silence_is_finite_and_constant() -> None:
    stored = log_mel([np.zeros(3 * 44_100, np.float32)], PAPER.mel)
    assert (stored.top_db == FLOOR_DB).all()
    assert (decibels_of(stored, PAPER) == FLOOR_DB).all()
    for first in (-250, 0, 250):
        assert (scaled(read_window(stored, first, PAPER), PAPER) == 1.0).all()


@given(st.integers(-700, 1500), st.integers(0, 1200))
def test_missing_columns_are_those_outside_the_stored_ones(first: int, stored: int) -> None:
    outside = [not 0 <= column < stored for column in range(first, first + PAPER.columns)]
    assert missing_columns(first, stored, PAPER) == sum(outside)


@pytest.mark.parametrize("first", [-100, 0, 20, 330, 400, -301, -500, 600, 631, -20])
@pytest.mark.parametrize("stored", [631, 40])
def test_columns_outside_the_clip_are_silence(first: int, stored: int) -> None:
    clip = np.random.default_rng(2).uniform(-90, 20, (stored, PAPER.mel.mels)).astype(np.float32)
    columns = store_decibels(clip)
    window = read_window(columns, first, PAPER)
    assert window.shape == (PAPER.columns, PAPER.mel.mels)
    stored_decibels = decibels_of(columns, PAPER)
    for row, column in zip(window, range(first, first + PAPER.columns), strict=True):
        expected = (
            stored_decibels[column] if 0 <= column < stored else np.full(PAPER.mel.mels, FLOOR_DB)
        )
        assert (row == expected).all()


def test_parts_of_a_stored_mel_join_to_it() -> None:
    clip = np.random.default_rng(4).uniform(-90, 20, (50, PAPER.mel.mels)).astype(np.float32)
    stored = store_decibels(clip)
    assert len(stored[10:35]) == 25
    joined = concatenated([stored[:10], empty_mel(PAPER.mel), stored[10:35], stored[35:]])
    assert len(joined) == 50
    assert_same(joined, stored)


def test_fingerprint_covers_the_stored_form() -> None:
    """How a window is cut from it does not count: section ``window`` is not part of it."""
    mel = PAPER.mel
    fingerprint = mel.front_end_fingerprint()
    changed = [
        replace(mel, **{key: getattr(mel, key) - 2}).front_end_fingerprint()
        for key in ("sample_rate_hz", "n_fft", "window_samples", "hop_samples", "mels")
    ]
    assert len({fingerprint, *changed}) == 6


@pytest.mark.parametrize(
    "wrong",
    [{"hop_samples": 0}, {"hop_samples": 883}, {"window_samples": 1025}, {"mels": 0},
     {"sample_rate_hz": 0}, {"n_fft": 0}, {"sample_rate_hz": 11_025}, {"n_fft": 1025}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="^mel[:.].*" + next(iter(wrong))):
        parse_section(asdict(PAPER.mel) | wrong, "mel", MelConfig)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": -3.0}, {"decibel": "db"}])
def test_windows_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"^window\.{next(iter(wrong))}: "):
        parse_section(asdict(PAPER.window) | wrong, "window", WindowConfig)
