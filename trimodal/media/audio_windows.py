"""Audio as input of the audio network: a file's windows, one per second, or a video's moments."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from trimodal.core.extras import imports_of
from trimodal.core.records import DataError
from trimodal.core.timing import frame_centre_seconds, frame_count, window_fits
from trimodal.media.audio import decode_audio
from trimodal.media.container import DecodingLimits
from trimodal.media.mel import MelConfig, StoredMel
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import (
    AudioFrontEnd,
    scale_windows,
    window_decibels,
    window_first_column,
)

# Limits on a query's file; a video's frames are not decoded.
_LIMITS = DecodingLimits(clip_seconds=900.0, frame_pixels=1, timeout_seconds=60.0)


def audio_windows(path: Path, front_end: AudioFrontEnd) -> Float[Tensor, "windows 1 mels columns"]:
    """The windows centred on the middle of each second that lie inside the audio, float32; for
    audio shorter than a window, one with silence around it.

    Raises MediaError for a file without decodable audio, LimitError for one of over 15 minutes.
    """
    return _windows_of(decode_audio(path, front_end.mel.sample_rate_hz, _LIMITS), front_end)


@dataclass(frozen=True)
class Waveform:
    """Audio as samples, such as ``librosa.load`` and ``soundfile.read`` return: (samples,) for one
    channel or (samples, channels), whose mean is used; in [-1, 1] if floating-point.
    """

    samples: npt.NDArray[np.generic]
    sample_rate_hz: float

    def windows(self, front_end: AudioFrontEnd) -> Float[Tensor, "windows 1 mels columns"]:
        """As :func:`audio_windows`, resampled by librosa if need be. Raises DataError for samples
        that are not audio, MissingExtraError if librosa is needed and not installed.
        """
        samples = np.asarray(self.samples)
        if samples.ndim not in (1, 2) or not samples.size or not 0 < self.sample_rate_hz < np.inf:
            raise DataError(
                f"not audio: samples of shape {samples.shape} at {self.sample_rate_hz} Hz"
            )
        if np.issubdtype(samples.dtype, np.integer):
            samples = samples / -float(np.iinfo(samples.dtype).min or -1)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if not np.isfinite(samples).all():
            raise DataError("not audio: a sample is not finite")
        samples, rate_hz = samples.astype(np.float32), front_end.mel.sample_rate_hz
        if self.sample_rate_hz != rate_hz:
            with imports_of("librosa"):
                import librosa

            samples = librosa.resample(samples, orig_sr=self.sample_rate_hz, target_sr=rate_hz)
        return _windows_of([samples], front_end)


def _windows_of(
    blocks: Iterable[npt.NDArray[np.float32]], front_end: AudioFrontEnd
) -> Float[Tensor, "windows 1 mels columns"]:
    columns = log_mel(blocks, front_end.mel)
    centres = window_centres(duration_seconds(columns, front_end.mel), front_end)
    return cut_windows(columns, centres, front_end)


def window_centres(audio_seconds: float, front_end: AudioFrontEnd) -> list[float]:
    """The centres, in seconds, of the windows of audio so long: the middle of each second whose
    window lies inside; for audio shorter than a window, its own middle.
    """
    centres = map(frame_centre_seconds, range(1, frame_count(audio_seconds) + 1))
    seconds = front_end.window.seconds
    inside = [centre for centre in centres if window_fits(centre, seconds, audio_seconds)]
    return inside or [audio_seconds / 2]


def moment_centre(
    centre_seconds: float, audio_seconds: float, window_seconds: float
) -> float | None:
    """The centre of a moment's audio window, in seconds: the moment, moved so that the window lies
    inside the audio if that is long enough; None for a moment after the end of the audio.
    """
    if centre_seconds > audio_seconds:
        return None
    half = window_seconds / 2
    if audio_seconds < window_seconds:
        return audio_seconds / 2
    return min(max(centre_seconds, half), audio_seconds - half)


def duration_seconds(columns: StoredMel, mel: MelConfig) -> float:
    """The length of audio whose columns are all stored."""
    return (len(columns) - 1) * mel.hop_seconds


def cut_windows(
    columns: StoredMel, centres_seconds: Sequence[float], front_end: AudioFrontEnd
) -> Float[Tensor, "windows 1 mels columns"]:
    """The network's inputs, float32: the windows centred on these seconds, cut from the stored
    columns of an audio track, with silence where they reach beyond it.
    """
    decibels = np.empty((len(centres_seconds), front_end.columns, front_end.mel.mels), np.float32)
    for window, centre in zip(decibels, centres_seconds, strict=True):
        first = window_first_column(centre, front_end)
        part = columns[max(first, 0) : max(0, first + front_end.columns)]
        window[...] = window_decibels(part, first, front_end)
    return torch.from_numpy(scale_windows(decibels, front_end))[:, None]
