"""Drawings of the kinds: RGBA sprites in one colour, drawn large once, outlined, then scaled."""

from collections.abc import Callable
from functools import cache

from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]

SPRITE_PX = 192
OUTLINE_PX = 7
INK: RGB = (28, 26, 34)
PAPER: RGB = (250, 248, 240)
GOLD: RGB = (236, 190, 70)
PALETTE: dict[str, RGB] = {
    "red": (220, 38, 44),
    "orange": (247, 135, 28),
    "yellow": (250, 218, 44),
    "green": (42, 168, 72),
    "blue": (42, 98, 222),
    "purple": (148, 62, 190),
    "brown": (124, 76, 40),
    "white": (246, 246, 246),
}


def shade(colour: RGB, factor: float) -> RGB:
    """A darker (`factor` < 1) or lighter (`factor` > 1) version of a colour."""
    r, g, b = (max(0, min(255, round(channel * factor))) for channel in colour)
    return r, g, b


class Pen:
    """Draws on a square canvas in units of 0 to 100, y downwards."""

    def __init__(self, colour: RGB) -> None:
        self.image = Image.new("RGBA", (SPRITE_PX, SPRITE_PX), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)
        self.body, self.dark, self.light = colour, shade(colour, 0.68), shade(colour, 1.25)

    def _scaled(self, points: tuple[float, ...]) -> list[float]:
        return [point * SPRITE_PX / 100 for point in points]

    def oval(self, *box: float, fill: RGB) -> None:
        self._draw.ellipse(self._scaled(box), fill=fill)

    def box(self, *box: float, fill: RGB, radius: float = 0) -> None:
        self._draw.rounded_rectangle(self._scaled(box), radius * SPRITE_PX / 100, fill=fill)

    def shape(self, *points: float, fill: RGB) -> None:
        self._draw.polygon(self._scaled(points), fill=fill)

    def line(self, *points: float, fill: RGB, width: float) -> None:
        size = round(width * SPRITE_PX / 100)
        self._draw.line(self._scaled(points), fill=fill, width=size, joint="curve")

    def arc(self, *box: float, start: float, end: float, fill: RGB, width: float) -> None:
        size = round(width * SPRITE_PX / 100)
        self._draw.arc(self._scaled(box), start, end, fill=fill, width=size)

    def slice(self, *box: float, start: float, end: float, fill: RGB) -> None:
        self._draw.pieslice(self._scaled(box), start, end, fill=fill)


def _bell(p: Pen) -> None:
    p.oval(40, 78, 60, 96, fill=GOLD)
    p.oval(42, 4, 58, 20, fill=p.dark)
    p.shape(10, 80, 24, 66, 28, 34, 72, 34, 76, 66, 90, 80, fill=p.body)
    p.slice(28, 12, 72, 56, start=180, end=360, fill=p.body)
    p.box(10, 76, 90, 84, fill=p.dark, radius=3)
    p.line(38, 30, 34, 66, fill=p.light, width=5)


def _drum(p: Pen) -> None:
    p.box(12, 36, 88, 76, fill=p.body)
    p.oval(12, 60, 88, 92, fill=p.body)
    for x in (12, 31, 50, 69):
        p.line(x, 42, x + 9.5, 84, x + 19, 42, fill=p.light if x % 2 else GOLD, width=2.5)
    p.oval(12, 20, 88, 52, fill=p.dark)
    p.oval(17, 23, 83, 48, fill=PAPER)
    p.line(20, 4, 52, 36, fill=GOLD, width=5)
    p.line(84, 2, 58, 32, fill=GOLD, width=5)


def _dog(p: Pen) -> None:
    p.line(16, 52, 5, 30, fill=p.body, width=7)
    p.box(12, 46, 70, 72, fill=p.body, radius=11)
    for x in (15, 27, 50, 61):
        p.box(x, 62, x + 9, 95, fill=p.dark if x in (27, 50) else p.body, radius=3)
    p.box(56, 14, 86, 52, fill=p.body, radius=12)
    p.box(74, 30, 98, 48, fill=p.light, radius=7)
    p.oval(91, 28, 99, 37, fill=INK)
    p.oval(52, 14, 66, 50, fill=p.dark)
    p.oval(74, 21, 81, 29, fill=INK)
    p.box(58, 50, 78, 56, fill=GOLD, radius=2)


def _cat(p: Pen) -> None:
    p.arc(58, 40, 98, 94, start=270, end=95, fill=p.body, width=8)
    p.oval(22, 46, 74, 97, fill=p.body)
    p.shape(20, 4, 24, 40, 44, 22, fill=p.body)
    p.shape(76, 4, 72, 40, 52, 22, fill=p.body)
    p.oval(18, 14, 78, 60, fill=p.body)
    for x in (30, 56):
        p.oval(x, 28, x + 12, 41, fill=PAPER)
        p.oval(x + 4, 28, x + 8, 41, fill=INK)
    p.shape(44, 43, 52, 43, 48, 49, fill=(240, 140, 150))
    for y in (46, 52):
        p.line(8, y - 2, 36, y, fill=INK, width=1.6)
        p.line(60, y, 88, y - 2, fill=INK, width=1.6)
    p.oval(36, 62, 60, 94, fill=p.light)


def _bird(p: Pen) -> None:
    p.shape(4, 34, 10, 58, 40, 62, 34, 46, fill=p.dark)
    p.line(46, 78, 44, 96, fill=GOLD, width=4)
    p.line(58, 78, 60, 96, fill=GOLD, width=4)
    p.oval(20, 34, 80, 84, fill=p.body)
    p.oval(52, 14, 86, 48, fill=p.body)
    p.shape(83, 26, 99, 33, 83, 38, fill=GOLD)
    p.slice(18, 26, 66, 76, start=20, end=170, fill=p.dark)
    p.oval(68, 23, 77, 32, fill=PAPER)
    p.oval(71, 25, 76, 30, fill=INK)


def _whistle(p: Pen) -> None:
    p.arc(4, 4, 38, 44, start=90, end=350, fill=GOLD, width=4)
    p.box(26, 34, 97, 56, fill=p.body, radius=3)
    p.oval(10, 34, 66, 90, fill=p.body)
    p.oval(22, 46, 54, 78, fill=p.dark)
    p.oval(30, 56, 46, 72, fill=GOLD)
    p.shape(52, 30, 68, 30, 62, 46, 52, 46, fill=INK)
    p.box(88, 34, 97, 56, fill=p.dark, radius=2)


def _clock(p: Pen) -> None:
    for x in (22, 68):
        p.oval(x - 12, 4, x + 20, 34, fill=p.dark)
    p.line(26, 82, 16, 97, fill=p.dark, width=7)
    p.line(74, 82, 84, 97, fill=p.dark, width=7)
    p.oval(10, 12, 90, 92, fill=p.body)
    p.oval(20, 22, 80, 82, fill=PAPER)
    for x, y in ((50, 27), (50, 77), (25, 52), (75, 52)):
        p.oval(x - 3, y - 3, x + 3, y + 3, fill=INK)
    p.line(50, 52, 50, 32, fill=INK, width=4)
    p.line(50, 52, 66, 60, fill=INK, width=4)


def _car(p: Pen) -> None:
    p.shape(20, 50, 32, 24, 68, 24, 82, 50, fill=p.body)
    p.shape(28, 48, 36, 30, 48, 30, 48, 48, fill=(190, 226, 244))
    p.shape(53, 48, 53, 30, 65, 30, 74, 48, fill=(190, 226, 244))
    p.box(3, 46, 97, 74, fill=p.body, radius=8)
    p.box(3, 62, 97, 68, fill=p.dark)
    p.oval(88, 50, 97, 60, fill=GOLD)
    for x in (14, 62):
        p.oval(x, 60, x + 26, 86, fill=INK)
        p.oval(x + 8, 68, x + 18, 78, fill=PAPER)


def _train(p: Pen) -> None:
    p.oval(72, 0, 98, 16, fill=(225, 225, 228))
    p.box(70, 16, 82, 42, fill=p.dark)
    p.box(66, 12, 86, 20, fill=p.dark, radius=2)
    p.box(28, 38, 92, 70, fill=p.body, radius=6)
    p.box(4, 16, 42, 72, fill=p.body)
    p.box(1, 12, 46, 20, fill=p.dark, radius=2)
    p.box(11, 26, 34, 44, fill=(190, 226, 244))
    p.line(56, 38, 56, 70, fill=GOLD, width=4)
    p.shape(88, 72, 99, 90, 80, 90, fill=p.dark)
    p.oval(4, 64, 36, 96, fill=INK)
    p.oval(13, 73, 27, 87, fill=GOLD)
    for x in (40, 62):
        p.oval(x, 74, x + 20, 95, fill=INK)
        p.oval(x + 7, 81, x + 13, 88, fill=GOLD)


def _bee(p: Pen) -> None:
    p.oval(26, 8, 56, 52, fill=(226, 240, 250))
    p.oval(48, 4, 80, 50, fill=(240, 248, 252))
    p.shape(2, 60, 20, 48, 20, 72, fill=INK)
    p.oval(12, 36, 80, 84, fill=p.body)
    for x, top, bottom in ((26, 42, 79), (42, 37, 84), (58, 38, 82)):
        p.box(x, top, x + 8, bottom, fill=INK)
    p.oval(66, 40, 94, 74, fill=p.dark)
    p.oval(80, 48, 88, 58, fill=PAPER)
    p.line(80, 42, 86, 26, fill=INK, width=3)
    p.line(86, 44, 97, 32, fill=INK, width=3)


def _frog(p: Pen) -> None:
    p.oval(2, 56, 40, 94, fill=p.dark)
    p.oval(60, 56, 98, 94, fill=p.dark)
    p.oval(16, 30, 84, 92, fill=p.body)
    p.oval(30, 60, 70, 94, fill=p.light)
    for x in (16, 58):
        p.oval(x, 12, x + 26, 40, fill=p.body)
        p.oval(x + 5, 16, x + 21, 33, fill=PAPER)
        p.oval(x + 10, 20, x + 17, 30, fill=INK)
    p.arc(26, 26, 74, 62, start=20, end=160, fill=INK, width=4)
    for x in (12, 72):
        p.oval(x, 86, x + 18, 97, fill=p.body)


def _phone(p: Pen) -> None:
    p.box(24, 2, 76, 98, fill=p.body, radius=9)
    p.box(30, 14, 70, 54, fill=(176, 226, 236), radius=2)
    p.box(42, 6, 58, 10, fill=INK, radius=2)
    for y in (60, 71, 82):
        for x in (31, 45, 59):
            p.box(x, y, x + 10, y + 7, fill=PAPER, radius=2)


def _piano(p: Pen) -> None:
    p.box(6, 10, 94, 60, fill=p.body, radius=3)
    p.box(2, 6, 98, 15, fill=p.dark, radius=2)
    p.box(34, 22, 66, 42, fill=PAPER)
    p.line(38, 29, 62, 29, fill=INK, width=2)
    p.line(38, 36, 62, 36, fill=INK, width=2)
    p.box(2, 52, 98, 74, fill=PAPER)
    for number, x in enumerate(range(12, 96, 10)):
        p.line(x, 52, x, 74, fill=INK, width=1.5)
        if number % 7 not in (2, 6):
            p.box(x - 3, 52, x + 3, 65, fill=INK)
    p.box(2, 72, 98, 79, fill=p.dark)
    for x in (6, 84):
        p.box(x, 76, x + 10, 97, fill=p.body)


def _siren(p: Pen) -> None:
    for points in ((50, 2, 50, 16), (12, 14, 24, 28), (88, 14, 76, 28), (0, 46, 14, 50),
                   (100, 46, 86, 50)):  # fmt: skip
        p.line(*points, fill=GOLD, width=6)
    p.slice(22, 24, 78, 96, start=180, end=360, fill=p.body)
    p.box(22, 58, 78, 78, fill=p.body)
    p.line(36, 66, 36, 50, 42, 40, fill=p.light, width=5)
    p.oval(44, 46, 60, 74, fill=PAPER)
    p.box(12, 76, 88, 95, fill=(92, 96, 108), radius=4)


def _trumpet(p: Pen) -> None:
    p.line(6, 40, 74, 40, fill=p.body, width=8)
    p.shape(64, 36, 82, 28, 97, 12, 97, 70, 82, 52, 64, 44, fill=p.body)
    p.oval(91, 12, 100, 70, fill=p.dark)
    p.box(1, 33, 8, 47, fill=GOLD, radius=2)
    p.arc(20, 36, 68, 76, start=0, end=360, fill=p.body, width=8)
    for x in (31, 42, 53):
        p.box(x - 4, 28, x + 4, 74, fill=p.dark, radius=2)
        p.oval(x - 5, 20, x + 5, 30, fill=GOLD)


def _owl(p: Pen) -> None:
    p.shape(18, 2, 22, 40, 46, 18, fill=p.dark)
    p.shape(82, 2, 78, 40, 54, 18, fill=p.dark)
    p.oval(14, 10, 86, 92, fill=p.body)
    p.oval(8, 38, 30, 86, fill=p.dark)
    p.oval(70, 38, 92, 86, fill=p.dark)
    p.oval(32, 50, 68, 90, fill=p.light)
    for y in (62, 72):
        for x in (40, 50, 60):
            p.arc(x - 5, y - 5, x + 5, y + 5, start=0, end=180, fill=p.dark, width=2)
    for x in (20, 52):
        p.oval(x, 20, x + 28, 48, fill=PAPER)
        p.oval(x + 8, 27, x + 21, 41, fill=INK)
    p.shape(44, 42, 56, 42, 50, 56, fill=GOLD)
    p.box(36, 88, 46, 97, fill=GOLD, radius=2)
    p.box(54, 88, 64, 97, fill=GOLD, radius=2)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "bell": _bell, "drum": _drum, "dog": _dog, "cat": _cat, "bird": _bird, "whistle": _whistle,
    "clock": _clock, "car": _car, "train": _train, "bee": _bee, "frog": _frog, "phone": _phone,
    "piano": _piano, "siren": _siren, "trumpet": _trumpet, "owl": _owl,
}  # fmt: skip


@cache
def sprite(kind: str, colour: str) -> Image.Image:
    """The kind's outlined drawing, RGBA, `SPRITE_PX` square; cached, so do not draw on it."""
    pen = Pen(PALETTE[colour])
    DRAWINGS[kind](pen)
    outline = pen.image.getchannel("A").filter(ImageFilter.MaxFilter(OUTLINE_PX))
    framed = Image.new("RGBA", pen.image.size, (*INK, 0))
    framed.paste((*INK, 255), (0, 0), outline)
    framed.alpha_composite(pen.image)
    return framed
