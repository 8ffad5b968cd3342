from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trimodal.download.demo.audio import RECIPES, scene_audio
from trimodal.download.demo.draw import clip_frames, draw_scene, sounding_boxes
from trimodal.download.demo.render import render_clip
from trimodal.download.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    Motion,
    Scene,
    Size,
    Sound,
    Thing,
)
from trimodal.download.demo.sprites import PALETTE, sprite
from trimodal.download.demo.world import DemoConfig, World

RATE_HZ = 16_000


def scene_of(
    kind: str,
    *,
    seed: int,
    size: Size = "large",
    background: str = "meadow",
    on_screen: bool = True,
) -> Scene:
    thing = Thing(kind=kind, colour="red", size=size, position=(0.5, 0.55), motion="sway")
    return Scene(
        name="x",
        background=background,
        things=(thing,),
        sounds=(Sound(kind=kind, size=size, on_screen=on_screen),),
        silent=False,
        seed=seed,
    )


def audio_of(scene: Scene, seconds: float = 6, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    wave = scene_audio(scene, rate_hz, seconds)
    assert wave is not None
    return wave


def signature(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """A unit vector of the power in 40 log-spaced bands and of the loudness's modulation."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::160] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.geomspace(2, 512, 41).astype(int)
    bands = np.log10(np.add.reduceat(power.mean(0), edges[:-1]) + 1e-2)
    loudness = np.sqrt(power.sum(1))
    beat = np.abs(np.fft.rfft(loudness - loudness.mean()))[1:200]
    beat = np.add.reduceat(beat, np.arange(0, 199, 10))
    parts = [bands - bands.mean(), 3 * beat / beat.max()]
    features = np.concatenate(parts)
    return np.asarray(features / np.linalg.norm(features))


@pytest.mark.parametrize("size", ["small", "large"])
def test_each_kind_is_recognised_by_its_sound(size: Size) -> None:
    one = np.stack([signature(audio_of(scene_of(k, seed=1, size=size))) for k in KINDS])
    other = np.stack([signature(audio_of(scene_of(k, seed=2, size=size))) for k in KINDS])
    nearest = (one @ other.T).argmax(1)
    assert [KINDS[i] for i in nearest] == list(KINDS)


def test_no_two_kinds_share_a_timbre() -> None:
    bands = np.stack([signature(audio_of(scene_of(kind, seed=1)))[:40] for kind in KINDS])
    alike = np.corrcoef(bands) - np.eye(len(KINDS))
    assert alike.max() < 0.93, KINDS[alike.argmax() // 16] + "/" + KINDS[alike.argmax() % 16]


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("clock", "train")])
def test_small_sources_sound_higher(kind: str) -> None:
    def centre(size: Size) -> float:
        power = np.abs(np.fft.rfft(audio_of(scene_of(kind, seed=4, size=size)))) ** 2
        return float((power * np.arange(len(power))).sum() / power.sum())

    assert centre("small") > 1.15 * centre("large")


@pytest.mark.parametrize("kind", KINDS)
def test_every_window_of_three_seconds_holds_the_sound(kind: str) -> None:
    assert RECIPES[kind].event_seconds + 1.03 * RECIPES[kind].period_seconds <= 3
    hidden = scene_of(kind, seed=5, on_screen=False)
    wave = audio_of(hidden, 10)
    floor = 0.03
    for start in np.arange(0, 7.01, 0.25):
        window = wave[round(start * RATE_HZ) : round((start + 3) * RATE_HZ)]
        assert np.abs(window).max() > 4 * floor
        assert (np.abs(window) > floor).sum() > 0.015 * RATE_HZ


def test_off_screen_sounds_are_quieter_but_clear() -> None:
    for kind in KINDS:
        near = np.abs(audio_of(scene_of(kind, seed=6))).max()
        far = np.abs(audio_of(scene_of(kind, seed=6, on_screen=False))).max()
        assert 0.5 < far / near < 0.85


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_tracks_are_float32_in_range_and_repeatable(world: World, rate_hz: int) -> None:
    for scene in world.test[:12]:
        wave = scene_audio(scene, rate_hz, 4.0)
        if scene.silent:
            assert wave is None
            continue
        assert wave is not None
        assert wave.dtype == np.float32
        assert wave.shape == (4 * rate_hz,)
        assert np.abs(wave).max() <= 1
        np.testing.assert_array_equal(wave, scene_audio(scene, rate_hz, 4.0))


def test_each_kind_is_recognised_by_its_drawing() -> None:
    def drawing(kind: str, colour: str) -> NDArray[np.float64]:
        pixels = np.asarray(sprite(kind, colour).convert("RGBA").reduce(6), dtype=np.float64)
        grey = pixels[..., :3].mean(-1) * pixels[..., 3] / 255 + 255 - pixels[..., 3]
        return np.asarray((grey - grey.mean()).ravel())

    one = np.stack([drawing(kind, "red") for kind in KINDS])
    other = np.stack([drawing(kind, "green") for kind in KINDS])
    assert list(np.corrcoef(one, other)[: len(KINDS), len(KINDS) :].argmax(1)) == list(range(16))
    alike = np.corrcoef(one) - np.eye(len(KINDS))
    assert alike.max() < 0.9


def test_colours_and_backgrounds_differ() -> None:
    palette = np.array([PALETTE[colour] for colour in COLOURS], dtype=np.float64)
    apart = np.linalg.norm(palette[:, None] - palette[None], axis=-1) + 1e9 * np.eye(len(COLOURS))
    assert apart.min() > 80

    def rows(background: str, seed: int) -> NDArray[np.float64]:
        frame = draw_scene(scene_of("bee", seed=seed, size="small", background=background), 0, 64)
        cells = frame.reshape(8, 8, 8, 8, 3).mean((1, 3))
        return np.asarray(cells.ravel())

    one = np.stack([rows(background, 1) for background in BACKGROUNDS])
    other = np.stack([rows(background, 2) for background in BACKGROUNDS])
    distance = np.linalg.norm(one[:, None] - other[None], axis=-1)
    assert list(distance.argmin(1)) == list(range(len(BACKGROUNDS)))


def test_the_thing_has_the_scenes_position_and_colour() -> None:
    scene = scene_of("phone", seed=3, background="snow")
    frame = draw_scene(scene, 0, 96).astype(int)
    red = (frame[..., 0] > 150) & (frame[..., 1] < 90) & (frame[..., 2] < 90)
    y, x = np.nonzero(red)
    assert len(y) > 150
    assert abs(x.mean() / 96 - 0.5) < 0.1
    assert abs(y.mean() / 96 - 0.55) < 0.1


@pytest.mark.parametrize("motion", ["still", "sway", "drift", "bob"])
def test_the_box_is_around_what_the_sounding_thing_changes_in_the_picture(motion: Motion) -> None:
    """Seen by drawing the scene without the thing. 5 pictures a second: none at second 0.5."""
    loud = Thing(kind="drum", colour="red", size="small", position=(0.2, 0.5), motion=motion)
    quiet = Thing(kind="cat", colour="blue", size="small", position=(0.75, 0.6), motion="still")
    scene = replace(scene_of("drum", seed=4), things=(loud, quiet))
    without = replace(scene, things=())
    boxes = sounding_boxes(scene, seconds=3.0, fps=5, frame_px=96)
    assert [len(of_frame) for of_frame in boxes] == [1, 1, 1]
    for shown_at, ((left, top, right, bottom),) in zip((0.4, 1.4, 2.4), boxes, strict=True):
        drawn = draw_scene(scene, shown_at, 96)[:, :50].astype(int)
        changed = np.abs(drawn - draw_scene(without, shown_at, 96)[:, :50]).max(axis=2) > 60
        y, x = np.nonzero(changed)
        seen = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        np.testing.assert_allclose(np.array((left, top, right, bottom)) * 96, seen, atol=1.01)


def test_only_what_is_seen_and_heard_has_a_box_and_it_ends_with_the_frame() -> None:
    clip = {"seconds": 2.0, "fps": 4, "frame_px": 64}
    assert sounding_boxes(scene_of("owl", seed=1, on_screen=False), **clip) == [[], []]
    both = scene_of("owl", seed=1)
    other = replace(both.things[0], kind="bee", position=(0.0, 0.5))
    two = replace(both, things=(*both.things, other))
    assert [len(of_frame) for of_frame in sounding_boxes(two, **clip)] == [1, 1]
    bee = Sound(kind="bee", size="large", on_screen=True)
    two = replace(two, sounds=(*two.sounds, bee))
    for owl_box, bee_box in sounding_boxes(two, **clip):
        assert owl_box[0] > bee_box[0] == 0.0
        assert all(0 <= edge <= 1 for edge in (*owl_box, *bee_box))


def test_frames_are_repeatable_and_move() -> None:
    scene = scene_of("dog", seed=9)
    frames = list(clip_frames(scene, seconds=2.0, fps=4, frame_px=64))
    assert len(frames) == 8
    assert {(f.shape, f.dtype.name) for f in frames} == {((64, 64, 3), "uint8")}
    np.testing.assert_array_equal(frames[6], draw_scene(scene, 1.5, 64))
    assert any((frames[0] != frame).any() for frame in frames[1:])


def test_a_clip_becomes_a_file_with_or_without_audio(
    world: World, cfg: DemoConfig, tmp_path: Path
) -> None:
    av = pytest.importorskip("av")
    for silent in (False, True):
        scene = next(scene for scene in world.test if scene.silent == silent)
        path = tmp_path / f"{scene.name}.mp4"
        render_clip(scene, path, cfg)
        with av.open(str(path)) as container:
            assert len(container.streams.audio) == (0 if silent else 1)
            video = container.streams.video[0]
            assert (video.width, video.height) == (cfg.frame_px, cfg.frame_px)
            assert container.duration / 1e6 == pytest.approx(cfg.clip_seconds, abs=0.15)
