"""The one mel front-end: a clip's log-mel is stored once, three-second windows are views of it.

Stored are decibels of power without a reference, so that any window can be referenced to its own
maximum when it is cut (paper.md, Data, row 'mel'); trimodal.media.spectrogram computes them. A byte
holds one: so many steps below the loudest of its column. What lies 80 dB below it is under the
floor of every window that has the column.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from trimodal.core.fingerprint import fingerprint
from trimodal.core.timing import first_column, window_columns

_AMPLITUDE_FLOOR_DB = -50.0  # librosa's amin of amplitude_to_db, 1e-5, met by a *power* mel
FLOOR_DB = -100.0  # librosa's amin of power_to_db, 1e-10
_DEPTH_DB = 80.0  # of a window below its loudest (paper.md, Data, row 'mel')
STEP_DB = _DEPTH_DB / 255
MASK_CHANCES = 4


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

    @property
    def column_type(self) -> np.dtype[np.void]:
        """A stored column: its loudest ``top_db`` (dB of power) and for each mel a code c, which
        stands for ``top_db - (255 - c) * STEP_DB``.
        """
        return np.dtype([("top_db", "<f2"), ("codes", "u1", (self.mels,))])

    def front_end_fingerprint(self) -> str:
        """Identifies what is *stored*; how a window is cut from it (``decibel``) does not count."""
        stored: dict[str, object] = asdict(self)
        del stored["decibel"], stored["window_seconds"]
        return fingerprint(stored | {"step_db": STEP_DB})


def store_decibels(
    decibels: Float[np.ndarray, "columns mels"], config: MelConfig
) -> Shaped[np.ndarray, " columns"]:
    """Columns as they are stored, (columns,) of ``config.column_type``: within 80 dB of the
    loudest at most 0.16 dB off, and the loudest at most 0.031 (its half precision).
    """
    columns = np.empty(len(decibels), config.column_type)
    columns["top_db"] = decibels.max(axis=1)
    above = decibels - columns["top_db"].astype(np.float32)[:, None]
    columns["codes"] = np.clip(np.rint(above / np.float32(STEP_DB)) + 255, 0, 255)
    return columns


def window_decibels(
    part: Shaped[np.ndarray, " stored"], first: int, config: MelConfig
) -> Float[np.ndarray, "columns mels"]:
    """The decibels of the window that begins at column ``first``, float32, from those of its
    columns that are stored; silence where it reaches beyond them.
    """
    window = np.empty((config.columns, config.mels), np.float32)
    before = min(max(0, -first), config.columns)
    behind = before + len(part)
    window[:before] = window[behind:] = FLOOR_DB
    inside = np.multiply(part["codes"], np.float32(STEP_DB), out=window[before:behind])
    inside += (part["top_db"].astype(np.float32) - np.float32(_DEPTH_DB))[:, None]
    return window


def window_first_column(centre_seconds: float, config: MelConfig) -> int:
    """The stored column at which the window centred on a second begins; may be negative."""
    return first_column(centre_seconds, config.window_seconds, config.hop_seconds)


def missing_columns(first: int, stored: int, config: MelConfig) -> int:
    """How many columns of a window that begins at ``first`` lie outside the stored ones."""
    inside = max(0, min(first + config.columns, stored) - max(first, 0))
    return config.columns - inside


def scale_windows(
    decibels: Float[np.ndarray, "windows columns mels"], config: MelConfig
) -> Float[np.ndarray, "windows mels columns"]:
    """The network's inputs: dB relative to the window's maximum, floor -80, then (x + 40) / 40.

    Values lie in [-1, 1]; float32, (windows, mels, columns), a view of the given array, whose
    numbers change.
    """
    if config.decibel == "amplitude":
        np.maximum(decibels, np.float32(_AMPLITUDE_FLOOR_DB), out=decibels)
        decibels *= np.float32(2)
    decibels -= decibels.max(axis=(1, 2), keepdims=True)
    np.maximum(decibels, np.float32(-_DEPTH_DB), out=decibels)
    decibels += np.float32(_DEPTH_DB / 2)
    decibels /= np.float32(_DEPTH_DB / 2)
    return decibels.swapaxes(1, 2)


def mask_windows(
    windows: Float[np.ndarray, "windows mels columns"],
    chances: Float[np.ndarray, "windows MASK_CHANCES"],
    *,
    most_columns: int,
    most_mels: int,
) -> None:
    """Sets up to so many successive columns and mels of each window, in place, to its mean (Park et
    al. 2019, SpecAugment, 2: one mask of time and one of frequency, no warping). The numbers in
    [0, 1) decide both masks' widths and places.
    """
    mels, columns = windows.shape[1:]
    for window, (width, start, height, low) in zip(windows, chances.tolist(), strict=True):
        mean = window.mean()
        wide = int(width * (min(most_columns, columns) + 1))
        first = int(start * (columns - wide + 1))
        window[:, first : first + wide] = mean
        high = int(height * (min(most_mels, mels) + 1))
        bottom = int(low * (mels - high + 1))
        window[bottom : bottom + high] = mean
