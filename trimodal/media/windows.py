"""Windows of a few seconds, cut from a stored log-mel and scaled for the audio network.

A window is referenced to its own maximum when it is cut (docs/method.md, Data).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float16, UInt8
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.core.timing import first_column, window_columns
from trimodal.media.mel import DEPTH_DB, FLOOR_DB, STEP_DB, MelConfig, StoredMel

SILENCE_TOP_DB = FLOOR_DB + DEPTH_DB
_BLOCK_VALUES = 2**17  # computed together, few enough for the processor's cache
_AMPLITUDE_FLOOR_DB = -50.0  # amplitude_to_db's amin, 1e-5, applied to a *power* mel


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class WindowConfig:
    """Section ``window``. ``decibel`` is ``power`` (10 log10 of the power mel) or ``amplitude``,
    the authors' doubled decibels (20 log10 of it, so that only the top 40 dB survive the floor).
    """

    seconds: PositiveFloat
    decibel: Literal["power", "amplitude"]


@dataclass(frozen=True, kw_only=True)
class AudioFrontEnd:
    """Sections ``mel`` and ``window``: how audio becomes the audio network's input."""

    mel: MelConfig
    window: WindowConfig

    @property
    def columns(self) -> int:
        """Mel columns of one window, both edges included."""
        return window_columns(self.window.seconds, self.mel.hop_seconds)


def window_decibels(
    part: StoredMel, first: int, front_end: AudioFrontEnd
) -> Float[np.ndarray, "columns mels"]:
    """The decibels, float32, of the window that begins at column ``first``, given ``part``, its
    stored columns; silence where it reaches beyond the clip.
    """
    window = np.empty((front_end.columns, front_end.mel.mels), np.float32)
    before = min(max(0, -first), front_end.columns)
    end = before + len(part)
    window[:before] = window[end:] = FLOOR_DB
    inside = np.multiply(part.codes, np.float32(STEP_DB), out=window[before:end])
    inside += (part.top_db.astype(np.float32) - np.float32(DEPTH_DB))[:, None]
    return window


def windows_of_codes(
    codes: UInt8[np.ndarray, "windows columns mels"],
    top_db: Float16[np.ndarray, "windows columns"],
    front_end: AudioFrontEnd,
) -> Float[np.ndarray, "windows mels columns"]:
    """The network's inputs (:func:`scale_windows`) from stored columns; silence is a code of 0 and
    ``top_db`` :data:`SILENCE_TOP_DB`.
    """
    decibels = np.empty(codes.shape, np.float32)
    block_windows = max(1, _BLOCK_VALUES // codes[0].size)
    for first in range(0, len(codes), block_windows):
        block = slice(first, first + block_windows)
        part = np.multiply(codes[block], np.float32(STEP_DB), out=decibels[block])
        part += (top_db[block].astype(np.float32) - np.float32(DEPTH_DB))[..., None]
        scale_windows(part, front_end)
    return decibels.swapaxes(1, 2)


def window_first_column(centre_seconds: float, front_end: AudioFrontEnd) -> int:
    """The stored column at which the window around ``centre_seconds`` begins; may be negative."""
    return first_column(centre_seconds, front_end.window.seconds, front_end.mel.hop_seconds)


def missing_columns(first: int, stored: int, front_end: AudioFrontEnd) -> int:
    """The number of columns of a window starting at ``first`` that lie outside the stored ones."""
    inside = max(0, min(first + front_end.columns, stored) - max(first, 0))
    return front_end.columns - inside


def scale_windows(
    decibels: Float[np.ndarray, "windows columns mels"], front_end: AudioFrontEnd
) -> Float[np.ndarray, "windows mels columns"]:
    """The network's inputs: dB relative to the window's maximum, floor -80, then (x + 40) / 40.

    Values lie in [-1, 1]. The result is a view of ``decibels``, which is changed in place.
    """
    if front_end.window.decibel == "amplitude":
        np.maximum(decibels, np.float32(_AMPLITUDE_FLOOR_DB), out=decibels)
        decibels *= np.float32(2)
    decibels -= decibels.max(axis=(1, 2), keepdims=True)
    np.maximum(decibels, np.float32(-DEPTH_DB), out=decibels)
    decibels += np.float32(DEPTH_DB / 2)
    decibels /= np.float32(DEPTH_DB / 2)
    return decibels.swapaxes(1, 2)
