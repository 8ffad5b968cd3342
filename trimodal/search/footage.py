"""A video's moments: its picture of each second, and the sound around it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.media.audio import decode_audio
from trimodal.media.container import (
    DecodingLimits,
    LimitError,
    MediaError,
    media_errors,
    open_media,
    probe,
)
from trimodal.media.container import video_stream as first_video_stream
from trimodal.media.mel import MelConfig
from trimodal.media.spectrogram import log_mel
from trimodal.media.video import decode_frames
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.parallel.watchdog import ending_if_hung

_HANG_SECONDS = 30  # beyond the time that a video's pictures and its sound may take


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video that is to be looked at; ``frames`` is where its pictures are to be left."""

    path: Path
    frames: Path


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What a video shows and sounds like. ``problem`` is empty unless something is wrong with it;
    with ``moments`` it can be searched all the same.

    ``sound`` holds the stored columns of its log-mel (trimodal.media.mel), None of a silent video;
    ``aspect`` is its width by its height.
    """

    video: VideoFile
    moments: int
    side: int
    sound: npt.NDArray[np.void] | None
    aspect: float
    problem: str

    def frames(self) -> npt.NDArray[np.uint8]:
        """(moments, side, side, 3) RGB, one a second, read from the disk where they are used."""
        shape = (self.moments, self.side, self.side, 3)
        return np.memmap(self.video.frames, np.uint8, "r", shape=shape)


def footage_of(
    videos: Iterator[VideoFile], side: int, mel: MelConfig, limits: DecodingLimits, workers: int
) -> Iterator[Footage]:
    """Looks at videos in ``workers`` processes, in order; one that crashes its decoder has that as
    its problem. Raises WorkerError if a worker is killed.
    """
    look = partial(_look, side, mel, limits)
    return map_in_order(look, videos, workers, on_crash=_crashed)


def _crashed(video: VideoFile, error: WorkerError) -> Footage:
    return _unusable(video, f"the process that decoded it {error.how}")


def _unusable(video: VideoFile, problem: str) -> Footage:
    return Footage(video=video, moments=0, side=0, sound=None, aspect=0.0, problem=problem)


def _look(side: int, mel: MelConfig, limits: DecodingLimits, video: VideoFile) -> Footage:
    try:
        with ending_if_hung(2 * limits.timeout_seconds + _HANG_SECONDS):
            aspect = _aspect(video.path)
            moments = 0
            with video.frames.open("wb") as file:
                for frame in decode_frames(video.path, side, side, limits):
                    file.write(frame.tobytes())
                    moments += 1
            sound, problem = _sound(video.path, mel, limits)
    except (MediaError, LimitError) as error:
        return _unusable(video, f"{error.reason}: {error.detail}")
    return Footage(
        video=video, moments=moments, side=side, sound=sound, aspect=aspect, problem=problem
    )


def _aspect(path: Path) -> float:
    with media_errors(path), open_media(path) as container:
        stream = first_video_stream(path, container)
        shape = stream.sample_aspect_ratio or 1
        return float(stream.codec_context.width * shape / max(1, stream.codec_context.height))


def _sound(
    path: Path, mel: MelConfig, limits: DecodingLimits
) -> tuple[npt.NDArray[np.void] | None, str]:
    """The log-mel of its sound, or None and what is wrong with the sound if it has any."""
    if not probe(path).has_audio:
        return None, ""
    try:
        return log_mel(decode_audio(path, mel.sample_rate_hz, limits), mel), ""
    except (MediaError, LimitError) as error:
        return None, f"searched without its sound: {error.reason}: {error.detail}"
