"""Draws scenes: a background and things that move over time."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.download.demo.backdrops import backdrop
from trimodal.download.demo.scenes import Scene, Thing
from trimodal.download.demo.sprites import sprite

SPRITE_SHARE_OF_FRAME = {"small": 0.34, "large": 0.56}
MOTION_SHARE_OF_FRAME = 0.05
DRIFT_PERIOD_SECONDS = 12.0
_DRAW_STREAM = 2
_OPAQUE = 128  # of 255; a sprite's fainter edge does not count as the thing

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the frame


class _Actor:
    """A thing's sprite at its size, and its position over time."""

    def __init__(self, thing: Thing, frame_px: int, rng: np.random.Generator) -> None:
        side = SPRITE_SHARE_OF_FRAME[thing.size] * frame_px * rng.uniform(0.93, 1.07)
        self.side_px = max(8, round(side))
        image = sprite(thing.kind, thing.colour)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        size = (self.side_px, self.side_px)
        self.image = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        self.kind, self._thing, self._frame_px = thing.kind, thing, frame_px
        self._hertz = rng.uniform(0.3, 0.6)
        self._phase = rng.uniform(0, 2 * math.pi)

    def corner(self, second: float) -> tuple[int, int]:
        """Upper left corner (x, y) in pixels."""
        x, y = self._thing.position
        wave = math.sin(2 * math.pi * self._hertz * second + self._phase)
        if self._thing.motion == "bob":
            y += MOTION_SHARE_OF_FRAME * wave
        elif self._thing.motion == "sway":
            x += MOTION_SHARE_OF_FRAME * wave
        elif self._thing.motion == "drift":
            across = (second / DRIFT_PERIOD_SECONDS + self._phase / (2 * math.pi)) % 1
            x += 2 * MOTION_SHARE_OF_FRAME * (2 * abs(2 * across - 1) - 1)
        half = self.side_px / 2
        return round(x * self._frame_px - half), round(y * self._frame_px - half)

    def box(self, second: float) -> Box:
        """Around all of the thing that is inside the frame, even where another thing hides it."""
        opaque = np.asarray(self.image.getchannel("A")) >= _OPAQUE
        rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
        x, y = self.corner(second)
        edges = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
        left, top, right, bottom = (min(max(float(e) / self._frame_px, 0.0), 1.0) for e in edges)
        return left, top, right, bottom


class _Stage:
    """A prepared scene: each further frame costs only a copy and a paste."""

    def __init__(self, scene: Scene, frame_px: int) -> None:
        rng = np.random.default_rng([scene.seed, _DRAW_STREAM])
        self._backdrop = Image.fromarray(backdrop(scene.background, frame_px, rng))
        self._actors = [_Actor(thing, frame_px, rng) for thing in scene.things]
        self._sounding = {sound.kind for sound in scene.sounds if sound.on_screen}

    def sounding_boxes(self, second: float) -> list[Box]:
        return [a.box(second) for a in self._actors if a.kind in self._sounding]

    def frame(self, second: float) -> NDArray[np.uint8]:
        image = self._backdrop.copy()
        for actor in self._actors:
            image.paste(actor.image, actor.corner(second), actor.image)
        return np.asarray(image)


def draw_scene(scene: Scene, second: float, frame_px: int) -> NDArray[np.uint8]:
    """The scene at a second: uint8 (frame_px, frame_px, 3)."""
    return _Stage(scene, frame_px).frame(second)


def clip_frames(
    scene: Scene, *, seconds: float, fps: int, frame_px: int
) -> Iterator[NDArray[np.uint8]]:
    """All frames of a clip, each uint8 (frame_px, frame_px, 3); frame i shows second i / fps."""
    stage = _Stage(scene, frame_px)
    for number in range(round(seconds * fps)):
        yield stage.frame(number / fps)


def sounding_boxes(scene: Scene, *, seconds: float, fps: int, frame_px: int) -> list[list[Box]]:
    """Where the visible things are that sound: their boxes in the picture that a clip shows at each
    second N - 0.5, which is drawn at most 1 / ``fps`` earlier. Empty lists if no visible thing
    sounds.
    """
    stage, last = _Stage(scene, frame_px), round(seconds * fps) - 1
    shown = [frame_centre_seconds(n + 1) for n in range(frame_count(seconds))]
    return [stage.sounding_boxes(min(math.floor(t * fps + 1e-6), last) / fps) for t in shown]
