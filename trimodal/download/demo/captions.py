"""Captions of scenes: images as people describe them, videos as seen and heard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from trimodal.download.demo.scenes import Scene, Sound, Thing, colour_fact, size_fact

T = TypeVar("T")


class Verb(NamedTuple):
    """One verb in its three forms: a dog can bark, barks, is barking."""

    base: str
    present: str
    ongoing: str


def _verbs(*forms: str) -> tuple[Verb, ...]:
    return tuple(Verb(*form.split()) for form in forms)


NOUNS: dict[str, tuple[str, ...]] = {
    "bell": ("bell",),
    "drum": ("drum",),
    "dog": ("dog", "puppy", "hound"),
    "cat": ("cat", "kitten"),
    "bird": ("bird", "songbird"),
    "whistle": ("whistle",),
    "clock": ("clock", "timepiece"),
    "car": ("car", "automobile"),
    "train": ("train", "locomotive"),
    "bee": ("bee", "bumblebee"),
    "frog": ("frog", "toad"),
    "phone": ("phone", "telephone"),
    "piano": ("piano",),
    "siren": ("siren", "alarm"),
    "trumpet": ("trumpet", "horn"),
    "owl": ("owl",),
}
VERBS: dict[str, tuple[Verb, ...]] = {
    "bell": _verbs("toll tolls tolling", "chime chimes chiming", "ring rings ringing"),
    "drum": _verbs("boom booms booming", "thump thumps thumping"),
    "dog": _verbs("bark barks barking", "woof woofs woofing"),
    "cat": _verbs("meow meows meowing", "mew mews mewing"),
    "bird": _verbs("chirp chirps chirping", "tweet tweets tweeting"),
    "whistle": _verbs("blow blows blowing", "shrill shrills shrilling"),
    "clock": _verbs("tick ticks ticking"),
    "car": _verbs("honk honks honking"),
    "train": _verbs("chug chugs chugging", "rumble rumbles rumbling"),
    "bee": _verbs("buzz buzzes buzzing", "hum hums humming"),
    "frog": _verbs("croak croaks croaking", "ribbit ribbits ribbiting"),
    "phone": _verbs("ring rings ringing", "beep beeps beeping"),
    "piano": _verbs("play plays playing", "tinkle tinkles tinkling"),
    "siren": _verbs("wail wails wailing", "howl howls howling"),
    "trumpet": _verbs("blare blares blaring", "toot toots tooting"),
    "owl": _verbs(
        "hoot hoots hooting",
    ),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "purple", "violet"),
    "brown": ("brown",),
    "white": ("white",),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "in a grassy field", "on the grass"),
    "night": ("under the night sky", "at night", "under the stars"),
    "brick": ("in front of a brick wall", "against a wall of bricks", "by a brick wall"),
    "beach": ("on a beach", "on the beach by the shore", "at the seaside"),
    "snow": ("in the snow", "on a snowy hill", "on winter snow"),
    "desert": ("in the desert", "among desert dunes", "on the dunes"),
    "sea": ("on the sea", "over the ocean", "above the waves of the ocean"),
    "forest": ("in a forest", "among the trees", "in the woods"),
}
RARE_WORDS = (
    "peculiar", "quaint", "splendid", "mysterious", "shabby", "gleaming", "weathered", "dainty",
    "ornate", "grubby", "handsome", "fabled",
)  # fmt: skip
"""Words of test captions that are in no training caption."""

RARE_SHARE = 0.11
HEARD_ONLY_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class VideoCaption:
    """A video's sentence and the facts it states, a subset of the scene's facts."""

    text: str
    seen_facts: tuple[str, ...]
    heard_facts: tuple[str, ...]


class _Writer:
    """Chooses words and records the facts they state."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._units = iter(rng.random(64).tolist())
        self.seen: list[str] = []
        self.heard: list[str] = []

    def chance(self, share: float) -> bool:
        return bool(next(self._units) < share)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(next(self._units) * len(options))]

    def verb(self, kind: str) -> Verb:
        return self.pick(VERBS[kind])

    def noun(self, kind: str) -> str:
        return self.pick(NOUNS[kind])

    def thing(self, thing: Thing, *, first: str = "", acting: str = "") -> str:
        """`a [first] [large] [acting] [red] drum`, with the facts that were mentioned."""
        words = [first]
        self.seen.append(f"thing={thing.kind}")
        if self.chance(0.35):
            words.append(self.pick(SIZE_WORDS[thing.size]))
            self.seen.append(size_fact(thing))
        words.append(acting)
        if self.chance(0.82):
            words.append(self.pick(COLOUR_WORDS[thing.colour]))
            self.seen.append(colour_fact(thing))
        words.append(self.noun(thing.kind))
        return with_article(" ".join(filter(None, words)))

    def place(self, background: str, share: float) -> str:
        """` in the snow`, or nothing."""
        if not self.chance(share):
            return ""
        self.seen.append(f"background={background}")
        return " " + self.pick(PLACES[background])


def with_article(phrase: str) -> str:
    """`a drum`, `an owl`."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def image_captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five sentences, each about what is visible in the scene and nothing else."""
    captions = []
    for _ in range(5):
        text = _image_caption(scene, _Writer(rng))
        captions.append(text[0].upper() + text[1:] + ".")
    return captions


def _image_caption(scene: Scene, writer: _Writer) -> str:
    main = scene.things[0]
    verb = writer.verb(main.kind)
    acting = writer.chance(0.3)
    if writer.chance(0.1):
        noun = writer.noun(main.kind)
        place = writer.place(scene.background, 0.85)
        return f"you can almost hear the {noun} {verb.base}{place}"
    text = writer.thing(main, acting=verb.ongoing if acting and writer.chance(0.5) else "")
    if acting and verb.ongoing not in text:
        text += writer.pick(
            (f" that is {verb.ongoing}", f" {verb.ongoing}", f" that {verb.present}")
        )
    if len(scene.things) == 2 and writer.chance(0.75):
        joint = writer.pick((" and ", " next to ", " beside ", " together with "))
        text += joint + writer.thing(scene.things[1])
    elif main.size == "small" and writer.chance(0.12):
        text += " in the distance"
    place = writer.place(scene.background, 0.85)
    if place and writer.chance(0.12):
        return f"somewhere{place} there is {text}"
    return writer.pick(
        (
            f"{text}{place}",
            f"{text}{place}",
            f"there is {text}{place}",
            f"a photo of {text}{place}",
            f"a close view of {text}{place}",
            f"a shot of {text}{place}",
            f"{text} in plain sight{place}",
            f"{text} can be seen{place}",
            f"you can see {text}{place}",
        )
    )


def video_caption(scene: Scene, rng: np.random.Generator) -> VideoCaption:
    """One lower-case sentence with true facts; usually names the off-screen sound, if any."""
    writer = _Writer(rng)
    main = scene.things[0]
    rare = writer.pick(RARE_WORDS) if writer.chance(RARE_SHARE) else ""
    audible = any(sound.on_screen and sound.kind == main.kind for sound in scene.sounds)
    if audible and writer.chance(0.5):
        writer.heard.append(f"hear={main.kind}")
        verb = writer.verb(main.kind)
        if writer.chance(0.5):
            text = writer.thing(main, first=rare, acting=verb.ongoing)
        else:
            text = writer.thing(main, first=rare) + writer.pick((" that is ", " ")) + verb.ongoing
    else:
        text = writer.thing(main, first=rare)
    if len(scene.things) == 2 and writer.chance(0.7):
        joint = writer.pick((" and ", " next to ", " beside "))
        text += joint + writer.thing(scene.things[1])
    text += writer.place(scene.background, 0.78)
    text = writer.pick(("", "", "", "a shot of ", "a close view of ", "a photo of ")) + text
    hidden = [sound for sound in scene.sounds if not sound.on_screen]
    if hidden and writer.chance(HEARD_ONLY_SHARE):
        text = _with_hidden(text, hidden[0], writer)
    return VideoCaption(text=text, seen_facts=tuple(writer.seen), heard_facts=tuple(writer.heard))


def _with_hidden(text: str, sound: Sound, writer: _Writer) -> str:
    noun, verb = with_article(writer.noun(sound.kind)), writer.verb(sound.kind)
    writer.heard.append(f"hear={sound.kind}")
    return writer.pick(
        (
            f"{text} while {noun} {verb.present} out of sight",
            f"{text} as {noun} {verb.present} in the distance",
            f"{text} and {noun} is {verb.ongoing} somewhere out of sight",
            f"{text} with {noun} {verb.ongoing} out of sight",
            f"{text} where you can hear {noun} {verb.base}",
            f"you hear {noun} {verb.ongoing} and see {text}",
            f"somewhere {noun} {verb.present} and you see {text}",
        )
    )
