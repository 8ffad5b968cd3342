"""A clip's log-mel from its audio, block by block (docs/method.md, Data).

Periodic Hann windows, centred, with zeros beyond both ends; Slaney's mel scale and norm, librosa's
defaults.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse
from jaxtyping import Float
from librosa.filters import mel as mel_filters

from trimodal.media.mel import FLOOR_DB, MelConfig, StoredMel, concatenated, store_decibels

_BLOCK_COLUMNS = 256  # so that intermediate results fit into the processor's cache


def log_mel(blocks: Iterable[Float[np.ndarray, " _"]], config: MelConfig) -> StoredMel:
    """The stored log-mel of an audio track in blocks of float32 samples: 1 + samples // hop
    columns. Needs little more memory than its result.
    """
    segments = _segments(blocks, config)
    return concatenated([store_decibels(_decibels(part, config)) for part in segments])


def _segments(
    blocks: Iterable[Float[np.ndarray, " _"]], config: MelConfig
) -> Iterator[npt.NDArray[np.float32]]:
    """The zero-padded audio in overlapping segments of whole columns."""
    edge = np.zeros(config.n_fft // 2, np.float32)
    overlap = config.n_fft - config.hop_samples
    buffered, size = [edge], len(edge)
    for block in blocks:
        buffered.append(block)
        size += len(block)
        columns = (size - overlap) // config.hop_samples
        if columns >= _BLOCK_COLUMNS:
            samples = np.concatenate(buffered)
            yield samples[: overlap + columns * config.hop_samples]
            buffered = [samples[columns * config.hop_samples :]]
            size = len(buffered[0])
    samples = np.concatenate([*buffered, edge])
    if len(samples) >= config.n_fft:
        yield samples


def _decibels(
    samples: npt.NDArray[np.float32], config: MelConfig
) -> Float[np.ndarray, "columns mels"]:
    """The decibels of power, float32, of all whole columns in the samples."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, config.n_fft)
    spectrum = scipy.fft.rfft(frames[:: config.hop_samples] * _window(config), workers=1)
    power = spectrum.real**2 + spectrum.imag**2
    mels = (_filters(config) @ power.T).T
    floor = np.float32(10 ** (FLOOR_DB / 10))
    decibels: npt.NDArray[np.float32] = 10 * np.log10(np.maximum(mels, floor))
    return decibels


@lru_cache(maxsize=4)
def _window(config: MelConfig) -> npt.NDArray[np.float32]:
    window = np.zeros(config.n_fft, np.float32)
    first = (config.n_fft - config.window_samples) // 2
    window[first : first + config.window_samples] = np.hanning(config.window_samples + 1)[:-1]
    return window


@lru_cache(maxsize=4)
def _filters(config: MelConfig) -> scipy.sparse.csr_matrix:
    """Slaney's triangular filters, (mels, n_fft // 2 + 1); rows are mostly zeros."""
    return scipy.sparse.csr_matrix(
        mel_filters(sr=config.sample_rate_hz, n_fft=config.n_fft, n_mels=config.mels)
    )
