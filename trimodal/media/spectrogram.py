"""A clip's log-mel from its audio, block by block (docs/method.md, Data): torchaudio's transform
with librosa's defaults, which are periodic Hann windows, centred, zeros beyond both ends, and
Slaney's mel scale and norm.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torchaudio.functional import amplitude_to_DB
from torchaudio.transforms import MelSpectrogram

from trimodal.media.mel import FLOOR_DB, MelConfig, StoredMel, concatenated, store_decibels

_SEGMENT_COLUMNS = 256  # so that intermediate results fit into the processor's cache


def log_mel(blocks: Iterable[Float[np.ndarray, " _"]], config: MelConfig) -> StoredMel:
    """The stored log-mel of an audio track in blocks of float32 samples: 1 + samples // hop
    columns. Needs little more memory than its result, which does not depend on how long the blocks
    are.
    """
    segments = _segments(blocks, config)
    return concatenated([store_decibels(_decibels(part, config)) for part in segments])


def _segments(
    blocks: Iterable[Float[np.ndarray, " _"]], config: MelConfig
) -> Iterator[npt.NDArray[np.float32]]:
    """The zero-padded audio in overlapping segments of _SEGMENT_COLUMNS columns, the last of fewer.
    The next one is written over the last one's samples.
    """
    overlap = config.n_fft - config.hop_samples
    buffer = np.zeros(overlap + _SEGMENT_COLUMNS * config.hop_samples, np.float32)
    filled = config.n_fft // 2
    for block in chain(blocks, [np.zeros(filled, np.float32)]):
        rest = block
        while len(rest):
            part, rest = np.split(rest, [len(buffer) - filled])
            buffer[filled : filled + len(part)] = part
            filled += len(part)
            if filled == len(buffer):
                yield buffer
                buffer[:overlap] = buffer[len(buffer) - overlap :]
                filled = overlap
    if filled >= config.n_fft:
        yield buffer[:filled]


def _decibels(
    samples: npt.NDArray[np.float32], config: MelConfig
) -> Float[np.ndarray, "columns mels"]:
    """The decibels of power, float32, of all whole columns in the samples."""
    transform = _transform(config)
    with torch.inference_mode():
        spectrum = transform.spectrogram(torch.from_numpy(samples))
        power = (spectrum * spectrum.conj()).real  # takes half the time of torchaudio's
        mels = transform.mel_scale(power)
        decibels = amplitude_to_DB(mels, 10.0, 10 ** (FLOOR_DB / 10), db_multiplier=0.0)
        result: npt.NDArray[np.float32] = decibels.T.numpy()
        return result


def mel_filters(config: MelConfig) -> Float[np.ndarray, "frequencies mels"]:
    """The filter bank: what each frequency of the FFT, 0 to half the rate, adds to each mel."""
    filters: npt.NDArray[np.float32] = _transform(config).mel_scale.fb.numpy()
    return filters


@lru_cache(maxsize=4)
def _transform(config: MelConfig) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=config.sample_rate_hz,
        n_fft=config.n_fft,
        win_length=config.window_samples,
        hop_length=config.hop_samples,
        n_mels=config.mels,
        power=None,
        center=False,  # the segments are padded
        norm="slaney",
        mel_scale="slaney",
    )
