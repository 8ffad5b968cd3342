"""Test videos and their sentences as points of the joint space (paper.md, Evaluation)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from trimodal.av_index import AvClip
from trimodal.files import write_table
from trimodal.images import AugmentConfig, centre_view, normalise
from trimodal.loaders import read_frame, read_window
from trimodal.mel import MelConfig
from trimodal.model import EMBEDDING_DIM, TrimodalNet
from trimodal.progress import bar
from trimodal.records import Query
from trimodal.text import Vocabulary, tokenise
from trimodal.timing import spread_points

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Row i of everything belongs to query i and the video it describes.

    ``image``, ``audio`` and ``text`` are (queries, 256); image and audio rows are means over the
    video's points, not normalised again. Audio rows of silent videos are zero and not
    ``has_audio``.
    """

    queries: tuple[Query, ...]
    image: Matrix
    audio: Matrix
    text: Matrix
    has_audio: npt.NDArray[np.bool_]
    padded_points: int

    def select(self, keep: npt.NDArray[np.bool_]) -> "Embeddings":
        """The rows where ``keep`` is true."""
        return Embeddings(
            queries=tuple(q for q, kept in zip(self.queries, keep, strict=True) if kept),
            image=self.image[keep],
            audio=self.audio[keep],
            text=self.text[keep],
            has_audio=self.has_audio[keep],
            padded_points=self.padded_points,
        )


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """A video's network inputs: frames uint8 (points, 3, crop, crop), windows float32 (points, 1,
    mels, columns) or None without sound, and how many windows had to be padded.
    """

    frames: Tensor
    windows: Tensor | None
    padded: int


def video_views(clip: AvClip, points: int, mel: MelConfig, augment: AugmentConfig) -> VideoViews:
    """Cuts the frames and sound windows of ``points`` moments spread over a video."""
    duration = min(clip.sound_s, clip.duration_s) if clip.has_audio else clip.duration_s
    chosen = spread_points(clip.frames, duration, mel.window_seconds, points)
    frames = torch.stack([centre_view(read_frame(clip, p.frame), augment) for p in chosen])
    if not clip.has_audio:
        return VideoViews(frames=frames, windows=None, padded=0)
    windows = [read_window(clip, point.centre_seconds, mel) for point in chosen]
    return VideoViews(
        frames=frames,
        windows=torch.stack([window for window, _ in windows]),
        padded=sum(missing > 0 for _, missing in windows),
    )


@torch.inference_mode()
def embed_test_set(
    network: TrimodalNet,
    vocabulary: Vocabulary,
    queries: Sequence[Query],
    clips: Sequence[AvClip],
    *,
    points: int,
    mel: MelConfig,
    augment: AugmentConfig,
    device: torch.device,
) -> Embeddings:
    """Embeds query i and clip i for all i: the mean of ``points`` frames and sounds a video."""
    network = network.to(device).eval()
    image = np.zeros((len(clips), EMBEDDING_DIM), np.float32)
    audio = np.zeros_like(image)
    padded = 0
    for row, clip in enumerate(bar(clips, task="embedding", unit="videos")):
        views = video_views(clip, points, mel, augment)
        image[row] = network.image(normalise(views.frames.to(device))).mean(dim=0).cpu().numpy()
        if views.windows is not None:
            audio[row] = network.audio(views.windows.to(device)).mean(dim=0).cpu().numpy()
        padded += views.padded
    return Embeddings(
        queries=tuple(queries),
        image=image,
        audio=audio,
        text=_embed_sentences(network, vocabulary, queries, device),
        has_audio=np.array([clip.has_audio for clip in clips]),
        padded_points=padded,
    )


def _embed_sentences(
    network: TrimodalNet, vocabulary: Vocabulary, queries: Sequence[Query], device: torch.device
) -> Matrix:
    ids = np.stack([vocabulary.token_ids(tokenise(query.sentence)) for query in queries])
    parts = [
        network.text(part.to(device)).cpu()
        for part in torch.split(torch.from_numpy(ids.astype(np.int64)), 1024)
    ]
    return torch.cat(parts).numpy()


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Writes query_id, video_id, has_audio and the three embeddings
    (fixed_size_list<float>[256]; audio is null for a silent video).
    """

    def column(rows: Matrix, mask: npt.NDArray[np.bool_] | None = None) -> pa.Array:
        flat = pa.array(np.ascontiguousarray(rows).ravel(), pa.float32())
        silent = None if mask is None else pa.array(~mask)
        return pa.FixedSizeListArray.from_arrays(flat, EMBEDDING_DIM, mask=silent)

    write_table(
        path,
        pa.table(
            {
                "query_id": [query.query_id for query in embeddings.queries],
                "video_id": [query.video_id for query in embeddings.queries],
                "has_audio": pa.array(embeddings.has_audio),
                "image": column(embeddings.image),
                "audio": column(embeddings.audio, embeddings.has_audio),
                "text": column(embeddings.text),
            }
        ),
    )
