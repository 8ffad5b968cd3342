"""Embeds sentences, and pictures, sounds and videos from their files, by a trained network."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimodal.core.records import DataError
from trimodal.evaluation.embedding import embed_sentences
from trimodal.media.audio_windows import audio_windows
from trimodal.media.image import ImageError, square
from trimodal.models.checkpoint import Checkpoint
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import centre_views

Matrix = npt.NDArray[np.float32]
_BATCH = 64


class Embedder:
    """Embeddings are float32 (N, dim)."""

    def __init__(self, network: TrimodalNet, checkpoint: Checkpoint, device: torch.device) -> None:
        self.network, self.device = network.to(device).eval(), device
        self._checkpoint = checkpoint

    def sentences(self, sentences: Sequence[str]) -> Matrix:
        """Of sentences; words that the model does not know do not count."""
        return embed_sentences(self.network, sentences, self.device)

    def pictures(self, paths: Sequence[Path]) -> Matrix:
        """Of image files, as in training made squares and centre-cropped. Raises DataError, naming
        the file, for one that is not an image, OSError for a missing one.
        """
        return self.frames([self._square(path) for path in paths])

    def _square(self, path: Path) -> Tensor:
        try:
            small = square(path.read_bytes(), self._checkpoint.frame_px)
        except ImageError as error:
            raise DataError(f"{path} is not a readable picture: {error}") from error
        return torch.from_numpy(small).permute(2, 0, 1)

    def frames(self, frames: Sequence[Tensor]) -> Matrix:
        """Of uint8 (3, side, side) frames of the size used in training."""
        image = self.network.image
        views = centre_views(frames, self._checkpoint.augment)
        return self._embed(lambda part: image(image.prepare(part)), views)

    def sounds(self, paths: Sequence[Path]) -> Matrix:
        """Of files with an audio track, each the mean over its windows, one a second. Raises
        MediaError for a file without decodable audio, LimitError for one that is too long.
        """
        front_end = self._checkpoint.audio_front_end
        means = [
            self._embed(self.network.audio, audio_windows(path, front_end)).mean(axis=0)
            for path in paths
        ]
        return np.stack(means)

    @torch.inference_mode()
    def _embed(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Matrix:
        parts = [
            network(part.to(self.device)).float().cpu() for part in torch.split(inputs, _BATCH)
        ]
        embeddings: Matrix = torch.cat(parts).numpy()
        return embeddings
