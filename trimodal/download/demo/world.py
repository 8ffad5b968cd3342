"""Samples the demo's world: all its scenes, from one seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.download.demo.captions import VideoCaption, image_captions, video_caption
from trimodal.download.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    MOTIONS,
    SIZES,
    Scene,
    Sound,
    Thing,
)

__all__ = [
    "DemoConfig",
    "Scene",
    "Sound",
    "Thing",
    "VideoCaption",
    "World",
    "image_captions",
    "sample_world",
    "unseen_in_training",
    "video_caption",
]

TEST_SHARE = 1 / 7
COCO_TRAIN_SHARE, COCO_VAL_SHARE = 0.7, 0.1
MAIN_SOUNDS_SHARE, TRAIN_OFF_SCREEN_SHARE = 0.95, 0.1
CLIP_SECOND_THING_SHARE, IMAGE_SECOND_THING_SHARE = 0.5, 0.3
SECOND_SOUNDS_SHARE = 0.7
TEST_OFF_SCREEN_SHARE, TEST_TWIN_SHARE, TEST_SILENT_SHARE = 0.6, 0.4, 0.06

YOUTUBE_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_STREAMS = ("train", "test", "coco_train", "coco_val", "flickr", "names", "order")
_DICE_PER_SCENE = 24

T = TypeVar("T")


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class DemoConfig:
    """Section ``demo``: the rendered world's size."""

    clips: Annotated[int, Field(ge=6, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    clip_seconds: Annotated[float, Field(ge=3, le=60)]
    frame_px: Annotated[int, Field(ge=32, le=1024, multiple_of=2)]
    fps: Annotated[int, Field(ge=1, le=60)]
    audio_rate_hz: Annotated[int, Field(ge=8_000, le=48_000)]
    images_per_clip: Annotated[int, Field(ge=1, le=50)]


@dataclass(frozen=True, kw_only=True)
class World:
    """All scenes; `twins` are index pairs into `test` that look the same and sound different."""

    train: tuple[Scene, ...]
    test: tuple[Scene, ...]
    images_coco_train: tuple[Scene, ...]
    images_coco_val: tuple[Scene, ...]
    images_flickr: tuple[Scene, ...]
    twins: tuple[tuple[int, int], ...]


def sample_world(cfg: DemoConfig) -> World:
    """The world of `cfg`, in time linear in `cfg.clips`; equal configs give equal worlds."""
    tests = max(2, round(cfg.clips * TEST_SHARE))
    images = cfg.clips * cfg.images_per_clip
    coco_train, coco_val = round(images * COCO_TRAIN_SHARE), round(images * COCO_VAL_SHARE)
    test, twins = _test_scenes(cfg.seed, tests)
    return World(
        train=_train_scenes(cfg.seed, cfg.clips - tests),
        test=test,
        images_coco_train=_images(cfg.seed, "coco_train", coco_train),
        images_coco_val=_images(cfg.seed, "coco_val", coco_val),
        images_flickr=_images(cfg.seed, "flickr", images - coco_train - coco_val),
        twins=twins,
    )


def unseen_in_training(kind: str, background: str) -> bool:
    """Whether a kind is in front of a background only in test videos, at any scale."""
    return KINDS.index(kind) * 3 % len(BACKGROUNDS) == BACKGROUNDS.index(background)


_SHOWN_KINDS = {b: [k for k in KINDS if not unseen_in_training(k, b)] for b in BACKGROUNDS}
_ALL_KINDS = {b: list(KINDS) for b in BACKGROUNDS}


class _Dice:
    """One scene's random choices, from one row of uniform random numbers."""

    def __init__(self, row: list[float]) -> None:
        self._row = iter(row)

    def unit(self) -> float:
        return next(self._row)

    def chance(self, share: float) -> bool:
        return next(self._row) < share

    def pick(self, options: Sequence[T]) -> T:
        return options[int(next(self._row) * len(options))]

    def pick_kind(self, options: Sequence[str], without: Sequence[str]) -> str:
        return self.pick([kind for kind in options if kind not in without])

    def seed(self) -> int:
        return int(next(self._row) * 2**31)


def _rng(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAMS.index(stream)])


def _dice(seed: int, stream: str) -> Iterator[_Dice]:
    rng = _rng(seed, stream)
    while True:
        for row in rng.random((256, _DICE_PER_SCENE)).tolist():
            yield _Dice(row)


def _things(
    dice: _Dice, kinds_before: dict[str, list[str]], second_share: float
) -> tuple[str, tuple[Thing, ...]]:
    """A background and the one or two things before it."""
    background = dice.pick(BACKGROUNDS)
    kinds = [dice.pick(kinds_before[background])]
    if dice.chance(second_share):
        kinds.append(dice.pick_kind(kinds_before[background], kinds))
    left_first = dice.chance(0.5)
    things = []
    for number, kind in enumerate(kinds):
        if len(kinds) == 1:
            x = 0.34 + 0.32 * dice.unit()
        else:
            x = (0.26 if (number == 0) == left_first else 0.74) + 0.04 * (dice.unit() - 0.5)
        thing = Thing(
            kind=kind,
            colour=dice.pick(COLOURS),
            size=dice.pick(SIZES),
            position=(round(x, 4), round(0.46 + 0.2 * dice.unit(), 4)),
            motion=dice.pick(MOTIONS),
        )
        things.append(thing)
    return background, tuple(things)


def _on_screen(thing: Thing) -> Sound:
    return Sound(kind=thing.kind, size=thing.size, on_screen=True)


def _off_screen(dice: _Dice, without: Sequence[str]) -> Sound:
    return Sound(kind=dice.pick_kind(KINDS, without), size=dice.pick(SIZES), on_screen=False)


def _train_scenes(seed: int, count: int) -> tuple[Scene, ...]:
    dice_rows = _dice(seed, "train")
    scenes = []
    for name in _clip_names(seed, count):
        dice = next(dice_rows)
        background, things = _things(dice, _SHOWN_KINDS, CLIP_SECOND_THING_SHARE)
        sounds = [_on_screen(things[0])] if dice.chance(MAIN_SOUNDS_SHARE) else []
        sounds += [_on_screen(thing) for thing in things[1:] if dice.chance(SECOND_SOUNDS_SHARE)]
        if dice.chance(TRAIN_OFF_SCREEN_SHARE):
            sounds.append(_off_screen(dice, [thing.kind for thing in things]))
        scenes.append(
            Scene(
                name=name,
                background=background,
                things=things,
                sounds=tuple(sounds),
                silent=False,
                seed=dice.seed(),
            )
        )
    return tuple(scenes)


def _test_scenes(seed: int, count: int) -> tuple[tuple[Scene, ...], tuple[tuple[int, int], ...]]:
    """Test videos in mixed order: twins, other off-screen sounds, silent ones, plain ones."""
    pairs = round(count * TEST_TWIN_SHARE / 2)
    off_screen = max(0, round(count * TEST_OFF_SCREEN_SHARE) - 2 * pairs)
    silent = max(1, round(count * TEST_SILENT_SHARE))
    positions = _rng(seed, "order").permutation(count).tolist()
    scenes: dict[int, Scene] = {}
    dice_rows = _dice(seed, "test")

    def add(background: str, things: tuple[Thing, ...], sounds: list[Sound], dice: _Dice) -> int:
        position = int(positions[len(scenes)])
        scenes[position] = Scene(
            name=f"video{7000 + position}",
            background=background,
            things=things,
            sounds=tuple(sounds),
            silent=not sounds,
            seed=dice.seed(),
        )
        return position

    twins = []
    for number in range(pairs):
        dice = next(dice_rows)
        background, things = _things(dice, _ALL_KINDS, IMAGE_SECOND_THING_SHARE)
        visible = [thing.kind for thing in things]
        seen_sounds = [_on_screen(things[0])] if number % 2 == 0 else []
        first_sound = _off_screen(dice, visible)
        second_sound = _off_screen(dice, [*visible, first_sound.kind])
        first = add(background, things, [*seen_sounds, first_sound], dice)
        twins.append((first, add(background, things, [*seen_sounds, second_sound], dice)))
    for number in range(count - 2 * pairs):
        dice = next(dice_rows)
        background, things = _things(dice, _ALL_KINDS, IMAGE_SECOND_THING_SHARE)
        sounds = [_on_screen(things[0])]
        if number < off_screen:
            sound = _off_screen(dice, [thing.kind for thing in things])
            sounds = [*sounds[: number % 2], sound]
        elif number < off_screen + silent:
            sounds = []
        add(background, things, sounds, dice)
    return tuple(scenes[position] for position in range(count)), tuple(twins)


def _images(seed: int, stream: str, count: int) -> tuple[Scene, ...]:
    dice_rows = _dice(seed, stream)
    scenes = []
    for number in range(count):
        dice = next(dice_rows)
        background, things = _things(dice, _SHOWN_KINDS, IMAGE_SECOND_THING_SHARE)
        scenes.append(
            Scene(
                name=_image_name(stream, number, dice),
                background=background,
                things=things,
                sounds=(),
                silent=True,
                seed=dice.seed(),
            )
        )
    return tuple(scenes)


def _image_name(stream: str, number: int, dice: _Dice) -> str:
    if stream == "flickr":
        photo, suffix = 1_000_092_795 + 5_417 * number, int(dice.unit() * 16**10)
        return f"{photo}.jpg" if dice.chance(0.2) else f"{photo}_{suffix:010x}.jpg"
    parity = int(stream == "coco_val")
    return f"{2 * (9 + 7 * number + int(dice.unit() * 7)) + parity:012d}.jpg"


def _clip_names(seed: int, count: int) -> list[str]:
    """`<11 characters>_<start, 6 digits>`; of each 20, some start with `-` or `_`, one id twice."""
    rng = _rng(seed, "names")
    ids = ["".join(YOUTUBE_ALPHABET[c] for c in row) for row in rng.integers(0, 64, (count, 11))]
    starts = (10 * rng.integers(0, 60, count)).tolist()
    for number in range(count):
        if number % 20 == 1:
            ids[number] = "-" + ids[number][1:]
        elif number % 20 == 2:
            ids[number] = "_" + ids[number][1:]
        elif number % 20 == 3:
            ids[number], starts[number] = ids[number - 1], starts[number - 1] + 30
    return [f"{name}_{start:06d}" for name, start in zip(ids, starts, strict=True)]
