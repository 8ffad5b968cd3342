"""Decodes videos for indexing: a frame of each second and the log-mel of the audio."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.core.machine_errors import UnreadableError
from trimodal.media.audio import decode_audio
from trimodal.media.container import (
    DecodingLimits,
    LimitError,
    MediaError,
)
from trimodal.media.mel import MelConfig, StoredMel
from trimodal.media.spectrogram import log_mel
from trimodal.media.tracks import has_audio
from trimodal.media.video import Video
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.parallel.watchdog import ending_if_hung

_HANG_SECONDS = 30  # beyond the time limits of a video's frames and its audio


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video to decode; its frames are written to the file ``frames``."""

    path: Path
    frames: Path


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A decoded video: ``moments`` frames of ``side`` x ``side`` pixels, and ``mel``, the stored
    columns of its log-mel (trimodal.media.mel), None for a silent video. ``aspect`` is its
    width / height. ``problem`` is empty unless something is wrong with it; a video with ``moments``
    is searchable all the same.
    """

    video: VideoFile
    moments: int
    side: int
    mel: StoredMel | None
    aspect: float
    problem: str

    def frames(self) -> npt.NDArray[np.uint8]:
        """(moments, side, side, 3) uint8 RGB, one per second, memory-mapped."""
        shape = (self.moments, self.side, self.side, 3)
        return np.memmap(self.video.frames, np.uint8, "r", shape=shape)


def decode_videos(
    videos: Iterator[VideoFile], side: int, mel: MelConfig, limits: DecodingLimits, workers: int
) -> Iterator[Footage]:
    """Decodes videos in ``workers`` processes, in order; a crash of the decoder is that video's
    problem. Raises WorkerError if a worker is killed.
    """
    decode = partial(_decode, side, mel, limits)
    return map_in_order(decode, videos, workers, on_crash=_crashed)


def _crashed(video: VideoFile, error: WorkerError) -> Footage:
    return _unusable(video, f"the process that decoded it {error.how}")


def _unusable(video: VideoFile, problem: str) -> Footage:
    return Footage(video=video, moments=0, side=0, mel=None, aspect=0.0, problem=problem)


def _decode(side: int, mel_config: MelConfig, limits: DecodingLimits, video: VideoFile) -> Footage:
    try:
        with ending_if_hung(2 * limits.timeout_seconds + _HANG_SECONDS):
            pictures, moments = Video(video.path, limits), 0
            with video.frames.open("wb") as file:
                for frame in pictures.frames(side, side):
                    file.write(frame.tobytes())
                    moments += 1
            mel, problem = _mel(video.path, mel_config, limits)
            problem = "; ".join(filter(None, [pictures.gaps, problem]))
    except (MediaError, LimitError, UnreadableError) as error:
        return _unusable(video, f"{error.reason}: {error.detail}")
    return Footage(
        video=video, moments=moments, side=side, mel=mel, aspect=pictures.aspect, problem=problem
    )


def _mel(path: Path, config: MelConfig, limits: DecodingLimits) -> tuple[StoredMel | None, str]:
    """The log-mel of the audio; None without audio, or with the problem if it cannot be decoded."""
    try:
        return log_mel(decode_audio(path, config.sample_rate_hz, limits), config), ""
    except (MediaError, LimitError) as error:
        if error.reason == "no_audio" and not has_audio(path):
            return None, ""
        return None, f"indexed without its audio: {error.reason}: {error.detail}"
