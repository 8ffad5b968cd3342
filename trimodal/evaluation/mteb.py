"""The trained model in the MTEB benchmark (Muennighoff et al. 2023, arXiv:2210.07316), which has
tasks of text, images, audio and videos; extra ``mteb`` (docs/evaluation.md).
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trimodal.core.arguments import missing_packages
from trimodal.core.errors import UserError
from trimodal.core.progress import log
from trimodal.core.records import DataError
from trimodal.media.audio_windows import Waveform

if missing_packages("mteb"):
    raise UserError("trimodal.evaluation.mteb needs pip install 'trimodal[mteb]'")

from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.modality_collators import FramesCollator
from mteb.models.model_meta import ScoringFunction
from mteb.types import Modalities

Matrix = npt.NDArray[np.float32]
MODALITIES: list[Modalities] = ["text", "image", "audio", "video"]


class Embeds(Protocol):
    """What :class:`trimodal.search.encoder.Encoder` offers: unit vectors, float32 (N, dim)."""

    embedding_dim: int

    @property
    def fingerprint(self) -> str:
        """Identifies the weights."""

    def embed_text(self, sentences: Sequence[str]) -> Matrix:
        """Raises UserError for a sentence without any known word; warns about unknown ones."""

    def embed_images(self, images: Sequence[str | Path | npt.NDArray[np.uint8]]) -> Matrix:
        """Of (height, width, 3) RGB arrays."""

    def embed_audio(self, sounds: Sequence[str | Path | Waveform | Tensor]) -> Matrix:
        """Of samples at any rate."""


class TrimodalEncoder(AbsEncoder):
    """MTEB's encoder protocol around a loaded model::

        from trimodal import Trimodal
        from trimodal.evaluation.mteb import TrimodalEncoder

        encoder = TrimodalEncoder(Trimodal.from_pretrained())
        mteb.evaluate(encoder, mteb.get_tasks(["ESC50_Zeroshot"]))

    Similarity is the dot product, as in this project's own evaluation. A video is the mean of
    ``frames_per_video`` evenly spaced frames and, if the task has its audio, (1 - w) x that + w x
    the audio's embedding, w being ``audio_weight``; other combinations are the normalised mean of
    their parts. Prompts and instructions are not used. A text without any word that the model knows
    gets zeros; the log counts those, and those with some unknown word.
    """

    def __init__(
        self,
        encoder: Embeds,
        name: str = "trimodal/trimodal",
        *,
        audio_weight: float = 0.2,
        frames_per_video: int = 4,
    ) -> None:
        """``name`` is ORGANISATION/MODEL, under which MTEB keeps results."""
        self.model, self._audio_weight, self._frames = encoder, audio_weight, frames_per_video
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=name,
            revision=encoder.fingerprint,
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=encoder.embedding_dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.DOT_PRODUCT,
            use_instructions=False,
            training_datasets=None,
            modalities=MODALITIES,
        )

    def encode(self, inputs: Any, **_: Any) -> Matrix:
        """The embeddings, float32 (N, dim), of a DataLoader's batches: mappings of modalities to
        values. Raises DataError for a batch without any.
        """
        words: Counter[str] = Counter()
        rows = [self._embed_batch(batch, words) for batch in inputs]
        if words:
            log.info(f"mteb: texts with words that the model does not know: {dict(words)}")
        return np.concatenate([np.empty((0, self.model.embedding_dim), np.float32), *rows])

    def _embed_batch(self, batch: dict[str, Any], words: Counter[str]) -> Matrix:
        parts: dict[str, Matrix] = {}
        if "text" in batch:
            parts["text"] = self._embed_texts(batch["text"], words)
        if "image" in batch:
            images = [np.asarray(image.convert("RGB")) for image in batch["image"]]
            parts["image"] = self.model.embed_images(images)
        if "audio" in batch:
            parts["audio"] = self._embed_present(batch["audio"], self._embed_sound)
        if "video" in batch:
            parts["video"] = self._embed_present(batch["video"], self._embed_video)
        if not parts:
            raise DataError(f"mteb: a batch has none of {', '.join(MODALITIES)}: {list(batch)}")
        if "video" in parts and "audio" in parts:
            parts["video"] = self._mixed(parts.pop("video"), parts.pop("audio"))
        if len(parts) == 1:
            return next(iter(parts.values()))
        total = np.sum(list(parts.values()), axis=0)
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        means: Matrix = total / np.where(lengths > 0, lengths, 1)
        return means

    def _embed_texts(self, texts: Sequence[str], words: Counter[str]) -> Matrix:
        rows = np.zeros((len(texts), self.model.embedding_dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                try:
                    row[:] = self.model.embed_text([text])[0]
                except UserError:
                    words["none is known"] += 1
            words["some are not known"] += bool(caught)
        return rows

    def _embed_present(self, items: Sequence[Any], embed: Any) -> Matrix:
        """Zeros for None: in tasks of several modalities an item may lack one."""
        rows = np.zeros((len(items), self.model.embedding_dim), np.float32)
        for row, item in zip(rows, items, strict=True):
            if item is not None:
                row[:] = embed(item)
        return rows

    def _embed_sound(self, sound: Any) -> Matrix:
        waveform = Waveform(np.asarray(sound["array"], np.float32), sound["sampling_rate"])
        (row,) = self.model.embed_audio([waveform])
        embedding: Matrix = row
        return embedding

    def _embed_video(self, video: Any) -> Matrix:
        """``video`` is a decoder of torchcodec or its frames, uint8 (frames, 3, height, width)."""
        if not isinstance(video, Tensor):
            video = FramesCollator.resample_video(video, num_frames=self._frames)
        frames = [frame.permute(1, 2, 0).cpu().numpy() for frame in video]
        mean: Matrix = self.model.embed_images(frames).mean(axis=0)
        return mean

    def _mixed(self, video: Matrix, audio: Matrix) -> Matrix:
        weights = np.where(audio.any(axis=1), self._audio_weight, 0.0)[:, None]
        weights[~video.any(axis=1)] = 1.0
        mixed: Matrix = ((1 - weights) * video + weights * audio).astype(np.float32)
        return mixed
