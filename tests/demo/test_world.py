import dataclasses
import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trimodal.core.config import ConfigError, parse_section
from trimodal.download.demo.captions import COLOUR_WORDS, NOUNS, PLACES, SIZE_WORDS, VERBS
from trimodal.download.demo.scenes import Scene, heard_facts, seen_facts
from trimodal.download.demo.world import (
    DemoConfig,
    World,
    image_captions,
    sample_world,
    unseen_in_training,
    video_caption,
)


@pytest.fixture(scope="module")
def many(cfg: DemoConfig) -> World:
    return sample_world(dataclasses.replace(cfg, clips=1500, images_per_clip=1))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def owners(table: dict[str, tuple[str, ...]], text: str) -> set[str]:
    """Keys of `table` that have one of their words in `text`."""
    return {key for key, options in table.items() if set(options) & set(words(text))}


def kinds_of_verbs(text: str) -> list[set[str]]:
    """For each sound verb in `text`, the kinds that it fits; a noun is never taken for a verb."""
    return [
        kinds
        for word in words(text)
        if (kinds := {k for k, verbs in VERBS.items() if any(word in verb for verb in verbs)})
    ]


def backgrounds_in(text: str) -> set[str]:
    return {
        background
        for background, phrases in PLACES.items()
        if any(re.search(rf"\b{phrase}\b", text.lower()) for phrase in phrases)
    }


def described(scene: Scene, seed: int = 0) -> list[str]:
    return image_captions(scene, np.random.default_rng([seed, scene.seed]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clips", 5),
        ("clips", 100_001),
        ("seed", -1),
        ("clip_seconds", math.nan),
        ("clip_seconds", 2.9),
        ("frame_px", 65),
        ("fps", 0),
        ("audio_rate_hz", 4_000),
        ("images_per_clip", 0),
    ],
)
def test_a_value_out_of_range_is_named(cfg: DemoConfig, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^demo\.{key}: "):
        parse_section(dataclasses.asdict(cfg) | {key: value}, "demo", DemoConfig)
    with pytest.raises(ValidationError, match=rf"(?m)^{key}$"):
        dataclasses.replace(cfg, **{key: value})


def test_same_config_same_world_and_other_seed_other_world(cfg: DemoConfig, world: World) -> None:
    assert sample_world(cfg) == world
    other = sample_world(dataclasses.replace(cfg, seed=cfg.seed + 1))
    assert other.train[0] != world.train[0]
    assert other.test[0] != world.test[0]


@pytest.mark.parametrize("clips", [6, 7, 9, 13, 100])
def test_counts_add_up_at_any_scale(cfg: DemoConfig, clips: int) -> None:
    world = sample_world(dataclasses.replace(cfg, clips=clips))
    assert len(world.test) == max(2, round(clips / 7))
    assert len(world.train) + len(world.test) == clips
    images = [*world.images_coco_train, *world.images_coco_val, *world.images_flickr]
    assert len(images) == clips * cfg.images_per_clip
    assert len({scene.name for scene in images}) == len(images)
    assert any(scene.silent for scene in world.test)


def test_a_larger_world_begins_with_the_smaller_one(cfg: DemoConfig, world: World) -> None:
    larger = sample_world(dataclasses.replace(cfg, clips=2 * cfg.clips))
    facts = [seen_facts(scene) for scene in world.train]
    assert [seen_facts(scene) for scene in larger.train[: len(facts)]] == facts


def test_names_are_like_those_of_the_real_sets(many: World) -> None:
    names = [scene.name for scene in many.train]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}_\d{6}", name) for name in names)
    assert len(set(names)) == len(names)
    assert {"-", "_"} <= {name[0] for name in names}
    assert max(Counter(name[:11] for name in names).values()) == 2
    expected = [f"video{7000 + i}" for i in range(len(many.test))]
    assert [scene.name for scene in many.test] == expected
    coco = [*many.images_coco_train, *many.images_coco_val]
    assert all(re.fullmatch(r"\d{12}\.jpg", scene.name) for scene in coco)
    flickr = [scene.name for scene in many.images_flickr]
    assert all(re.fullmatch(r"\d+(_[0-9a-f]{10})?\.jpg", name) for name in flickr)
    assert 0.1 < sum("_" not in name for name in flickr) / len(flickr) < 0.3


def test_twins_look_the_same_and_sound_different(many: World) -> None:
    assert 0.37 <= 2 * len(many.twins) / len(many.test) <= 0.43
    members = [index for pair in many.twins for index in pair]
    assert len(set(members)) == len(members)
    for first, second in many.twins:
        one, other = many.test[first], many.test[second]
        assert (one.background, one.things) == (other.background, other.things)
        hidden = [{s.kind for s in scene.sounds if not s.on_screen} for scene in (one, other)]
        assert all(hidden)
        assert not hidden[0] & hidden[1]


def test_shares_of_the_test_videos(many: World) -> None:
    test = many.test
    off = [any(not s.on_screen for s in scene.sounds) for scene in test]
    assert 0.57 <= np.mean(off) <= 0.63
    assert 0.04 <= np.mean([scene.silent for scene in test]) <= 0.08
    quiet = [
        not any(s.on_screen for s in scene.sounds)
        for scene, is_off in zip(test, off, strict=True)
        if is_off
    ]
    assert 0.45 <= np.mean(quiet) <= 0.55


def test_shares_of_the_training_clips(many: World) -> None:
    main = [any(s.on_screen for s in scene.sounds) for scene in many.train]
    off = [any(not s.on_screen for s in scene.sounds) for scene in many.train]
    second = [len(scene.things) == 2 for scene in many.train]
    assert 0.93 <= np.mean(main) <= 0.97
    assert 0.07 <= np.mean(off) <= 0.13
    assert 0.45 <= np.mean(second) <= 0.55


def test_sounds_agree_with_visible_things(many: World) -> None:
    for scene in (*many.train, *many.test):
        visible = {thing.kind: thing.size for thing in scene.things}
        assert len(visible) == len(scene.things)
        for sound in scene.sounds:
            assert sound.on_screen == (sound.kind in visible)
            assert not sound.on_screen or visible[sound.kind] == sound.size
        assert not (scene.silent and scene.sounds)


def test_some_kinds_are_before_some_backgrounds_only_in_the_test(many: World) -> None:
    def held_out(scenes: tuple[Scene, ...]) -> int:
        return sum(unseen_in_training(t.kind, s.background) for s in scenes for t in s.things)

    assert held_out(many.train) == 0
    assert held_out((*many.images_coco_train, *many.images_coco_val, *many.images_flickr)) == 0
    assert held_out(many.test) > 20


def test_no_noun_or_verb_is_shared_by_accident() -> None:
    nouns = [noun for options in NOUNS.values() for noun in options]
    assert len(set(nouns)) == len(nouns)
    verbs = {form for options in VERBS.values() for verb in options for form in verb}
    assert not verbs & set(nouns)
    ambiguous = {v for v in verbs if sum(any(v in f for f in o) for o in VERBS.values()) > 1}
    assert ambiguous == {"ring", "rings", "ringing"}


def test_image_captions_state_only_what_is_visible(many: World) -> None:
    varied = set()
    for scene in many.images_coco_train[:400]:
        captions = described(scene)
        assert len(captions) == 5
        for text in captions:
            varied.add(re.sub(r"\b(an?|the)\b", "", text))
            visible = {thing.kind for thing in scene.things}
            assert owners(NOUNS, text) <= visible
            assert scene.things[0].kind in owners(NOUNS, text)
            assert owners(COLOUR_WORDS, text) <= {thing.colour for thing in scene.things}
            assert owners(SIZE_WORDS, text) <= {thing.size for thing in scene.things}
            assert backgrounds_in(text) <= {scene.background}
            assert all(kinds & visible for kinds in kinds_of_verbs(text))
    assert len(varied) > 1200


def test_image_captions_ignore_off_screen_sounds(many: World) -> None:
    scenes = [scene for scene in many.train if any(not s.on_screen for s in scene.sounds)][:60]
    for scene in scenes:
        mute = dataclasses.replace(scene, sounds=(), silent=True)
        assert described(scene) == described(mute)
        assert all(owners(NOUNS, t) <= {x.kind for x in scene.things} for t in described(scene))


def test_video_captions_state_exactly_their_facts_and_these_are_true(many: World) -> None:
    for scene in many.test:
        caption = video_caption(scene, np.random.default_rng(scene.seed))
        seen, heard = set(caption.seen_facts), set(caption.heard_facts)
        assert len(seen) == len(caption.seen_facts)
        assert seen <= set(seen_facts(scene))
        assert heard <= set(heard_facts(scene))
        text = caption.text
        stated = {fact.partition("=")[2] for fact in seen}
        kinds = {fact.removeprefix("thing=") for fact in seen if fact.startswith("thing=")}
        heard_kinds = {fact.removeprefix("hear=") for fact in heard}
        assert owners(NOUNS, text) == kinds | heard_kinds
        assert owners(COLOUR_WORDS, text) == stated & set(COLOUR_WORDS)
        assert owners(SIZE_WORDS, text) == stated & set(SIZE_WORDS)
        assert backgrounds_in(text) == stated & set(PLACES)
        spoken = kinds_of_verbs(text)
        assert len(spoken) == len(heard)
        assert all(verb_kinds & heard_kinds for verb_kinds in spoken)


def test_captions_of_test_videos_name_hidden_sounds_and_omit_some_things(many: World) -> None:
    captions = [video_caption(s, np.random.default_rng(s.seed)) for s in many.test]
    hidden = [{f"hear={s.kind}" for s in scene.sounds if not s.on_screen} for scene in many.test]
    named = [bool(h & set(c.heard_facts)) for h, c in zip(hidden, captions, strict=True)]
    assert 0.45 <= np.mean(named) <= 0.6
    placed = [any(f.startswith("background=") for f in c.seen_facts) for c in captions]
    assert 0.65 <= np.mean(placed) <= 0.9
    assert len({c.text for c in captions}) > 0.95 * len(captions)


def test_a_few_words_of_test_captions_are_in_no_training_caption(many: World) -> None:
    known = {w for s in many.images_coco_train for text in described(s) for w in words(text)}
    tokens = [
        word
        for s in many.test
        for word in words(video_caption(s, np.random.default_rng(s.seed)).text)
    ]
    carriers = {"while", "as", "out", "where"}
    unknown = [word for word in tokens if word not in known | carriers]
    assert 0.005 <= len(unknown) / len(tokens) <= 0.02
