"""The embedding of a video as a whole."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from trimodal.media.container import DecodingLimits
from trimodal.media.tracks import has_audio
from trimodal.media.video import decode_frames
from trimodal.search.encoder import EmbeddingMatrix, Encoder

# As of a sound: at most 15 minutes, as much time as an indexed video has.
_LIMITS = DecodingLimits(clip_seconds=900.0, frame_pixels=9_437_184, timeout_seconds=600.0)
_BATCH_SIZE = 64


def embed_video(encoder: Encoder, path: Path, audio_weight: float) -> EmbeddingMatrix:
    """(1, dim): see :meth:`~trimodal.search.encoder.Encoder.embed_videos`."""
    frames = decode_frames(path, encoder.checkpoint.frame_px, encoder.checkpoint.frame_px, _LIMITS)
    total = np.zeros((1, encoder.embedding_dim), np.float32)
    for batch in _batches(frames):
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
        total += encoder.embed_frames(list(pixels)).sum(axis=0)
    image = _unit(total)
    if audio_weight == 0 or not has_audio(path):
        return image
    return _unit((1 - audio_weight) * image + audio_weight * encoder.embed_audio([path]))


def _batches(
    frames: Iterator[npt.NDArray[np.uint8]],
) -> Iterator[list[npt.NDArray[np.uint8]]]:
    while batch := list(islice(frames, _BATCH_SIZE)):
        yield batch


def _unit(row: EmbeddingMatrix) -> EmbeddingMatrix:
    unit: EmbeddingMatrix = (row / np.linalg.norm(row)).astype(np.float32)
    return unit
