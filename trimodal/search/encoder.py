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
from trimodal.core.text import Vocabulary, read_vocabulary
from trimodal.models.checkpoint import Checkpoint, load_model, load_text_network, read_checkpoint
from trimodal.models.devices import pick_device
from trimodal.models.networks import EMBEDDING_DIM, TrimodalNet
from trimodal.models.preprocessing import centre_views, normalise

if TYPE_CHECKING:
    from trimodal.search.audio_windows import Waveform

EmbeddingMatrix = npt.NDArray[np.float32]  # (N, 256)
_BATCH_SIZE = 64
_NO_EMBEDDINGS: EmbeddingMatrix = np.empty((0, EMBEDDING_DIM), np.float32)


class QueryError(UserError, ValueError):
    """A query the model cannot embed: no known word, or not an image."""


class UnknownWordWarning(UserWarning):
    """Words of a sentence that have no vector: they do not count, or their spelling gives one."""


class Encoder:
    """The three trained networks. Embeddings are unit vectors, float32 (N, 256); the dot product of
    two, of any modalities, is their similarity (docs/method.md, Model).
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
        """Reads a model and the vocabulary it was trained with. Image and audio networks are read
        when they are first used; a model that was replaced in the meantime is refused then.

        Raises DataError for files that are damaged or do not belong together, OSError for missing
        ones.
        """
        path = Path(path)
        words = read_vocabulary(Path(vocabulary))
        return cls(path, read_checkpoint(path), words, pick_device(device))

    @property
    def fingerprint(self) -> str:
        """Identifies the loaded weights; embeddings of other weights are not comparable."""
        return self.checkpoint.weights

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that the model knows, and how it splits sentences into words."""
        return self._vocabulary

    @cached_property
    def networks(self) -> TrimodalNet:
        """All three. Sentences need only the text network, which loads faster."""
        # Weights created in inference mode could be neither exported nor trained.
        with torch.inference_mode(False):
            return load_model(self._path, self.checkpoint, self._vocabulary).to(self.device)

    def embed_text(self, sentences: Sequence[str]) -> EmbeddingMatrix:
        """(N, 256). The first 16 words that are not stop words count (docs/method.md, Data). Warns
        about words without a vector (UnknownWordWarning): with ``captions.unknown_words: subword``
        the model takes one from their spelling, else they do not count. Raises QueryError for a
        sentence without any word that counts.
        """
        rows = []
        for sentence in sentences:  # in a comprehension the warning would point at another line
            rows.append(self._words(sentence))
        ids, vectors = self._vocabulary.encode(rows)
        further = torch.from_numpy(vectors).to(self.device) if len(vectors) else None
        return self._embed(lambda part: self._text(part, further), torch.from_numpy(ids))

    def _words(self, sentence: str) -> list[str]:
        known = self._vocabulary
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
        return words

    def embed_images(self, images: Sequence[str | Path | npt.NDArray[np.uint8]]) -> EmbeddingMatrix:
        """(N, 256), of image files (trimodal.media.image) or uint8 (height, width, 3) RGB arrays.
        As in training, they are resized to squares, aspect ratio not kept, and centre-cropped.
        Raises QueryError for a file that is not an image, OSError for a missing one.
        """
        return np.concatenate([_NO_EMBEDDINGS, *map(self._embed_image, images)])

    def _embed_image(self, image: str | Path | npt.NDArray[np.uint8]) -> EmbeddingMatrix:
        from PIL import Image

        from trimodal.media.image import ImageError, square

        side = self.checkpoint.frame_px
        if isinstance(image, np.ndarray):
            small = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        else:
            content = Path(image).read_bytes()
            try:
                small = square(content, side)
            except ImageError as error:
                raise QueryError(f"{image} is not a readable picture: {error}") from error
        pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)
        return self.embed_frames([pixels])

    def embed_frames(self, frames: Sequence[Tensor]) -> EmbeddingMatrix:
        """(N, 256), of uint8 (3, side, side) RGB frames of the size used in training."""
        views = centre_views(frames, self.checkpoint.augment)
        return self._embed(lambda part: self.networks.image(normalise(part)), views)

    def embed_windows(self, windows: Float[Tensor, "windows 1 mels columns"]) -> EmbeddingMatrix:
        """(N, 256), of audio windows (trimodal.search.audio_windows)."""
        return self._embed(self.networks.audio, windows)

    def audio_windows(self, file: str | Path) -> Float[Tensor, "windows 1 mels columns"]:
        """A file's input of the audio network, with the errors of :meth:`embed_audio`."""
        from trimodal.search.audio_windows import audio_windows

        return audio_windows(Path(file), self.checkpoint.audio_front_end)

    def embed_audio(self, sounds: Sequence["str | Path | Waveform | Tensor"]) -> EmbeddingMatrix:
        """(N, 256), of files with an audio track, also videos, of samples
        (:class:`~trimodal.search.audio_windows.Waveform`), or of what :meth:`audio_windows` returns
        for files. Of audio longer than the model's window, one window per second is embedded; the
        result is their normalised mean. Raises MediaError for a file without decodable audio,
        LimitError for one that is too long, DataError for samples that are not audio.
        """
        from trimodal.search.audio_windows import Waveform

        rows = [_NO_EMBEDDINGS]
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
