"""What a scene sounds like: each kind has its own timbre and rhythm, small sources a higher pitch.

A sound is an event of at most 1.4 s that repeats at most every 1.5 s, so every window of 3 s
contains a complete one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimodal.download.demo.scenes import Scene, Sound

Wave = NDArray[np.float32]

PITCH_OF_SIZE = {"small": 1.5, "large": 1.0}
OFF_SCREEN_GAIN = 0.65
NOISE_LEVEL = 0.004
_SOUND_STREAM = 1


class Synth:
    """One event's canvas: `t` in seconds at `rate_hz`, a pitch factor, and a source of noise."""

    def __init__(
        self, seconds: float, rate_hz: int, pitch: float, rng: np.random.Generator
    ) -> None:
        self.t = (np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)
        self.rate_hz, self.pitch, self.rng = rate_hz, pitch, rng

    def glide(self, hz: Sequence[float], at_s: Sequence[float]) -> Wave:
        """Phase in radians of a tone whose frequency runs through `hz` at the times `at_s`."""
        path = np.interp(self.t, at_s, np.asarray(hz) * self.pitch)
        return (2 * np.pi * np.cumsum(path) / self.rate_hz).astype(np.float32)

    def tone(self, hz: float, harmonics: Sequence[float] = (1.0,)) -> Wave:
        """Harmonics of a steady tone by amplitude; those above 0.48 of the rate are left out."""
        return self.harmonics(self.glide((hz, hz), (0, 1)), hz, harmonics)

    def harmonics(self, phase: Wave, top_hz: float, amplitudes: Sequence[float]) -> Wave:
        """The sum over n of `amplitudes[n - 1] * sin(n * phase)` below 0.48 of the rate."""
        wave = np.zeros_like(self.t)
        for n, amplitude in enumerate(amplitudes, start=1):
            if n * top_hz * self.pitch < 0.48 * self.rate_hz:
                wave += np.float32(amplitude) * np.sin(n * phase)
        return wave

    def decay(self, start_s: float, per_s: float) -> Wave:
        """Zero before `start_s`, then 1 falling by e each 1 / `per_s` seconds."""
        age = self.t - np.float32(start_s)
        fall = np.exp(-np.float32(per_s) * np.maximum(age, 0))
        wave: Wave = np.where(age >= 0, fall, 0).astype(np.float32)
        return wave

    def gate(self, start_s: float, end_s: float, edge_s: float = 0.02) -> Wave:
        """One within [start_s, end_s), with linear edges of `edge_s`."""
        rise, fall = (self.t - start_s) / edge_s, (end_s - self.t) / edge_s
        wave: Wave = np.clip(np.minimum(rise, fall), 0, 1).astype(np.float32)
        return wave

    def tremolo(self, mean: float, depth: float, hz: float) -> Wave:
        """An amplitude that swings by `depth` around `mean`, `hz` times a second."""
        wave: Wave = (mean + depth * np.sin(2 * np.pi * hz * self.t)).astype(np.float32)
        return wave

    def noise(self, smooth: int = 1) -> Wave:
        """Unit-variance noise, low-passed by a moving mean of `smooth` samples."""
        wave = self.rng.standard_normal(len(self.t), dtype=np.float32)
        if smooth > 1:
            wave = np.convolve(wave, np.ones(smooth, np.float32) / smooth**0.5, "same")
        return wave


def _bell(s: Synth) -> Wave:
    partials = ((1.0, 1.0, 2.2), (2.0, 0.6, 3.0), (2.76, 0.5, 4.0), (5.4, 0.3, 7.0))
    return sum(
        (s.tone(500 * ratio, (gain,)) * s.decay(0, per_s) for ratio, gain, per_s in partials),
        start=np.zeros_like(s.t),
    )


def _drum(s: Synth) -> Wave:
    hit = np.zeros_like(s.t)
    for start in (0.0, 0.28):
        phase = s.glide((60, 170, 70, 55), (start, start + 0.001, start + 0.08, start + 0.4))
        hit += np.sin(phase) * s.decay(start, 11) + 0.15 * s.noise(4) * s.decay(start, 60)
    return hit


def _dog(s: Synth) -> Wave:
    bark = np.zeros_like(s.t)
    for start in (0.0, 0.3):
        phase = s.glide((300, 520, 260), (start, start + 0.05, start + 0.2))
        voice = s.harmonics(phase, 520, (0.6, 1.0, 0.8, 0.6, 0.3, 0.2)) + 0.5 * s.noise(3)
        bark += voice * s.gate(start, start + 0.2, 0.03)
    return bark


def _cat(s: Synth) -> Wave:
    phase = s.glide((520, 880, 820, 540), (0, 0.2, 0.5, 0.85))
    phase += np.float32(0.4) * np.sin(2 * np.pi * 6 * s.t)
    return s.harmonics(phase, 880, (1.0, 0.7, 0.5, 0.15)) * s.gate(0, 0.85, 0.12)


def _bird(s: Synth) -> Wave:
    song = np.zeros_like(s.t)
    for start in (0.0, 0.12, 0.24, 0.42, 0.54):
        phase = s.glide((2500, 3600, 3000), (start, start + 0.05, start + 0.09))
        song += s.harmonics(phase, 3600, (1.0,)) * s.gate(start, start + 0.09, 0.015)
    return song


def _whistle(s: Synth) -> Wave:
    trill = s.tremolo(0.6, 0.4, 32)
    return (s.tone(2050, (1.0, 0.1)) * trill + 0.06 * s.noise()) * s.gate(0, 0.65)


def _clock(s: Synth) -> Wave:
    wave = np.zeros_like(s.t)
    for start, hz in ((0.0, 1900), (0.25, 1500), (0.5, 1900), (0.75, 1500)):
        wave += (s.tone(hz) + 0.7 * s.noise()) * s.decay(start, 130)
    return wave


def _car(s: Synth) -> Wave:
    reed = (1.0, 0.0, 0.6, 0.0, 0.4, 0.0, 0.25)
    return (s.tone(370, reed) + s.tone(466, reed)) * (s.gate(0, 0.22) + s.gate(0.34, 0.85))


def _train(s: Synth) -> Wave:
    puffs = sum((s.decay(k * 0.2, 14) for k in range(7)), start=np.zeros_like(s.t))
    return s.noise(max(2, s.rate_hz // 2600)) * puffs + 0.5 * s.tone(48, (1.0, 0.6))


def _bee(s: Synth) -> Wave:
    phase = s.glide((185, 215, 190, 205), (0, 0.4, 0.9, 1.3))
    wing = s.harmonics(phase, 215, (1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2))
    return wing * s.tremolo(0.8, 0.2, 3) * s.gate(0, 1.35, 0.1)


def _frog(s: Synth) -> Wave:
    pulses: Wave = np.maximum(0, s.tremolo(0, 1, 34)) ** 4
    gates = s.gate(0, 0.28) + s.gate(0.42, 0.7)
    wave: Wave = (s.tone(470) + 0.6 * s.tone(940) + 0.1 * s.noise(4)) * pulses * gates
    return wave


def _phone(s: Synth) -> Wave:
    switch = np.sin(2 * np.pi * 11 * s.t) > 0
    return np.where(switch, s.tone(1150, (1, 0, 0.3)), s.tone(1440, (1, 0, 0.3))) * s.gate(0, 0.75)


def _piano(s: Synth) -> Wave:
    wave = np.zeros_like(s.t)
    for start, hz in ((0.0, 262), (0.22, 330), (0.44, 392), (0.66, 523)):
        wave += s.tone(hz, (1.0, 0.5, 0.25, 0.12, 0.06)) * s.decay(start, 5)
    return wave


def _siren(s: Synth) -> Wave:
    phase = s.glide((750, 1700, 750), (0, 0.7, 1.4))
    return s.harmonics(phase, 1700, (1.0, 0.0, 0.3)) * s.gate(0, 1.4)


def _trumpet(s: Synth) -> Wave:
    brass = (0.6, 0.9, 1.0, 0.9, 0.7, 0.5, 0.35, 0.25)
    notes = ((392, 0.0, 0.18), (392, 0.22, 0.4), (587, 0.44, 1.0))
    return sum(
        (s.tone(hz, brass) * s.gate(start, end, 0.03) for hz, start, end in notes),
        start=np.zeros_like(s.t),
    )


def _owl(s: Synth) -> Wave:
    wave = np.zeros_like(s.t)
    for start, end in ((0.0, 0.22), (0.4, 0.58), (0.66, 1.15)):
        phase = s.glide((330, 370, 335), (start, (start + end) / 2, end))
        wave += s.harmonics(phase, 370, (1.0, 0.08)) * s.gate(start, end, 0.06)
    return wave


class Recipe(NamedTuple):
    """How a kind sounds: an event's length, the time to the next one, its peak."""

    wave: Callable[[Synth], Wave]
    event_seconds: float
    period_seconds: float
    peak: float


RECIPES: dict[str, Recipe] = {
    "bell": Recipe(_bell, 1.3, 1.45, 0.5),
    "drum": Recipe(_drum, 0.75, 0.95, 0.6),
    "dog": Recipe(_dog, 0.55, 1.2, 0.5),
    "cat": Recipe(_cat, 0.9, 1.4, 0.45),
    "bird": Recipe(_bird, 0.7, 1.05, 0.35),
    "whistle": Recipe(_whistle, 0.7, 1.1, 0.35),
    "clock": Recipe(_clock, 1.0, 1.0, 0.6),
    "car": Recipe(_car, 0.9, 1.4, 0.45),
    "train": Recipe(_train, 1.4, 1.4, 0.55),
    "bee": Recipe(_bee, 1.4, 1.45, 0.4),
    "frog": Recipe(_frog, 0.75, 1.1, 0.55),
    "phone": Recipe(_phone, 0.8, 1.4, 0.4),
    "piano": Recipe(_piano, 1.2, 1.3, 0.5),
    "siren": Recipe(_siren, 1.4, 1.4, 0.4),
    "trumpet": Recipe(_trumpet, 1.05, 1.4, 0.45),
    "owl": Recipe(_owl, 1.2, 1.45, 0.5),
}


def scene_audio(scene: Scene, rate_hz: int, seconds: float) -> Wave | None:
    """The clip's mono track, float32 (samples,) in [-1, 1]; None if the scene is silent."""
    if scene.silent:
        return None
    rng = np.random.default_rng([scene.seed, _SOUND_STREAM])
    samples = round(seconds * rate_hz)
    level = NOISE_LEVEL * rng.uniform(0.95, 1.05)
    track = rng.standard_normal(samples, dtype=np.float32) * np.float32(level)
    for sound in scene.sounds:
        _add_events(track, sound, rate_hz, rng)
    peak = float(np.abs(track).max(initial=0))
    return track if peak <= 0.98 else track * np.float32(0.98 / peak)


def _add_events(track: Wave, sound: Sound, rate_hz: int, rng: np.random.Generator) -> None:
    recipe = RECIPES[sound.kind]
    pitch = PITCH_OF_SIZE[sound.size] * float(np.exp(rng.normal(0, 0.015)))
    event = recipe.wave(Synth(recipe.event_seconds, rate_hz, pitch, rng)).astype(np.float32)
    gain = recipe.peak * rng.uniform(0.95, 1.05) * (1 if sound.on_screen else OFF_SCREEN_GAIN)
    event *= np.float32(gain / max(float(np.abs(event).max()), 1e-9))
    period = recipe.period_seconds * rate_hz
    start = -rng.uniform(0, 1) * period
    while start < len(track):
        offset = round(start)
        part = event[max(0, -offset) : max(0, len(track) - offset)]
        track[max(0, offset) : max(0, offset) + len(part)] += part
        start += period * rng.uniform(0.97, 1.03)
