"""A decoded video cut into moments, as the networks take them: a frame and the audio around it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trimodal.core.timing import frame_centre_seconds
from trimodal.media.audio_windows import cut_windows, duration_seconds, moment_centre
from trimodal.media.mel import empty_mel
from trimodal.media.windows import AudioFrontEnd
from trimodal.search.footage import Footage


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Consecutive moments of a video: their ``numbers``, from 1; ``frames``, uint8 (moments, side,
    side, 3); which are ``with_sound``, bool (moments,); and ``windows`` of those, float32 (with
    sound, 1, mels, columns).
    """

    numbers: range
    frames: npt.NDArray[np.uint8]
    with_sound: npt.NDArray[np.bool_]
    windows: Tensor


def moments_of(footage: Footage, front_end: AudioFrontEnd, at_once: int) -> Iterator[Moments]:
    """A video's moments in order, ``at_once`` at a time; none if it could not be decoded."""
    if not footage.moments:
        return
    frames = footage.frames()
    mel = empty_mel(front_end.mel) if footage.mel is None else footage.mel
    audio_seconds = 0.0 if footage.mel is None else duration_seconds(mel, front_end.mel)
    for start in range(0, footage.moments, at_once):
        part = np.array(frames[start : start + at_once])
        numbers = range(start + 1, start + 1 + len(part))
        centres = [
            moment_centre(frame_centre_seconds(number), audio_seconds, front_end.window.seconds)
            for number in numbers
        ]
        inside = [centre for centre in centres if centre is not None]
        yield Moments(
            numbers=numbers,
            frames=part,
            with_sound=np.array([centre is not None for centre in centres]),
            windows=cut_windows(mel, inside, front_end),
        )
