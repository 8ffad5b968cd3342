"""A trained model as a tool: embeds sentences, images and audio in one space."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from trimodal.core.machine import Device
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
from trimodal.search.inputs import (
    AnyInput,
    Modality,
    Picture,
    QueryError,
    Sound,
    UnknownWordWarning,
    Video,
    as_file,
    as_list,
    check_modality,
    check_sentence,
    image_pixels,
    is_samples,
    modality_of,
)

__all__ = ["EmbeddingMatrix", "Encoder", "QueryError", "UnknownWordWarning"]

EmbeddingMatrix = npt.NDArray[np.float32]  # (N, dim), or (dim,) of one input alone
_BATCH_SIZE = 64


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
    def from_pretrained(
        cls,
        model: str | Path = MODEL,
        *,
        revision: str | None = None,
        device: Device = "auto",
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """The model in a folder, or the one that Hugging Face's Hub has under a name such as
        "owner/model" (extra ``hub``): :func:`trimodal.search.hub.model_folder`. Image and audio
        networks are read when they are first used; a model that was replaced in the meantime is
        refused then.

        Raises DataError for a folder without a model and for files that are damaged or do not
        belong together, TowerError for a text tower whose library is not installed, HubError for a
        model that cannot be had from the Hub.
        """
        from trimodal.search.hub import model_folder

        folder = model_folder(
            model, revision=revision, cache_dir=cache_dir, token=token,
            force_download=force_download, local_files_only=local_files_only,
        )  # fmt: skip
        return cls(folder, read_checkpoint(folder), pick_device(device))

    def save_pretrained(self, folder: str | Path, *, card: str | Path | None = None) -> None:
        """Writes the model's files and its card to a folder, with the errors of
        :func:`trimodal.search.hub.export_model`; DataError if the model has been replaced since it
        was loaded.
        """
        from trimodal.search.hub import export_model

        export_model(
            self._folder, Path(folder), Path(card) if card else None, weights=self.fingerprint
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | Path | None = None,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Model of trimodal",
    ) -> str:
        """Writes what :meth:`save_pretrained` writes to a repository of Hugging Face's Hub, which
        is created if there is none; returns the commit's address. Raises HubError if the Hub
        refuses or cannot be reached.
        """
        from trimodal.search.hub import push_model

        return push_model(
            self._folder, repo_id, Path(card) if card else None, weights=self.fingerprint,
            revision=revision, private=private, token=token, commit_message=commit_message,
        )  # fmt: skip

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
            networks.to(memory_format=torch.channels_last)
            return networks.to(self.device)  # convolutions take about 60 % of the time so

    def encode(
        self, inputs: "AnyInput | Sequence[AnyInput]", *, modality: Modality | None = None
    ) -> EmbeddingMatrix:
        """The embedding of one input, (dim,), or of many, (N, dim), which may be of several
        modalities: sentences, images (Pillow's, arrays), sounds (``Waveform``, or samples and
        their rate), and Paths of images, sounds and videos, told by their ending. ``modality`` says
        what all of them are, also for files given as text.

        Raises QueryError for what is of no modality, and the errors of ``embed_text``,
        ``embed_images``, ``embed_audio`` and ``embed_videos``.
        """
        items, is_one = as_list(inputs)
        if modality:
            check_modality(modality)
        kinds = [modality or modality_of(item) for item in items]
        embed = {
            "text": self.embed_text, "image": self.embed_images, "audio": self.embed_audio,
            "video": self.embed_videos,
        }  # fmt: skip
        rows = np.empty((len(items), self.embedding_dim), np.float32)
        for kind in dict.fromkeys(kinds):
            places = [place for place, of in enumerate(kinds) if of == kind]
            rows[places] = embed[kind]([items[place] for place in places])
        return _as_given(rows, is_one)

    def embed_text(self, sentences: str | Sequence[str]) -> EmbeddingMatrix:
        """(dim,) of one sentence, (N, dim) of many. The first 16 words that are not stop words
        count (docs/method.md, Data). Warns about words without a vector (UnknownWordWarning): with
        ``captions.unknown_words: subword`` the model takes one from their spelling, else they do
        not count. Raises QueryError for a sentence without any word that counts.
        """
        items, is_one = as_list(sentences)
        for sentence in items:
            check_sentence(sentence, self._vocabulary)
        if not items:
            return self._no_embeddings
        ids, further = self._text.tokenise.encode(items).to(self.device)
        return _as_given(self._embed(lambda part: self._text(part, further), ids), is_one)

    @property
    def _no_embeddings(self) -> EmbeddingMatrix:
        return np.empty((0, self.embedding_dim), np.float32)

    def embed_images(self, images: "Picture | Sequence[Picture]") -> EmbeddingMatrix:
        """(dim,) of one image, (N, dim) of many: image files (trimodal.media.image), Pillow images,
        or uint8 (height, width, 3) RGB arrays. As in training, they are resized to squares, aspect
        ratio not kept, and centre-cropped. Raises QueryError for what is not an image, OSError for
        a missing file.
        """
        items, is_one = as_list(images)
        rows = [self._no_embeddings]
        for start in range(0, len(items), _BATCH_SIZE):
            part = items[start : start + _BATCH_SIZE]
            rows.append(self.embed_frames([self._squared(image) for image in part]))
        return _as_given(np.concatenate(rows), is_one)

    def _squared(self, image: "Picture") -> Tensor:
        """Uint8 (3, side, side)."""
        from trimodal.media.image import ImageError, resized, square

        side = self.checkpoint.frame_px
        if isinstance(image, str | Path):
            content = Path(image).read_bytes()
            try:
                small = square(content, side)
            except ImageError as error:
                raise QueryError(f"{image} is not a readable picture: {error}") from error
        else:
            small = resized(image_pixels(image), side)
        return torch.from_numpy(small).permute(2, 0, 1)

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

    def embed_audio(self, sounds: "Sound | Sequence[Sound]") -> EmbeddingMatrix:
        """(dim,) of one sound, (N, dim) of many: files with an audio track, also videos; samples
        and their rate, as :class:`~trimodal.media.audio_windows.Waveform` or as a pair; or what
        :meth:`audio_windows` returns for files. Of audio longer than the model's window, one window
        per second is embedded; the result is their normalised mean. Raises MediaError for a file
        without decodable audio, LimitError for one that is too long, DataError for samples that are
        not audio, QueryError for what is not a sound.
        """
        items, is_one = as_list(sounds)
        rows = [self._no_embeddings]
        for sound in items:
            mean = self.embed_windows(self._windows(sound)).mean(axis=0, keepdims=True)
            rows.append(mean / np.linalg.norm(mean))
        return _as_given(np.concatenate(rows), is_one)

    def _windows(self, sound: "Sound") -> Float[Tensor, "windows 1 mels columns"]:
        from trimodal.media.audio_windows import Waveform

        front_end = self.checkpoint.audio_front_end
        if isinstance(sound, Tensor) and sound.ndim == 4:
            return sound
        if is_samples(sound):
            sound = Waveform(*sound)
        if isinstance(sound, Waveform):
            return sound.windows(front_end)
        return self.audio_windows(as_file(sound, "a sound (samples need their rate)"))

    def embed_videos(
        self, videos: Video | Sequence[Video], *, audio_weight: float = 0.2
    ) -> EmbeddingMatrix:
        """(dim,) of one video file, (N, dim) of many: (1 - w) x the mean of a frame of each second
        + w x the embedding of the audio track, normalised; w is ``audio_weight``. A silent video's
        is that of its frames. Raises MediaError for a file that cannot be decoded, LimitError for
        one of over 15 minutes.
        """
        from trimodal.search.videos import embed_video

        if not 0 <= audio_weight <= 1:
            raise QueryError(f"audio_weight is not in [0, 1]: {audio_weight}")
        items, is_one = as_list(videos)
        rows = [self._no_embeddings]
        for video in items:
            rows.append(embed_video(self, as_file(video, "a video file"), audio_weight))
        return _as_given(np.concatenate(rows), is_one)

    @torch.inference_mode()
    def _embed(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> EmbeddingMatrix:
        parts = [
            network(part.to(self.device)).float().cpu() for part in torch.split(inputs, _BATCH_SIZE)
        ]
        embeddings: EmbeddingMatrix = torch.cat(parts).numpy()
        return embeddings


def _as_given(rows: EmbeddingMatrix, is_one: bool) -> EmbeddingMatrix:
    """(dim,) of one input alone."""
    return rows[0] if is_one else rows
