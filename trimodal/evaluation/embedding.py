"""Passes through the networks: embeddings of test videos, sentences, images and sounds
(docs/method.md, Evaluation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.core.progress import bar
from trimodal.core.shards import read_extents
from trimodal.core.timing import evenly_spaced_positions
from trimodal.data.clip_index import IndexedClip
from trimodal.data.readers import read_frame, read_windows
from trimodal.data.shard_files import ReadShard
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig, centre_views
from trimodal.training.distributed import World

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """A video's network inputs: uint8 frames (frames, 3, crop, crop), float32 audio windows
    (frames, 1, mels, columns) or None for a silent video, and the number of padded windows.
    """

    frames: Tensor
    windows: Tensor | None
    padded_windows: int


def video_views(
    clip: IndexedClip,
    frames_per_video: int,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    read: ReadShard = read_extents,
) -> VideoViews:
    """``frames_per_video`` evenly spaced frames of a video, and the audio windows around them."""
    duration = min(clip.sound_s, clip.duration_s) if clip.has_audio else clip.duration_s
    positions = evenly_spaced_positions(
        clip.frames, duration, front_end.window.seconds, frames_per_video
    )
    frames = centre_views(
        [read_frame(clip, position.frame, read) for position in positions], augment
    )
    if not clip.has_audio:
        return VideoViews(frames=frames, windows=None, padded_windows=0)
    centres = [position.centre_seconds for position in positions]
    windows, missing = read_windows([clip] * frames_per_video, centres, front_end, read)
    padded_windows = sum(columns > 0 for columns in missing)
    return VideoViews(frames=frames, windows=windows, padded_windows=padded_windows)


@dataclass(frozen=True, kw_only=True)
class ClipEmbeddings:
    """Means over frames, ``image``, and audio windows, ``audio``, (clips, dim) each: zero for a
    clip without audio. ``padded_windows`` were padded with silence.
    """

    image: Matrix
    audio: Matrix
    padded_windows: int


@torch.inference_mode()
def embed_clips(
    network: TrimodalNet,
    clips: Sequence[IndexedClip],
    *,
    frames_per_video: int,
    renormalise: bool,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    world: World,
    read: ReadShard = read_extents,
) -> ClipEmbeddings:
    """Embeds videos: the means over ``frames_per_video`` frames and audio windows, normalised to
    unit vectors with ``renormalise``. Each rank embeds its share of the videos, one at a time so
    that results do not depend on the number of ranks, and returns all of them.
    """
    device = world.device
    network = network.to(device).eval()
    sums = torch.zeros(2, len(clips), network.embedding_dim, device=device)  # image and audio
    padded = torch.zeros(1, dtype=torch.int64, device=device)
    own_rows = range(world.rank, len(clips), world.size)
    for row in bar(own_rows, task="embedding", unit="videos", total=len(own_rows)):
        views = video_views(clips[row], frames_per_video, front_end, augment, read)
        sums[0, row] = network.image(network.image.prepare(views.frames.to(device))).mean(dim=0)
        if views.windows is not None:
            sums[1, row] = network.audio(views.windows.to(device)).mean(dim=0)
        padded += views.padded_windows
    means = world.all_reduce_sum(sums)
    image, audio = (F.normalize(means, dim=2) if renormalise else means).cpu().numpy()
    return ClipEmbeddings(
        image=image, audio=audio, padded_windows=int(world.all_reduce_sum(padded).item())
    )


@torch.inference_mode()
def embed_sentences(network: TrimodalNet, sentences: Sequence[str], device: torch.device) -> Matrix:
    """(sentences, dim)."""
    network = network.to(device).eval()
    batches = [
        network.text(*network.text.tokenise.encode(sentences[start : start + 1024]).to(device))
        for start in range(0, len(sentences), 1024)
    ]
    return torch.cat(batches).cpu().numpy()


@torch.inference_mode()
def embed_each(
    network: TrimodalNet,
    count: int,
    embed: Callable[[TrimodalNet, int], Tensor | None],
    *,
    world: World,
    unit: str,
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """(count, dim), row i being ``embed(network, i)``; and which rows there are, (count,): where it
    is None, the row is zero. Each rank embeds its share and returns all of them.
    """
    device = world.device
    network = network.to(device).eval()
    rows = torch.zeros(
        count, network.embedding_dim + 1, device=device
    )  # the last tells what there is
    own_rows = range(world.rank, count, world.size)
    for row in bar(own_rows, task="embedding", unit=unit, total=len(own_rows)):
        if (embedding := embed(network, row)) is not None:
            rows[row, :-1], rows[row, -1] = embedding, 1
    everything = world.all_reduce_sum(rows).cpu().numpy()
    return np.ascontiguousarray(everything[:, :-1]), everything[:, -1] > 0
