"""Numerical agreement with the authors' code (docs/method.md), and where we differ on purpose.

The oracles are plain loops in float64 from the formulas; figures called RECORDED are what the
authors' own code gave for the same arrays. Not repeated here:

- losses against loops and autograd, in both reductions: test_ranking
- a window cut from a stored mel against librosa's of just those 3 seconds, quiet audio: test_mel
- stop words, ids of unknown words and padding, the vocabulary's zero rows: test_text

What comes after the networks is in test_authors_evaluation.
"""

import math
from collections import Counter
from dataclasses import replace

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import torch
from configs import config_for_tests
from data_fixtures import ENGLISH
from mel_fixtures import PAPER, scaled

from trimodal.core.text import build_vocabulary
from trimodal.losses.ranking import pair_loss
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import WindowConfig, window_decibels, window_first_column

Array = npt.NDArray[np.float64]

# Losses: m = 0.2, m' = 0.4, the mean over all (i, j != i)


def unit_rows(shift: float) -> Array:
    """(6, 5); seven hinges are active in either direction."""
    rows = [[math.sin(shift + 2.3 * i + 3.1 * k + 1.3 * i * k) for k in range(5)] for i in range(6)]
    return np.array([[x / math.hypot(*row) for x in row] for row in rows])


IMAGES, AUDIO = unit_rows(0.4), unit_rows(1.5)
RECORDED_LOSS = {None: 0.3088557144289896, 0.4: 0.31407453090065796}
RECORDED_GRADIENT = {  # of the first image and the first audio
    None: ([0.002663279817, -0.009126951465, 0.014877242603, -0.019740466059, 0.023570846776],
           [-0.046438446114, 0.017251385980, -0.007713001532, 0.019581398610, -0.029827951204]),
    0.4: ([0.002663279817, -0.009126951465, 0.014877242603, -0.019740466059, 0.023570846776],
          [-0.042622254444, 0.035052227447, -0.026886934862, 0.018322938874, -0.009568277094]),
}  # fmt: skip


def term(x: Array, y: Array, variable_margin: float | None) -> tuple[float, Array, Array]:
    """One direction with its gradients, in which the margin is a constant."""
    loss, gx, gy = 0.0, np.zeros_like(x), np.zeros_like(y)
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if j != i]
    for i, j in pairs:
        margin = 0.2
        if variable_margin is not None:
            margin = variable_margin / (1 + math.exp(sum(x[i] * x[j])))
        hinge = sum(x[i] * y[j]) - sum(x[i] * y[i]) + margin
        if hinge > 0:
            loss += hinge / len(pairs)
            gx[i] += (y[j] - y[i]) / len(pairs)
            gy[j] += x[i] / len(pairs)
            gy[i] -= x[i] / len(pairs)
    return loss, gx, gy


@pytest.mark.parametrize("variable_margin", [None, 0.4], ids=["fixed", "variable"])
def test_losses_and_their_gradients_are_the_authors(variable_margin: float | None) -> None:
    image_term = term(IMAGES, AUDIO, variable_margin)
    audio_term = term(AUDIO, IMAGES, None)
    image, audio = (torch.tensor(rows, requires_grad=True) for rows in (IMAGES, AUDIO))
    ours = pair_loss(image, audio, margin=0.2, image_variable_margin=variable_margin)
    gradients = torch.autograd.grad(ours, (image, audio))
    assert ours.item() == pytest.approx(image_term[0] + audio_term[0], rel=1e-12)
    assert ours.item() == pytest.approx(RECORDED_LOSS[variable_margin], rel=1e-12)
    slow = (image_term[1] + audio_term[2], image_term[2] + audio_term[1])
    for mine, loops, recorded in zip(
        gradients, slow, RECORDED_GRADIENT[variable_margin], strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), loops, rtol=0, atol=1e-14)
        np.testing.assert_allclose(mine.numpy()[0], recorded, rtol=0, atol=1e-12)


def test_papers_sum_is_the_authors_mean_times_the_negatives_of_an_anchor() -> None:
    """Ours to choose with ``loss.reduction``; the default is the authors' mean."""
    image, audio = torch.from_numpy(IMAGES), torch.from_numpy(AUDIO)
    paper = pair_loss(image, audio, margin=0.2, image_variable_margin=0.4, reduction="sum")
    assert paper.item() == pytest.approx(5 * RECORDED_LOSS[0.4], rel=1e-12)


# The mel: 44.1 kHz, n_fft 1024, window 882, hop 441, 128 mels -> 128 x 301


def three_seconds(extra_samples: int = 0) -> npt.NDArray[np.float32]:
    time = np.arange(3 * 44_100 + extra_samples) / 44_100
    noise = np.random.default_rng(8).standard_normal(len(time))
    loudness = 1e-4 + 0.5 * np.exp(-(((time - 1.4) / 0.3) ** 2))
    return (loudness * (0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * noise)).astype(np.float32)


def slaney_hertz(mel: float) -> float:
    """Linear up to 1 kHz (15 mel), then 27 mel for a factor of 6.4."""
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def power_mel(samples: npt.NDArray[np.float32]) -> Array:
    """(128, columns): Hann windows, a Fourier sum and triangles of equal area, spelled out."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(882) / 882)
    window = np.pad(hann, (1024 - 882) // 2)
    padded = np.pad(samples.astype(np.float64), 512)
    starts = range(0, len(samples) + 1, 441)
    frames = np.array([padded[start : start + 1024] * window for start in starts])
    angle = 2 * np.pi * np.outer(np.arange(1024), np.arange(513)) / 1024
    power = (frames @ np.cos(angle)) ** 2 + (frames @ np.sin(angle)) ** 2
    top = 15 + 27 * math.log(22_050 / 1000) / math.log(6.4)
    edges = [slaney_hertz(top * k / 129) for k in range(130)]
    mels = np.zeros((128, len(frames)))
    for m, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for k in range(513):
            hertz = k * 44_100 / 1024
            rise, fall = (hertz - low) / (centre - low), (high - hertz) / (high - centre)
            mels[m] += max(0.0, min(rise, fall)) * 2 / (high - low) * power[:, k]
    return mels


def network_input(power: Array, decibel: str) -> Array:
    """dB relative to the maximum, floor -80, (x + 40) / 40; ``amplitude`` is the authors' quirk:
    20 log10, which is for amplitudes, of a power.
    """
    factor, least = {"power": (10, 1e-10), "amplitude": (20, 1e-5)}[decibel]
    decibels = factor * np.log10(np.maximum(power, least))
    return (np.maximum(decibels - decibels.max(), -80) + 40) / 40


def authors_input(samples: npt.NDArray[np.float32], decibel: str, **how: str) -> Array:
    """With librosa, as the authors call it; for ``power`` with the function meant for powers."""
    power = librosa.feature.melspectrogram(
        y=samples, sr=44_100, n_fft=1024, win_length=882, hop_length=441, n_mels=128, **how
    )
    to_db = {"power": librosa.power_to_db, "amplitude": librosa.amplitude_to_db}[decibel]
    scaled: Array = (to_db(power, ref=np.max) + 40) / 40
    return scaled


@pytest.mark.parametrize("decibel", ["power", "amplitude"])
def test_mel_is_the_authors(decibel: str) -> None:
    samples = three_seconds()
    loops = network_input(power_mel(samples), decibel)
    theirs = authors_input(samples, decibel)
    front_end = replace(PAPER, window=config_for_tests(WindowConfig, decibel=decibel))
    stored = log_mel([samples], front_end.mel)
    ours = scaled(window_decibels(stored, 0, front_end), front_end)
    assert ours.shape == theirs.shape == loops.shape == (128, 301)
    assert 0.05 < (loops > -1).mean() < 0.95
    np.testing.assert_allclose(theirs, loops, rtol=0, atol=1e-4)
    # Half a step, and the half precision of the loudest.
    stored_db = (0.16 + 0.031) * (2 if decibel == "amplitude" else 1)
    np.testing.assert_allclose(ours, loops, rtol=0, atol=stored_db / 40)


def test_doubled_decibels_are_another_input() -> None:
    """Ours to choose with ``window.decibel``. Only what lies in the top 40 dB of power is left."""
    power = power_mel(three_seconds())
    once, doubled = network_input(power, "power"), network_input(power, "amplitude")
    np.testing.assert_allclose(doubled, np.maximum(2 * once - 1, -1), rtol=0, atol=1e-12)
    assert (doubled == -1).mean() > (once == -1).mean() + 0.2


def test_edge_columns_are_ours_and_not_the_authors() -> None:
    """The authors' librosa mirrored the audio at both ends of the three seconds, today's pads with
    zeros. Ours hold the clip's own audio, as the window is a view of the whole clip's mel.
    """
    loud_ends = np.roll(three_seconds(), 66_150)
    zeros, mirrored = (
        authors_input(loud_ends, "power", pad_mode=mode) for mode in ("constant", "reflect")
    )
    np.testing.assert_allclose(zeros[:, 1:-1], mirrored[:, 1:-1], rtol=0, atol=1e-6)
    assert np.abs(zeros - mirrored)[:, [0, -1]].max() > 0.05


@pytest.mark.parametrize("samples", [-1, -441, 441])
def test_authors_take_301_columns_or_fail(samples: int) -> None:
    """One sample short is 300 columns, at which their code stops. Ours completes with silence."""
    columns = authors_input(three_seconds(samples), "amplitude").shape[1]
    assert columns == 301 + samples // 441 != PAPER.columns == 301


@pytest.mark.parametrize("frame", range(2, 9))
def test_training_windows_begin_at_the_authors_sample(frame: int) -> None:
    assert 441 * window_first_column(frame - 0.5, PAPER) == 44_100 * (frame - 2)


# Text: letters only, lower-cased, without stop words, 16 ids


def authors_tokens(caption: str) -> list[str]:
    """Their ``A-z`` runs over the six characters between Z and a as well."""
    kept = "".join(letter if "A" <= letter <= "z" else " " for letter in caption).lower()
    return [word for word in kept.split() if word not in ENGLISH.stop_words]


@pytest.mark.parametrize(
    "caption",
    ["Two DOGS running, fast.", "a dog's don't", "2 dogs, 3cats and r2d2", "well-dressed T-shirt",
     "café Zoë", "the man is in on at it", "one\ttwo\nthree\u00a0four", "собака 犬 dog", ""],
)  # fmt: skip
def test_tokens_are_the_authors(caption: str) -> None:
    assert ENGLISH.words(caption) == authors_tokens(caption)


@pytest.mark.parametrize(
    ("caption", "theirs", "ours"),
    [
        ("a red[dog]", ["red[dog]"], ["red", "dog"]),
        ("cat\\bird", ["cat\\bird"], ["cat", "bird"]),
        ("STOP_sign ^_^", ["stop_sign", "^_^"], ["stop", "sign"]),
        ("`the` owl", ["`the`", "owl"], ["owl"]),
        ("\u212aing", ["ing"], ["king"]),  # the Kelvin sign, whose lower case is a k
    ],
)
def test_tokens_are_not_the_authors_where_their_pattern_slips(
    caption: str, theirs: list[str], ours: list[str]
) -> None:
    """``[ \\ ] ^ _ `` ` are letters to them; and we lower the case first, they last."""
    assert authors_tokens(caption) == theirs
    assert ENGLISH.words(caption) == ours


def test_ids_are_the_authors() -> None:
    """0 pads, 1 is unknown, then words by frequency; of equals theirs has the first seen first."""
    captions = ["zebra cat", "a cat", "dog"]
    vectors = {word: np.ones(300, np.float32) for word in ("zebra", "cat", "dog")}
    ours = build_vocabulary(
        Counter(w for c in captions for w in ENGLISH.words(c)), vectors, ENGLISH
    )
    assert ours.words[2:] == ("cat", "dog", "zebra")  # theirs: cat, zebra, dog
    long = ours.token_ids(ENGLISH.words("the cat and a unicorn " + "cat " * 20))
    assert long.tolist() == [2, 1] + [2] * 14
    assert ours.token_ids(ENGLISH.words("a cat!")).tolist() == [2] + [0] * 15
