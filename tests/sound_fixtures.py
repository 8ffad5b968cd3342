"""Clips of a sound and a picture each, an index of them and of a silent one, and cuts of 3 s."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from media_fixtures import RATE_HZ, ffmpeg, solid_frame, tone
from model_fixtures import Tool

from trimodal.media.container import encode_video

_SOUNDS, _SECONDS, _FPS = 4, 5, 4


@dataclass(frozen=True)
class Sounds:
    """An index of ``silent.mp4``, ``0.mp4`` and so on, and the cuts of those, in order."""

    store: Path
    cuts: list[Path]


def index_sounds(tool: Tool, folder: Path) -> Sounds:
    """The cuts are the seconds 1 to 4 of a clip: the window around 2.5."""
    _write(folder / "silent.mp4", 9, None)
    for number in range(_SOUNDS):
        chord = tone(250.0 * (number + 1), _SECONDS) + tone(1500.0 + 900 * number, _SECONDS)
        beats = np.arange(len(chord)) * (number + 1) // RATE_HZ % 2
        _write(folder / f"{number}.mp4", 2 * number, (chord * beats / 2).astype(np.float32))
    tool.model.index(folder, folder / "store", workers=1)
    cuts = [folder / f"{number}.wav" for number in range(_SOUNDS)]
    for cut in cuts:
        ffmpeg("-ss", 1, "-t", 3, "-i", cut.with_suffix(".mp4"), "-vn", cut)
    return Sounds(folder / "store", cuts)


def _write(path: Path, picture: int, audio: np.ndarray | None) -> None:
    frames = [solid_frame(picture)] * (_SECONDS * _FPS)
    encode_video(path, frames, fps=_FPS, audio=audio, audio_rate_hz=RATE_HZ)
