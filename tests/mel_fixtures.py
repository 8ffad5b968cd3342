"""Test audio, and its mels as librosa and the authors compute them."""

import librosa
import numpy as np
import numpy.typing as npt
import pytest
from configs import front_end_for_tests

from trimodal.media.mel import MelConfig, StoredMel
from trimodal.media.windows import AudioFrontEnd, scale_windows, window_decibels

Samples = npt.NDArray[np.float32]
Decibels = npt.NDArray[np.float32]

PAPER = front_end_for_tests(
    sample_rate_hz=44_100, n_fft=1024, window_samples=882, hop_samples=441, mels=128
)
DEMO = front_end_for_tests()
CONFIGS = pytest.mark.parametrize("config", [PAPER, DEMO], ids=["paper", "demo"])
STEP_DB = 0.158  # half a step of a code, plus float32 rounding
TOP_DB = 0.032  # half a float16 step of a column's maximum below -64 dB


def sound(config: MelConfig, seconds: float, *, gain: float = 1.0) -> Samples:
    """Tones and noise; louder around second 4.7, so that no edge holds a window's maximum."""
    time = np.arange(round(seconds * config.sample_rate_hz)) / config.sample_rate_hz
    noise = np.random.default_rng(3).standard_normal(len(time))
    tones = np.sin(2 * np.pi * 440 * time) + 0.3 * np.sin(2 * np.pi * 3_000 * time)
    loudness = 0.05 + 0.5 * np.exp(-(((time - 4.7) / 0.3) ** 2))
    return (gain * loudness * (tones + 0.1 * noise)).astype(np.float32)


def scaled(decibels: Decibels, config: AudioFrontEnd) -> Decibels:
    """A window's decibels, (columns, mels), as the network's input, beside a louder window."""
    both = np.stack([decibels, decibels + 7]).astype(np.float32)
    return scale_windows(both, config)[0]


def decibels_of(stored: StoredMel, config: AudioFrontEnd) -> Decibels:
    """All stored columns' decibels, (columns, mels)."""
    parts = [
        window_decibels(stored[first : first + config.columns], 0, config)
        for first in range(0, len(stored), config.columns)
    ]
    return np.concatenate(parts)[: len(stored)]


def assert_same(first: StoredMel, second: StoredMel) -> None:
    """Bit by bit."""
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.top_db, second.top_db)


def librosa_power_mel(samples: Samples, config: MelConfig) -> npt.NDArray[np.float32]:
    return librosa.feature.melspectrogram(
        y=samples, sr=config.sample_rate_hz, n_fft=config.n_fft, hop_length=config.hop_samples,
        win_length=config.window_samples, n_mels=config.mels, power=2.0,
    )  # fmt: skip


def librosa_decibels(samples: Samples, config: MelConfig) -> Decibels:
    """(columns, mels), without a reference."""
    return librosa.power_to_db(librosa_power_mel(samples, config), top_db=None).T


def librosa_input(samples: Samples, config: AudioFrontEnd) -> npt.NDArray[np.float32]:
    """The authors' network input for exactly these samples."""
    to_db = {"power": librosa.power_to_db, "amplitude": librosa.amplitude_to_db}[
        config.window.decibel
    ]
    decibels = to_db(librosa_power_mel(samples, config.mel), ref=np.max, top_db=80)
    return (decibels + 40) / 40
