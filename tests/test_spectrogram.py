"""The log-mel of audio in blocks equals librosa's, however it is split."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mel_fixtures import (
    CONFIGS,
    DEMO,
    PAPER,
    STEP_DB,
    TOP_DB,
    Decibels,
    Samples,
    assert_same,
    decibels_of,
    librosa_decibels,
    sound,
)

from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import AudioFrontEnd

SMALL = replace(DEMO.mel, n_fft=64, window_samples=40, hop_samples=16, mels=8)


def assert_near(ours: Decibels, theirs: Decibels) -> None:
    """Each column to half a step in its top 60 dB, and to a quarter decibel in the next 20."""
    assert ours.shape == theirs.shape
    top = theirs.max(axis=1, keepdims=True)
    assert np.abs(ours.max(axis=1, keepdims=True) - top).max() <= TOP_DB
    assert np.abs(ours - theirs)[theirs > top - 60].max() <= STEP_DB + 0.01
    assert np.abs(np.maximum(ours, top - 80) - np.maximum(theirs, top - 80)).max() <= 0.25


@CONFIGS
@pytest.mark.parametrize("gain", [1.0, 0.001])
def test_log_mel_equals_librosas(config: AudioFrontEnd, gain: float) -> None:
    mel = config.mel
    samples = sound(mel, 6.0, gain=gain)
    stored = log_mel([samples], mel)
    assert len(stored) == 1 + len(samples) // mel.hop_samples
    assert_near(decibels_of(stored, config), librosa_decibels(samples, mel))


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_other_sample_rates_equal_librosas(rate_hz: int) -> None:
    config = replace(PAPER, mel=replace(PAPER.mel, sample_rate_hz=rate_hz, mels=40))
    samples = sound(config.mel, 6.0)
    stored = log_mel([samples], config.mel)
    assert_near(decibels_of(stored, config), librosa_decibels(samples, config.mel))


@pytest.mark.parametrize("window", [501, 1024])
def test_other_windows_equal_librosas(window: int) -> None:
    config = replace(DEMO, mel=replace(DEMO.mel, n_fft=1024, window_samples=window))
    samples = sound(config.mel, 6.0)
    stored = log_mel([samples], config.mel)
    assert_near(decibels_of(stored, config), librosa_decibels(samples, config.mel))


@settings(max_examples=30)
@given(
    st.integers(0, 9000),
    st.lists(st.one_of(st.integers(0, 70), st.integers(0, 9000)), max_size=60),
)
@example(0, [])
@example(1, [1])
@example(9000, list(range(0, 9000, 16)))
@example(300, list(range(301)))
@example(8000, [0, 1, 2, 63, 64, 65, 4096, 4097])
def test_blocks_of_any_sizes_give_the_same_columns(length: int, cuts: list[int]) -> None:
    samples = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    edges = sorted({0, length, *(c for c in cuts if c < length)})
    blocks = [samples[first:stop] for first, stop in pairwise(edges)]
    stored = log_mel(blocks, SMALL)
    assert len(stored) == 1 + length // 16
    assert_same(stored, log_mel([samples], SMALL))


@CONFIGS
@pytest.mark.parametrize("block", [997, 16_000, 44_100])
def test_a_clip_in_blocks_gives_the_mel_of_the_whole(config: AudioFrontEnd, block: int) -> None:
    samples = sound(config.mel, 12.3)
    blocks = [samples[start : start + block] for start in range(0, len(samples), block)]
    assert_same(log_mel(blocks, config.mel), log_mel([samples], config.mel))


@CONFIGS
@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("hops", [0, 1, 2, 3, 255, 256, 257])
def test_there_is_one_column_plus_one_per_hop(config: AudioFrontEnd, hops: int, extra: int) -> None:
    length = max(0, hops * config.mel.hop_samples + extra)
    samples = sound(config.mel, 6.0)[:length]
    assert len(log_mel([samples], config.mel)) == 1 + length // config.mel.hop_samples


def test_blocks_are_released() -> None:
    """Six minutes are 63 MB of samples and 18 MB of decibels; their mel is 4.7 MB. PyTorch's memory
    counts as well, which tracemalloc does not see.
    """
    process = psutil.Process()
    log_mel([np.zeros(441_000, np.float32)], PAPER.mel)
    sizes: list[int] = []

    def blocks() -> Iterator[Samples]:
        for second in range(360):
            sizes.append(process.memory_info().rss)
            yield np.random.default_rng(second).normal(0, 0.1, 44_100).astype(np.float32)

    tracemalloc.start()
    try:
        stored = log_mel(blocks(), PAPER.mel)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    stored_bytes = stored.codes.nbytes + stored.top_db.nbytes
    assert stored_bytes > 4_600_000
    assert peak < 2 * stored_bytes + 10_000_000
    assert max(sizes) - sizes[0] < 2 * stored_bytes + 10_000_000
