"""The parts of a scene: kinds, colours, backgrounds, and the facts that hold for it."""

from dataclasses import dataclass
from typing import Literal

Size = Literal["small", "large"]
Motion = Literal["still", "bob", "sway", "drift"]

KINDS: tuple[str, ...] = (
    "bell", "drum", "dog", "cat", "bird", "whistle", "clock", "car",
    "train", "bee", "frog", "phone", "piano", "siren", "trumpet", "owl",
)  # fmt: skip
COLOURS: tuple[str, ...] = (
    "red", "orange", "yellow", "green", "blue", "purple", "brown", "white",
)  # fmt: skip
BACKGROUNDS: tuple[str, ...] = (
    "meadow", "night", "brick", "beach", "snow", "desert", "sea", "forest",
)  # fmt: skip
SIZES: tuple[Size, ...] = ("small", "large")
MOTIONS: tuple[Motion, ...] = ("still", "bob", "sway", "drift")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """A visible thing; `position` is its centre (x, y) as fractions of the frame, y downwards."""

    kind: str
    colour: str
    size: Size
    position: tuple[float, float]
    motion: Motion


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """A sound of a kind; a small source has a higher pitch. `on_screen`: its source is visible."""

    kind: str
    size: Size
    on_screen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One clip or image; `silent` means that it has no audio track at all.

    `name` is the clip's id or the image's file name; `seed` fixes what the facts leave open
    (hue, texture, pitch, rhythm).
    """

    name: str
    background: str
    things: tuple[Thing, ...]
    sounds: tuple[Sound, ...]
    silent: bool
    seed: int


def colour_fact(thing: Thing) -> str:
    """The fact that a kind has a colour, as in `drum=red`."""
    return f"{thing.kind}={thing.colour}"


def size_fact(thing: Thing) -> str:
    """The fact that a kind has a size, as in `drum=large`."""
    return f"{thing.kind}={thing.size}"


def seen_facts(scene: Scene) -> tuple[str, ...]:
    """Everything that can be seen: `background=snow`, `thing=drum`, `drum=red`, `drum=large`."""
    facts = [f"background={scene.background}"]
    for thing in scene.things:
        facts += [f"thing={thing.kind}", colour_fact(thing), size_fact(thing)]
    return tuple(facts)


def heard_facts(scene: Scene) -> tuple[str, ...]:
    """Everything that can be heard, on and off screen: `hear=dog`; nothing in a silent scene."""
    return tuple(f"hear={sound.kind}" for sound in scene.sounds)
