"""Textured backgrounds, drawn at twice the frame's size and varied from scene to scene."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from trimodal.download.demo.sprites import RGB

OVERSAMPLING = 2
TEXTURE_LEVELS = 9


class Canvas:
    """Draws in units of 0 to 100 on a square image of `px` pixels, y downwards."""

    def __init__(self, px: int, rng: np.random.Generator) -> None:
        self.image = Image.new("RGB", (px, px))
        self.pen = ImageDraw.Draw(self.image)
        self.px, self._rng = px, rng

    def spots(self, count: int, top: float, bottom: float) -> list[list[float]]:
        """`count` random spots (x, y, u), y within [top, bottom) and u within [0, 1)."""
        scale, shift = np.array([104, bottom - top, 1]), np.array([-2, top, 0])
        spots: list[list[float]] = (self._rng.random((count, 3)) * scale + shift).tolist()
        return spots

    def band(self, top: float, bottom: float, upper: RGB, lower: RGB) -> None:
        """Fills the rows of [top, bottom) with a vertical blend of two colours."""
        steps = 12
        height = (bottom - top) / steps
        for step in range(steps):
            share = step / (steps - 1)
            r, g, b = (round(u + (w - u) * share) for u, w in zip(upper, lower, strict=True))
            y = top + step * height
            self.box(0, y, 100, y + height, (r, g, b))

    def _scaled(self, points: tuple[float, ...]) -> list[float]:
        return [point * self.px / 100 for point in points]

    def box(self, left: float, top: float, right: float, bottom: float, fill: RGB) -> None:
        self.pen.rectangle(self._scaled((left, top, right, bottom)), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        self.pen.ellipse(self._scaled((x - rx, y - ry, x + rx, y + ry)), fill=fill)

    def shape(self, *points: float, fill: RGB) -> None:
        self.pen.polygon(self._scaled(points), fill=fill)

    def line(self, *points: float, fill: RGB, width: float = 1) -> None:
        self.pen.line(self._scaled(points), fill=fill, width=max(1, round(width * self.px / 100)))


def _meadow(c: Canvas) -> None:
    c.band(0, 42, (128, 190, 240), (206, 230, 246))
    c.band(40, 100, (138, 196, 88), (84, 158, 56))
    for x, y, u in c.spots(40, 44, 100):
        c.line(x, y, x + 2 * u - 1, y - 5, fill=(66, 136, 46))
    for x, y, u in c.spots(10, 50, 98):
        c.oval(x, y, 1.4, 1.4, (250, 240, 130) if u < 0.5 else (246, 200, 220))


def _night(c: Canvas) -> None:
    c.band(0, 84, (12, 14, 46), (44, 42, 92))
    c.band(84, 100, (22, 26, 38), (14, 16, 26))
    for x, y, u in c.spots(32, 0, 80):
        c.oval(x, y, 0.5 + 0.5 * u, 0.5 + 0.5 * u, (244, 240, 214))
    x, y, _ = c.spots(1, 8, 20)[0]
    c.oval(x, y, 8, 8, (244, 238, 200))
    c.oval(x + 3.5, y - 2, 7, 7, (18, 19, 54))


def _brick(c: Canvas) -> None:
    c.box(0, 0, 100, 100, (196, 184, 172))
    shades: list[RGB] = [(168, 86, 66), (152, 74, 58), (178, 98, 74), (160, 84, 70)]
    tints = iter(c.spots(80, 0, 4))
    for row in range(10):
        for column in range(6):
            x = column * 20 - (10 if row % 2 else 0)
            fill = shades[int(next(tints)[1])]
            c.box(x + 0.8, row * 10 + 0.8, x + 19.2, row * 10 + 9.2, fill)


def _beach(c: Canvas) -> None:
    c.band(0, 30, (120, 200, 242), (196, 232, 246))
    c.band(30, 48, (30, 138, 180), (88, 196, 204))
    c.box(0, 46, 100, 49, (244, 250, 250))
    c.band(49, 100, (242, 222, 170), (226, 196, 136))
    x, y, _ = c.spots(1, 6, 16)[0]
    c.oval(x, y, 7, 7, (252, 232, 120))
    for x, y, u in c.spots(36, 52, 100):
        c.oval(x, y, 0.5 + 0.6 * u, 0.4 + 0.3 * u, (196, 164, 110))


def _snow(c: Canvas) -> None:
    c.band(0, 46, (168, 186, 206), (214, 224, 236))
    for x, _, u in c.spots(5, 0, 1):
        top = 16 + 14 * u
        for level in range(3):
            y = top + level * 8
            c.shape(x, y, x - 5 - 2 * level, y + 12, x + 5 + 2 * level, y + 12, fill=(66, 104, 98))
    c.band(46, 100, (236, 241, 248), (214, 224, 240))
    for x, y, u in c.spots(44, 0, 100):
        c.oval(x, y, 0.6 + 0.7 * u, 0.6 + 0.7 * u, (255, 255, 255))


def _desert(c: Canvas) -> None:
    c.band(0, 48, (250, 176, 96), (252, 220, 160))
    x, y, u = c.spots(1, 8, 24)[0]
    c.oval(x, y, 9, 9, (255, 244, 206))
    c.band(48, 100, (226, 164, 84), (196, 124, 56))
    c.shape(0, 50, 28 + 20 * u, 34, 100, 56, 100, 60, 0, 60, fill=(214, 148, 74))
    c.shape(20, 62, 72 + 16 * u, 44, 120, 64, fill=(204, 136, 66))
    for x, _, u in c.spots(2, 0, 1):
        y = 44 + 8 * u
        c.box(x - 1.5, y - 16, x + 1.5, y + 8, (70, 124, 70))
        c.line(x - 6, y - 9, x - 6, y - 3, x + 6, y - 3, x + 6, y - 11, fill=(70, 124, 70), width=2)
    for x, y, u in c.spots(14, 66, 98):
        c.line(x, y, x + 8 + 6 * u, y + 1, fill=(180, 112, 50))


def _sea(c: Canvas) -> None:
    c.band(0, 22, (176, 214, 236), (214, 234, 242))
    c.band(22, 100, (44, 134, 190), (12, 66, 128))
    for x, y, u in c.spots(34, 26, 100):
        reach = 3 + 4 * u
        c.line(x - reach, y, x - reach / 2, y - 1.6, x, y, x + reach / 2, y - 1.6, x + reach, y,
               fill=(150, 206, 230))  # fmt: skip


def _forest(c: Canvas) -> None:
    c.band(0, 72, (44, 86, 58), (84, 122, 76))
    c.band(72, 100, (72, 84, 46), (54, 60, 34))
    for x, y, u in c.spots(7, 70, 78):
        width = 2 + 2.5 * u
        c.box(x - width, 0, x + width, y, (74, 54, 40))
        c.box(x - width, 0, x - width / 3, y, (94, 70, 52))
    for x, y, u in c.spots(26, 0, 22):
        c.oval(x, y, 5 + 5 * u, 4 + 3 * u, (30, 76 + int(50 * u), 42))
    for x, y, _ in c.spots(20, 76, 100):
        c.line(x, y, x + 1, y - 4, fill=(92, 122, 60))


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "meadow": _meadow, "night": _night, "brick": _brick, "beach": _beach,
    "snow": _snow, "desert": _desert, "sea": _sea, "forest": _forest,
}  # fmt: skip


def backdrop(background: str, frame_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One drawing of a background with its own tint, light and grain: uint8 (px, px, 3)."""
    canvas = Canvas(frame_px * OVERSAMPLING, rng)
    DRAWINGS[background](canvas)
    small = np.asarray(canvas.image.reduce(OVERSAMPLING), dtype=np.float32)
    tint = rng.uniform(0.93, 1.07, 3).astype(np.float32) * np.float32(rng.uniform(0.86, 1.1))
    grain = rng.integers(
        -TEXTURE_LEVELS, TEXTURE_LEVELS + 1, (frame_px, frame_px, 1), dtype=np.int8
    )
    return np.clip(small * tint + grain, 0, 255).astype(np.uint8)
