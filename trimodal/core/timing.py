"""Positions of frames, windows and mel columns in time. Pure arithmetic, intervals half-open.

Frames are taken once a second and numbered from 1; frame N shows second N - 0.5 (docs/method.md,
Data):

    seconds   0     1     2     3     4     5
    frames    |--1--|--2--|--3--|--4--|--5--|
    window of frame 3:  [1 ........... 4)       = N - 0.5 -+ 1.5 s

A mel column j is centred on j * hop seconds, so a window of W seconds has W / hop + 1 columns.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

# Containers round their durations; a window may exceed the audio by this much and still count
# as complete. Less than two video frames at 30 fps.
TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class FramePosition:
    """A position in a clip: its frame (numbered from 1) and the centre of its audio window."""

    frame: int
    centre_seconds: float


def frame_centre_seconds(frame: int) -> float:
    """The time in seconds that frame ``frame`` (numbered from 1) shows."""
    if frame < 1:
        raise ValueError(f"frames are numbered from 1, not {frame}")
    return frame - 0.5


def frame_count(duration_seconds: float) -> int:
    """Number of one-per-second frames of a video of this length: all N with N - 0.5 < length."""
    return max(0, math.ceil(duration_seconds + 0.5) - 1)


def window_fits(centre_seconds: float, window_seconds: float, duration_seconds: float) -> bool:
    """Whether [centre - W/2, centre + W/2) lies inside [0, duration), within the tolerance."""
    half = window_seconds / 2
    return (
        centre_seconds - half >= -TOLERANCE_SECONDS
        and centre_seconds + half <= duration_seconds + TOLERANCE_SECONDS
    )


def middle_position(frames: int, duration_seconds: float) -> FramePosition:
    """The middle of a clip that is too short for a complete window."""
    centre = duration_seconds / 2
    return FramePosition(frame=_frame_at(centre + 1.0, frames), centre_seconds=centre)


@lru_cache(maxsize=65_536)  # clips of one data set have few different lengths
def training_positions(
    frames: int, duration_seconds: float, window_seconds: float, first: int, last: int
) -> tuple[FramePosition, ...]:
    """The positions a training pair may be sampled from: frames ``first``..``last`` whose complete
    audio window fits (docs/method.md, Data), or the middle of the clip if none does.
    """
    if frames < 1:
        raise ValueError("a clip without frames has no training position")
    fitting = tuple(
        FramePosition(frame=frame, centre_seconds=frame_centre_seconds(frame))
        for frame in range(first, min(last, frames) + 1)
        if window_fits(frame_centre_seconds(frame), window_seconds, duration_seconds)
    )
    return fitting or (middle_position(frames, duration_seconds),)


def evenly_spaced_positions(
    frames: int, duration_seconds: float, window_seconds: float, count: int
) -> list[FramePosition]:
    """``count`` positions evenly spaced over a test video (docs/method.md, Data).

    The rule is that of the authors' code: evenly spaced from 2 to the number of frames - 2; the
    frame is the position rounded down, the audio is centred on position - 0.5. In a video with
    fewer than 4 frames they are where a complete window fits; in one shorter than a window all are
    in its middle.
    """
    if frames < 1:
        raise ValueError("a video without frames has no test position")
    half = window_seconds / 2
    if frames >= 4:
        first, last = 2.0, frames - 2.0
    elif window_fits(half, window_seconds, duration_seconds):
        first, last = half + 0.5, max(half, duration_seconds - half) + 0.5
    else:
        return [middle_position(frames, duration_seconds)] * count
    step = (last - first) / max(1, count - 1)
    positions = [first + k * step for k in range(count)]
    return [
        FramePosition(frame=_frame_at(position, frames), centre_seconds=position - 0.5)
        for position in positions
    ]


def _frame_at(position: float, frames: int) -> int:
    return min(max(1, math.floor(position + 1e-9)), frames)


def window_columns(window_seconds: float, hop_seconds: float) -> int:
    """Mel columns of a window, both edges included: 3 s at 10 ms are 301."""
    return round(window_seconds / hop_seconds) + 1


def first_column(centre_seconds: float, window_seconds: float, hop_seconds: float) -> int:
    """The clip's mel column at which a window starts; negative if before the clip."""
    return round((centre_seconds - window_seconds / 2) / hop_seconds)
