"""The one mel front-end: a clip's log-mel is stored once, three-second windows are views of it.

Stored are decibels of power without a reference, so that any window can be referenced to its own
maximum when it is cut (paper.md, Data, row 'mel').
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torchaudio.transforms import MelSpectrogram

from trimodal.files import fingerprint
from trimodal.timing import first_column, window_columns

_POWER_FLOOR = 1e-10  # librosa's amin of power_to_db: -100 dB
_AMPLITUDE_FLOOR_DB = -50.0  # librosa's amin of amplitude_to_db, 1e-5, met by a *power* mel
FLOOR_DB = -100.0


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Section ``mel``. ``decibel`` is ``power`` (10 log10 of the power mel) or ``amplitude``, the
    authors' doubled decibels (20 log10 of it, so that only the top 40 dB survive the floor).
    """

    sample_rate_hz: int
    n_fft: int
    window_samples: int
    hop_samples: int
    mels: int
    window_seconds: float
    decibel: Literal["power", "amplitude"]

    def __post_init__(self) -> None:
        if not 0 < self.hop_samples <= self.window_samples <= self.n_fft:
            raise ValueError("mel: need 0 < hop_samples <= window_samples <= n_fft")
        if self.mels < 1 or self.sample_rate_hz < 1 or self.window_seconds <= 0:
            raise ValueError("mel: mels, sample_rate_hz and window_seconds must be positive")

    @property
    def hop_seconds(self) -> float:
        """Time from one mel column to the next."""
        return self.hop_samples / self.sample_rate_hz

    @property
    def columns(self) -> int:
        """Columns of one window, both edges included."""
        return window_columns(self.window_seconds, self.hop_seconds)

    def front_end_fingerprint(self) -> str:
        """Identifies what is *stored*; how a window is cut from it (``decibel``) does not count."""
        stored = asdict(self)
        del stored["decibel"], stored["window_seconds"]
        return fingerprint(stored)


@lru_cache(maxsize=4)
def _transform(config: MelConfig) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=config.sample_rate_hz,
        n_fft=config.n_fft,
        win_length=config.window_samples,
        hop_length=config.hop_samples,
        n_mels=config.mels,
        power=2.0,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )


def log_mel(
    samples: Float[np.ndarray, " samples"], config: MelConfig
) -> Float[np.ndarray, "columns mels"]:
    """Log-mel of a whole sound track: (1 + samples // hop, mels), float16 dB of power.

    Half precision is at most 0.031 dB off above -64 dB of power and 0.063 dB off below.
    """
    with torch.inference_mode():
        power = _transform(config)(torch.from_numpy(samples.astype(np.float32)))
        decibels = 10.0 * torch.log10(power.clamp_min(_POWER_FLOOR))
    return np.ascontiguousarray(decibels.T.numpy(), np.float16)


def window_first_column(centre_seconds: float, config: MelConfig) -> int:
    """The stored column at which the window centred on a second begins; may be negative."""
    return first_column(centre_seconds, config.window_seconds, config.hop_seconds)


def missing_columns(first: int, stored: int, config: MelConfig) -> int:
    """How many columns of a window that begins at ``first`` lie outside the stored ones."""
    inside = max(0, min(first + config.columns, stored) - max(first, 0))
    return config.columns - inside


def pad_window(
    part: npt.NDArray[np.float16], first: int, config: MelConfig
) -> npt.NDArray[np.float16]:
    """Completes the stored part of a window that begins at column ``first`` with silence."""
    before = min(max(0, -first), config.columns)
    after = config.columns - before - len(part)
    return np.pad(part, ((before, after), (0, 0)), constant_values=FLOOR_DB)


def scale_window(
    decibels: Float[np.ndarray, "columns mels"], config: MelConfig
) -> Float[np.ndarray, "mels columns"]:
    """The network's input: dB relative to the window's maximum, floor -80, then (x + 40) / 40.

    Values lie in [-1, 1]; float32, (mels, columns).
    """
    window = decibels.astype(np.float32)
    if config.decibel == "amplitude":
        window = np.float32(2.0) * np.maximum(window, np.float32(_AMPLITUDE_FLOOR_DB))
    window = np.maximum(window - window.max(), np.float32(-80.0))
    return np.ascontiguousarray(((window + np.float32(40.0)) / np.float32(40.0)).T)
