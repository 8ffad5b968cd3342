"""How a clip's log-mel is stored: once per clip; windows are cut from it (trimodal.media.windows).

It holds decibels of power without a reference, so that any window can be referenced to its own
maximum when it is cut (docs/method.md, Data); trimodal.media.spectrogram computes them. Each value
is one byte, in steps below the maximum of its column. A value 80 dB below that maximum is under the
floor of every window that contains the column.
"""

from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Shaped
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.core.fingerprint import fingerprint

FLOOR_DB = -100.0  # librosa's amin of power_to_db, 1e-10
DEPTH_DB = 80.0  # a window's range below its maximum (docs/method.md, Data)
STEP_DB = DEPTH_DB / 255


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class MelConfig:
    """Section ``mel``: the stored log-mel of a whole clip."""

    sample_rate_hz: PositiveInt
    n_fft: PositiveInt
    window_samples: PositiveInt
    hop_samples: PositiveInt
    mels: PositiveInt

    def __post_init__(self) -> None:
        if not self.hop_samples <= self.window_samples <= self.n_fft:
            raise ValueError("need hop_samples <= window_samples <= n_fft")

    @property
    def hop_seconds(self) -> float:
        """Time from one mel column to the next."""
        return self.hop_samples / self.sample_rate_hz

    @property
    def column_type(self) -> np.dtype[np.void]:
        """A stored column: its maximum ``top_db`` (dB of power) and a code c per mel, which stands
        for ``top_db - (255 - c) * STEP_DB``.
        """
        return np.dtype([("top_db", "<f2"), ("codes", "u1", (self.mels,))])

    def front_end_fingerprint(self) -> str:
        """Identifies the stored form: this section and the step of the codes."""
        return fingerprint({**asdict(self), "step_db": STEP_DB})


def store_decibels(
    decibels: Float[np.ndarray, "columns mels"], config: MelConfig
) -> Shaped[np.ndarray, " columns"]:
    """The stored form, (columns,) of ``config.column_type``. The error is at most 0.16 dB within
    80 dB of a column's maximum, and 0.031 dB for the maximum itself (half precision).
    """
    columns = np.empty(len(decibels), config.column_type)
    columns["top_db"] = decibels.max(axis=1)
    relative = decibels - columns["top_db"].astype(np.float32)[:, None]
    columns["codes"] = np.clip(np.rint(relative / np.float32(STEP_DB)) + 255, 0, 255)
    return columns
