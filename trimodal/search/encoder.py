"""A trained model as a tool: sentences, pictures and sounds become points of one space."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from trimodal.core.errors import UserError
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import Device
from trimodal.core.schemas import WORDS
from trimodal.core.text import Vocabulary, read_vocabulary, tokenise
from trimodal.models.checkpoint import Checkpoint, load_model, load_text_network, read_checkpoint
from trimodal.models.devices import pick_device
from trimodal.models.networks import EMBEDDING_DIM, TrimodalNet
from trimodal.models.preprocessing import centre_views, normalise

Points = npt.NDArray[np.float32]
_ROWS_AT_ONCE = 64  # that a network takes together
_NO_POINTS: Points = np.empty((0, EMBEDDING_DIM), np.float32)


class QueryError(UserError, ValueError):
    """A sentence or a picture that says nothing to the model."""


class UnknownWordWarning(UserWarning):
    """Words of a sentence that have no vector, so that they count for nothing."""


class Encoder:
    """The three trained networks. Points are unit vectors, float32 (N, 256): the dot product of two
    of them, of whatever kinds, says how well they fit (docs/method.md, Model).
    """

    def __init__(
        self, path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary, device: torch.device
    ) -> None:
        self._path, self.checkpoint, self._vocabulary = path, checkpoint, vocabulary
        self.device = device
        self._text = load_text_network(path, checkpoint, vocabulary).to(device)

    @classmethod
    def load(
        cls,
        path: str | Path = "models/trimodal.safetensors",
        vocabulary: str | Path = "data/captions/vocabulary.parquet",
        *,
        device: Device = "auto",
    ) -> Self:
        """Reads a model and the vocabulary that it was trained with. Raises DataError for files
        that are damaged or do not belong together, OSError for those that are not there.
        """
        path = Path(path)
        words = read_vocabulary(Path(vocabulary))
        return cls(path, read_checkpoint(path), words, pick_device(device))

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the weights: what another says cannot be compared."""
        return file_fingerprint(self._path)

    @property
    def words(self) -> int:
        """Rows of the vocabulary: word ids are below it."""
        return len(self._vocabulary.words)

    @cached_property
    def networks(self) -> TrimodalNet:
        """All three. Sentences do with their own, which is read in a moment."""
        # Weights that are made in inference mode could neither be exported nor trained.
        with torch.inference_mode(False):
            return load_model(self._path, self.checkpoint, self._vocabulary).to(self.device)

    def embed_text(self, sentences: Sequence[str]) -> Points:
        """(N, 256). The first 16 words that are no stop words count (docs/method.md, Data). Warns
        of those without a vector (UnknownWordWarning); QueryError for a sentence that has no
        others.
        """
        rows = []
        for sentence in sentences:  # in a comprehension the warning would name another line
            rows.append(self._vocabulary.token_ids(self._words(sentence)))
        ids = np.array(rows, np.int64).reshape(-1, WORDS)
        return self._points(self._text, torch.from_numpy(ids))

    def _words(self, sentence: str) -> list[str]:
        words = tokenise(sentence)[:WORDS]
        unknown = [word for word in words if word not in self._vocabulary]
        told = f"words without a vector: {', '.join(unknown)}" if unknown else "no words to go by"
        if len(unknown) == len(words):
            raise QueryError(f"{sentence!r} says nothing to the model: {told}")
        if unknown:
            warnings.warn(f"{sentence!r}: {told}", UnknownWordWarning, stacklevel=3)
        return words

    def embed_images(self, images: Sequence[str | Path | npt.NDArray[np.uint8]]) -> Points:
        """(N, 256), of JPEG or PNG files or of uint8 (height, width, 3) RGB. As in training they
        are made square, aspect not kept, and their middle is what is seen. QueryError for a file
        that is no picture, OSError for one that is not there.
        """
        return np.concatenate([_NO_POINTS, *map(self._embed_picture, images)])

    def _embed_picture(self, image: str | Path | npt.NDArray[np.uint8]) -> Points:
        from PIL import Image

        from trimodal.media.image import BOMBS, square

        side = self.checkpoint.frame_px
        if isinstance(image, np.ndarray):
            small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        else:
            content = Path(image).read_bytes()
            try:
                small = square(content, side)
            except (OSError, ValueError, SyntaxError, *BOMBS) as error:
                raise QueryError(f"{image} is no JPEG or PNG that can be read") from error
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return self.embed_pictures([pixels])

    def embed_pictures(self, pictures: Sequence[Tensor]) -> Points:
        """(N, 256), of uint8 (3, side, side) pictures that are as large as those of training."""
        views = centre_views(pictures, self.checkpoint.augment)
        return self._points(lambda part: self.networks.image(normalise(part)), views)

    def embed_windows(self, windows: Float[Tensor, "windows 1 mels columns"]) -> Points:
        """(N, 256), of windows of sound (trimodal.search.audio_windows)."""
        return self._points(self.networks.audio, windows)

    def embed_audio(self, sounds: Sequence[str | Path]) -> Points:
        """(N, 256), of files with a sound track, videos too. A sound longer than the model's window
        is heard in one window a second, and the mean of those points made a unit vector. MediaError
        for a file without sound that can be decoded, LimitError for one too long.
        """
        from trimodal.search.audio_windows import audio_windows

        points = [_NO_POINTS]
        for sound in sounds:
            windows = audio_windows(Path(sound), self.checkpoint.audio_front_end)
            mean = self.embed_windows(windows).mean(axis=0, keepdims=True)
            points.append(mean / np.linalg.norm(mean))
        return np.concatenate(points)

    @torch.inference_mode()
    def _points(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Points:
        parts = [
            network(part.to(self.device)).float().cpu()
            for part in torch.split(inputs, _ROWS_AT_ONCE)
        ]
        points: Points = torch.cat(parts).numpy()
        return points
