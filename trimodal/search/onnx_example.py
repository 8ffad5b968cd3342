"""Answers a query with the exported encoders; needs NumPy and onnxruntime, nothing else.

    python example.py "a dog barks" picture.ppm sound.wav

ranks images and sounds by their similarity to a sentence. Images are binary PPM (P6) files or .npy
arrays, uint8 (height, width, 3) RGB; sounds are WAV files of 16-bit samples at the model's rate:
`ffmpeg -i anything -ar RATE sound.wav` and `ffmpeg -i anything picture.ppm` make them.
"""

import json
import math
import re
import sys
import unicodedata
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]
_WORDS = 16  # of a sentence; the others do not count
_UNKNOWN = 1  # the id of a word without a vector
_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P6" + _SPACE + rb"(\d{1,5})" + _SPACE + rb"(\d{1,5})" + _SPACE + rb"255\s")


class Encoders:
    """The exported encoders. Embeddings are unit vectors, float32 (dim,): the dot product of two is
    their similarity.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings = json.loads((folder / "encoders.json").read_text(encoding="utf-8"))

    def text(self, sentence: str) -> Array:
        """Raises ValueError for a sentence without any word that the model knows."""
        if "words" not in self.settings:
            raise ValueError(self.settings["not_exported"])
        known = json.loads((self._folder / "words.json").read_text(encoding="utf-8"))
        rows = {word: row for row, word in enumerate(known["words"])}
        ids, further = np.zeros((1, _WORDS), np.int64), list[Array]()
        words = self._words(sentence)[:_WORDS]
        for place, word in enumerate(words):
            ids[0, place] = rows.get(word, _UNKNOWN)
            if word not in rows and (vector := self._spelled(word, known)) is not None:
                ids[0, place] = len(rows) + len(further)
                further.append(vector)
        if not (ids > _UNKNOWN).any():
            raise ValueError(f"{sentence!r} has no word that the model knows")
        inputs = [ids]
        if known["ngrams"]:
            inputs.append(np.stack(further) if further else np.zeros((1, 300), np.float32))
        return self._run("text", *inputs)

    def _words(self, sentence: str) -> list[str]:
        """Lower-case words of letters, without stop words."""
        settings = self.settings["words"]
        english = settings["language"] == "english"

        def normal(text: str) -> str:
            return text.lower() if english else unicodedata.normalize("NFC", text.lower())

        stop_words, words, word = set(map(normal, settings["stop_words"])), list[str](), ""
        for character in normal(sentence) + " ":
            kind = unicodedata.category(character)[0]
            if english:
                inside = "a" <= character <= "z"
            else:  # vowel signs, accents and joiners continue a word
                inside = kind == "L" or (
                    word != "" and (kind == "M" or character in "\u200c\u200d")
                )
            if inside:
                word += character
            elif word:
                words.append(word)
                word = ""
        return [word for word in words if word not in stop_words]

    def _spelled(self, word: str, known: dict[str, Any]) -> Array | None:
        """A word's vector from its n-grams of 3 to 5 characters, if the model has any of them."""
        rows, text = {ngram: row for row, ngram in enumerate(known["ngrams"])}, f"<{word}>"
        parts = [text[i : i + n] for n in (3, 4, 5) for i in range(len(text) - n + 1)]
        found = [rows[part] for part in dict.fromkeys(parts) if part in rows]
        if not found:
            return None
        vectors = np.load(self._folder / "ngrams.npy", mmap_mode="r", allow_pickle=False)
        total: Array = vectors[found].sum(axis=0) / np.float32(len(found)) ** 0.5
        return total

    def image(self, path: Path) -> Array:
        """Of a PPM or .npy file: resized to a square, of which the centre is shown."""
        pixels = _image(path)
        side, crop = self.settings["frame_px"], self.settings["augment"]["crop_px"]
        start = round((side - crop) / 2)
        narrow = _resized(pixels.swapaxes(0, 1), side).swapaxes(0, 1)
        square = _resized(narrow, side)
        shown = square[start : start + crop, start : start + crop]
        return self._run("image", np.ascontiguousarray(shown.transpose(2, 0, 1))[None])

    def audio(self, path: Path) -> Array:
        """Of a WAV file: the normalised mean of a window each second."""
        rows = self._run("audio", self._windows(_samples(path, self._rate)), many=True)
        mean: Array = rows.mean(axis=0)
        mean /= np.linalg.norm(mean)
        return mean

    @property
    def _rate(self) -> int:
        rate: int = self.settings["mel"]["sample_rate_hz"]
        return rate

    def _windows(self, samples: Array) -> Array:
        """(windows, 1, mels, columns), scaled as in training."""
        mel, window = self.settings["mel"], self.settings["window"]
        decibels, hop = self._decibels(samples), mel["hop_samples"] / mel["sample_rate_hz"]
        columns = round(window["seconds"] / hop) + 1
        duration = (len(decibels) - 1) * hop
        half, tolerance = window["seconds"] / 2, 0.05
        centres = np.arange(math.ceil(duration + 0.5) - 1) + 0.5
        fits = (centres >= half - tolerance) & (centres + half <= duration + tolerance)
        cut = []
        for centre in centres[fits] if fits.any() else [duration / 2]:
            first = round((float(centre) - half) / hop)
            part = decibels[max(first, 0) : max(0, first + columns)]
            before = min(max(0, -first), columns)
            padded = np.full((columns, mel["mels"]), -100, np.float32)
            padded[before : before + len(part)] = part
            cut.append(padded)
        windows = np.stack(cut)
        if window["decibel"] == "amplitude":
            windows = 2 * np.maximum(windows, -50)
        windows -= windows.max(axis=(1, 2), keepdims=True)
        scaled = (np.maximum(windows, -80) + 40) / 40
        inputs: Array = scaled.swapaxes(1, 2)[:, None].astype(np.float32)
        return inputs

    def _decibels(self, samples: Array) -> Array:
        """The log-mel, (columns, mels), in the steps in which training stores it."""
        mel = self.settings["mel"]
        filters = np.load(self._folder / "mel_filters.npy", allow_pickle=False)
        size, hop, length = mel["n_fft"], mel["hop_samples"], mel["window_samples"]
        padded = np.pad(samples, size // 2)
        taper, left = np.zeros(size), (size - length) // 2
        taper[left : left + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        rows = []
        for start in range(0, len(padded) - size + 1, hop):
            power = np.abs(np.fft.rfft(padded[start : start + size] * taper)) ** 2
            rows.append(10 * np.log10(np.maximum(power @ filters, 1e-10)))
        decibels, step = np.stack(rows), 80 / 255
        top = decibels.max(axis=1, keepdims=True).astype(np.float16).astype(np.float64)
        codes = np.clip(np.rint((decibels - top) / step), -255, 0)
        stored: Array = (top + codes * step).astype(np.float32)
        return stored

    def _run(self, encoder: str, *inputs: Array, many: bool = False) -> Array:
        session = onnxruntime.InferenceSession(
            self._folder / f"{encoder}.onnx", providers=["CPUExecutionProvider"]
        )
        names = [given.name for given in session.get_inputs()]
        embeddings: Array = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return embeddings if many else embeddings[0]


def _image(path: Path) -> Array:
    if path.suffix.lower() == ".npy":
        pixels: Array = np.load(path, allow_pickle=False)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{path}: not uint8 (height, width, 3)")
        return pixels
    content = path.read_bytes()
    header = _PPM.match(content)
    if header is None or len(content) - header.end() < 3 * int(header[1]) * int(header[2]):
        raise ValueError(f"{path}: not a binary PPM file of 8 bits")
    width, height = int(header[1]), int(header[2])
    pixels = np.frombuffer(content, np.uint8, 3 * width * height, header.end())
    return pixels.reshape(height, width, 3)


def _resized(pixels: Array, height: int) -> Array:
    """The rows resized as Pillow does: bicubic, over as many as are shrunk to one."""
    rows = len(pixels)
    scale = rows / height
    support = max(scale, 1.0)
    centres = (np.arange(height) + 0.5) * scale
    distance = np.abs(np.arange(rows) + 0.5 - centres[:, None]) / support
    near, far = distance < 1, (distance >= 1) & (distance < 2)
    weights = near * ((1.5 * distance - 2.5) * distance**2 + 1)
    weights += far * (((-0.5 * distance + 2.5) * distance - 4) * distance + 2)
    weights /= weights.sum(axis=1, keepdims=True)
    mixed = np.tensordot(weights, pixels.astype(np.float64), axes=1)
    resized: Array = np.clip(np.floor(mixed + 0.5), 0, 255).astype(np.uint8)
    return resized


def _samples(path: Path, rate_hz: int) -> Array:
    """Mono samples in [-1, 1]."""
    with wave.open(str(path), "rb") as file:
        if file.getframerate() != rate_hz or file.getsampwidth() != 2:
            raise ValueError(
                f"{path}: {8 * file.getsampwidth()} bits at {file.getframerate()} Hz, not 16 bits "
                f"at {rate_hz} Hz: ffmpeg -i {path} -ar {rate_hz} new.wav"
            )
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        samples: Array = frames.reshape(-1, file.getnchannels()).mean(axis=1) / 32768
        return samples


def main() -> None:
    """Ranks the files of the command line."""
    if len(sys.argv) < 3:
        sys.exit('usage: python example.py "a sentence" FILE.ppm FILE.npy FILE.wav ...')
    encoders = Encoders(Path(__file__).parent)
    try:
        query, scores = encoders.text(sys.argv[1]), []
        for path in map(Path, sys.argv[2:]):
            is_sound = path.suffix.lower() == ".wav"
            embedding = encoders.audio(path) if is_sound else encoders.image(path)
            scores.append((float(query @ embedding), str(path)))
    except (ValueError, OSError, EOFError, wave.Error) as error:
        sys.exit(f"example.py: {error}")
    for rank, (score, name) in enumerate(sorted(scores, reverse=True), start=1):
        sys.stdout.write(f"{rank:>3}  {score:.3f}  {name}\n")


if __name__ == "__main__":
    main()
