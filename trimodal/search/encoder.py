"""A trained model as a tool: embeds sentences, images and audio in one space."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from trimodal.core.errors import UserError
from trimodal.core.machine import Device
from trimodal.core.schemas import WORDS
from trimodal.core.text import Vocabulary
from trimodal.models.checkpoint import (
    MODEL,
    Checkpoint,
    load_model,
    load_text_network,
    load_vocabulary,
    read_checkpoint,
)
from trimodal.models.devices import pick_device
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import centre_views

if TYPE_CHECKING:
    from trimodal.media.audio_windows import Waveform

EmbeddingMatrix = npt.NDArray[np.float32]  # (N, dim), in all of this module
_BATCH_SIZE = 64


class QueryError(UserError, ValueError):
    """A query the model cannot embed: no known word, or not an image."""


class UnknownWordWarning(UserWarning):
    """Words of a sentence that have no vector: they do not count, or their spelling gives one."""


class Encoder:
    """The three trained networks. Embeddings are unit vectors, float32 (N, dim), of
    ``model.embedding_dim`` dimensions (the paper: 256); the dot product of two, of any modalities,
    is their similarity (docs/method.md, Model).
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, device: torch.device) -> None:
        self._folder, self.checkpoint, self.device = folder, checkpoint, device
        self._vocabulary = load_vocabulary(folder, checkpoint)
        self._text = load_text_network(folder, checkpoint, self._vocabulary).to(device)
        self.embedding_dim = checkpoint.model.embedding_dim

    @classmethod
    def load(
        cls,
        folder: str | Path = MODEL,
        *,
        device: Device = "auto",
    ) -> Self:
        """Reads a model's folder. Image and audio networks are read when they are first used; a
        model that was replaced in the meantime is refused then.

        Raises DataError for a folder without a model and for files that are damaged or do not
        belong together, TowerError for a text tower whose library is not installed.
        """
        folder = Path(folder)
        return cls(folder, read_checkpoint(folder), pick_device(device))

    @property
    def fingerprint(self) -> str:
        """Identifies the loaded weights; embeddings of other weights are not comparable."""
        return self.checkpoint.weights

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the model knows, and how it splits sentences into words. None for a text
        tower with a tokeniser of its own, which knows every word.
        """
        return self._vocabulary

    @cached_property
    def networks(self) -> TrimodalNet:
        """All three. Sentences need only the text network, which loads faster."""
        # Weights created in inference mode could be neither exported nor trained.
        with torch.inference_mode(False):
            networks = load_model(self._folder, self.checkpoint, self._vocabulary)
            # Convolutions take about 60 % of the time in this layout.
            return networks.to(self.device, memory_format=torch.channels_last)

    def embed_text(self, sentences: Sequence[str]) -> EmbeddingMatrix:
        """(N, dim). The first 16 words that are not stop words count (docs/method.md, Data). Warns
        about words without a vector (UnknownWordWarning): with ``captions.unknown_words: subword``
        the model takes one from their spelling, else they do not count. Raises QueryError for a
        sentence without any word that counts.
        """
        for sentence in sentences:
            if self._vocabulary:
                self._check_words(sentence, self._vocabulary)
            elif not sentence.strip():
                raise QueryError("an empty sentence")
        if not len(sentences):
            return self._no_embeddings
        ids, further = self._text.tokenise.encode(sentences).to(self.device)
        return self._embed(lambda part: self._text(part, further), ids)

    @property
    def _no_embeddings(self) -> EmbeddingMatrix:
        return np.empty((0, self.embedding_dim), np.float32)

    @staticmethod
    def _check_words(sentence: str, known: Vocabulary) -> None:
        words = known.tokeniser.words(sentence)[:WORDS]
        unknown = [w for w in words if w not in known and known.spelling(w) is None]
        spelled = [w for w in words if w not in unknown and (w in known.spelled or w not in known)]
        problem = f"words without a vector: {', '.join(unknown)}" if unknown else "only stop words"
        if len(unknown) == len(words):
            raise QueryError(f"{sentence!r} has no word that the model knows: {problem}")
        notes = [problem] if unknown else []
        if spelled:
            notes.append(f"no vector for {', '.join(spelled)}: taken from the spelling")
        if notes:
            warnings.warn(f"{sentence!r}: {'; '.join(notes)}", UnknownWordWarning, stacklevel=3)

    def embed_images(self, images: Sequence[str | Path | npt.NDArray[np.uint8]]) -> EmbeddingMatrix:
        """(N, dim), of image files (trimodal.media.image) or uint8 (height, width, 3) RGB arrays.
        As in training, they are resized to squares, aspect ratio not kept, and centre-cropped.
        Raises QueryError for a file that is not an image, OSError for a missing one.
        """
        return np.concatenate([self._no_embeddings, *map(self._embed_image, images)])

    def _embed_image(self, image: str | Path | npt.NDArray[np.uint8]) -> EmbeddingMatrix:
        from trimodal.media.image import ImageError, resized, square

        side = self.checkpoint.frame_px
        if isinstance(image, np.ndarray):
            small = resized(image, side)
        else:
            content = Path(image).read_bytes()
            try:
                small = square(content, side)
            except ImageError as error:
                raise QueryError(f"{image} is not a readable picture: {error}") from error
        pixels = torch.from_numpy(small).permute(2, 0, 1)
        return self.embed_frames([pixels])

    def embed_frames(self, frames: Sequence[Tensor]) -> EmbeddingMatrix:
        """(N, dim), of uint8 (3, side, side) RGB frames of the size used in training."""
        views = centre_views(frames, self.checkpoint.augment)
        image = self.networks.image
        return self._embed(lambda part: image(image.prepare(part)), views)

    def embed_windows(self, windows: Float[Tensor, "windows 1 mels columns"]) -> EmbeddingMatrix:
        """(N, dim), of audio windows (trimodal.media.audio_windows)."""
        return self._embed(self.networks.audio, windows)

    def audio_windows(self, file: str | Path) -> Float[Tensor, "windows 1 mels columns"]:
        """A file's input of the audio network, with the errors of :meth:`embed_audio`."""
        from trimodal.media.audio_windows import audio_windows

        return audio_windows(Path(file), self.checkpoint.audio_front_end)

    def embed_audio(self, sounds: Sequence["str | Path | Waveform | Tensor"]) -> EmbeddingMatrix:
        """(N, dim), of files with an audio track, also videos, of samples
        (:class:`~trimodal.media.audio_windows.Waveform`), or of what :meth:`audio_windows` returns
        for files. Of audio longer than the model's window, one window per second is embedded; the
        result is their normalised mean. Raises MediaError for a file without decodable audio,
        LimitError for one that is too long, DataError for samples that are not audio.
        """
        from trimodal.media.audio_windows import Waveform

        rows = [self._no_embeddings]
        for sound in sounds:
            if isinstance(sound, Waveform):
                windows = sound.windows(self.checkpoint.audio_front_end)
            else:
                windows = sound if isinstance(sound, Tensor) else self.audio_windows(sound)
            mean = self.embed_windows(windows).mean(axis=0, keepdims=True)
            rows.append(mean / np.linalg.norm(mean))
        return np.concatenate(rows)

    @torch.inference_mode()
    def _embed(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> EmbeddingMatrix:
        parts = [
            network(part.to(self.device)).float().cpu() for part in torch.split(inputs, _BATCH_SIZE)
        ]
        embeddings: EmbeddingMatrix = torch.cat(parts).numpy()
        return embeddings
