"""How a clip's log-mel is stored: once per clip; windows are cut from it (trimodal.media.windows).

It holds decibels of power without a reference, so that any window can be referenced to its own
maximum when it is cut (docs/method.md, Data); trimodal.media.spectrogram computes them. Each value
is one byte, in steps below the maximum of its column. A value 80 dB below that maximum is under the
floor of every window that contains the column.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Float16, UInt8
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.core.fingerprint import fingerprint

FLOOR_DB = -100.0  # librosa's amin of power_to_db, 1e-10
DEPTH_DB = 80.0  # a window's range below its maximum (docs/method.md, Data)
STEP_DB = DEPTH_DB / 255


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class MelConfig:
    """Section ``mel``: the stored log-mel of a whole clip. torchaudio rounds half an odd
    ``sample_rate_hz`` or ``n_fft``, which moves its filters; both are even.
    """

    sample_rate_hz: PositiveInt
    n_fft: PositiveInt
    window_samples: PositiveInt
    hop_samples: PositiveInt
    mels: PositiveInt

    def __post_init__(self) -> None:
        if not self.hop_samples <= self.window_samples <= self.n_fft:
            raise ValueError("need hop_samples <= window_samples <= n_fft")
        if self.sample_rate_hz % 2 or self.n_fft % 2:
            raise ValueError("sample_rate_hz and n_fft must be even")

    @property
    def hop_seconds(self) -> float:
        """Time from one mel column to the next."""
        return self.hop_samples / self.sample_rate_hz

    def front_end_fingerprint(self) -> str:
        """Identifies the stored form: this section and the step of the codes."""
        return fingerprint({**asdict(self), "step_db": STEP_DB})


@dataclass(frozen=True)
class StoredMel:
    """A log-mel in stored form, or some consecutive columns of one: the maximum of each column in
    dB of power, and a code c for each value, which stands for ``top_db - (255 - c) * STEP_DB``.
    """

    codes: UInt8[np.ndarray, "columns mels"]
    top_db: Float16[np.ndarray, " columns"]

    def __len__(self) -> int:
        """The number of columns."""
        return len(self.top_db)

    def __getitem__(self, columns: slice) -> "StoredMel":
        return StoredMel(self.codes[columns], self.top_db[columns])


def empty_mel(config: MelConfig) -> StoredMel:
    """The stored form of no audio: no columns."""
    return StoredMel(np.empty((0, config.mels), np.uint8), np.empty(0, "<f2"))


def store_decibels(decibels: Float[np.ndarray, "columns mels"]) -> StoredMel:
    """The stored form. The error is at most 0.16 dB within 80 dB of a column's maximum, and
    0.031 dB for the maximum itself (half precision).
    """
    top_db = decibels.max(axis=1).astype("<f2")
    relative = decibels - top_db.astype(np.float32)[:, None]
    codes = np.clip(np.rint(relative / np.float32(STEP_DB)) + 255, 0, 255)
    return StoredMel(codes.astype(np.uint8, order="C"), top_db)


def concatenated(parts: Sequence[StoredMel]) -> StoredMel:
    """Parts of one log-mel, joined; at least one."""
    return StoredMel(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.top_db for part in parts]),
    )
