"""Embeddings of the test videos and their sentences (docs/method.md, Evaluation)."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from trimodal.core.coverage import check_coverage
from trimodal.core.files import write_table
from trimodal.core.progress import bar
from trimodal.core.records import DataError, Query
from trimodal.core.shards import read_extents
from trimodal.core.timing import evenly_spaced_positions
from trimodal.data.clip_index import IndexedClip
from trimodal.data.readers import read_frame, read_windows
from trimodal.data.shard_files import ReadShard
from trimodal.evaluation.retrieval import mix, similarity
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig, centre_views
from trimodal.training.distributed import World

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MatchedVideos:
    """The test queries and their videos, each once and in the order of their first query. Counts
    of videos: ``in_test_file``, ``available`` among the clips, ``with_audio`` (of the available
    ones) and, by reason, ``left_out``.
    """

    queries: list[Query]
    clips: list[IndexedClip]
    in_test_file: int
    available: int
    with_audio: int
    left_out: dict[str, int]


def match_videos(
    queries: list[Query],
    clips: Sequence[IndexedClip],
    left_out: Collection[str],
    min_coverage: float,
) -> MatchedVideos:
    """Finds the clip of each query's video. Videos that are missing, or in ``left_out`` (those in
    the training data), are left out and counted.

    Raises DataError if a query or a clip occurs twice, if less than ``min_coverage`` of the videos
    are available, or if fewer than two are left.
    """
    _check_unique("the test file", "query", (query.query_id for query in queries))
    _check_unique("the index of clips", "video", (clip.clip_id for clip in clips))
    by_id = {clip.clip_id: clip for clip in clips}
    videos = list(dict.fromkeys(query.video_id for query in queries))
    available = [name for name in videos if name in by_id]
    missing = [name for name in videos if name not in by_id]
    check_coverage(
        "evaluate",
        "test videos",
        len(available),
        {"not among the extracted clips": len(missing)},
        required=min_coverage,
        param="evaluate.min_coverage",
        examples={"not among the extracted clips": ", ".join(missing[:5])},
    )
    tested = [name for name in available if name not in left_out]
    counts = {"missing": len(missing), "seen in training": len(available) - len(tested)}
    if len(tested) < 2:
        raise DataError(
            f"evaluate: at least 2 test videos are needed, not {len(tested)}; left out: {counts}"
        )
    is_tested = set(tested)
    return MatchedVideos(
        queries=[query for query in queries if query.video_id in is_tested],
        clips=[by_id[name] for name in tested],
        in_test_file=len(videos),
        available=len(available),
        with_audio=sum(by_id[name].has_audio for name in available),
        left_out=counts,
    )


def _check_unique(source: str, kind: str, names: Iterable[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"evaluate: {source} has {len(repeated)} {kind} ids more than once, the first is "
            f"{repeated[0]}"
        )


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The embeddings of a test set. Row i of ``text``, (queries, 256), is query i. Row k of
    ``image`` and ``audio``, (videos, 256), and of ``has_audio`` is video k; videos are in the order
    of their first query.

    Image and audio rows are means over the video's frames and audio windows; the audio row of a
    silent video is zero. ``padded_windows`` is the number of windows that were padded with silence.
    """

    queries: tuple[Query, ...]
    image: Matrix
    audio: Matrix
    text: Matrix
    has_audio: npt.NDArray[np.bool_]
    padded_windows: int

    def __post_init__(self) -> None:
        if (
            not len(set(self.true_video))
            == len(self.image)
            == len(self.audio)
            == len(self.has_audio)
        ):
            raise ValueError("embeddings: every video needs a row of image, audio and has_audio")
        if len(self.queries) != len(self.text):
            raise ValueError("embeddings: every query needs a row of text")

    @cached_property
    def true_video(self) -> npt.NDArray[np.int64]:
        """The row of each query's video, (queries,)."""
        rows: dict[str, int] = {}
        return np.array([rows.setdefault(q.video_id, len(rows)) for q in self.queries], np.int64)

    def scores(self, audio_weights: Sequence[float], queries: slice) -> Iterator[Matrix]:
        """For each audio weight, the scores of all videos for some queries, (queries, videos):
        image and audio similarity mixed, or image alone for silent videos.
        """
        by_image = similarity(self.text[queries], self.image)
        by_audio = similarity(self.text[queries], self.audio)
        for weight in audio_weights:
            yield mix(by_image, by_audio, weight, self.has_audio)

    def select(self, keep: npt.NDArray[np.bool_]) -> "Embeddings":
        """The videos where ``keep``, (videos,), is true, and their queries."""
        keep_query = keep[self.true_video]
        return Embeddings(
            queries=tuple(q for q, kept in zip(self.queries, keep_query, strict=True) if kept),
            image=self.image[keep],
            audio=self.audio[keep],
            text=self.text[keep_query],
            has_audio=self.has_audio[keep],
            padded_windows=self.padded_windows,
        )


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


@torch.inference_mode()
def embed_test_set(
    network: TrimodalNet,
    queries: Sequence[Query],
    clips: Sequence[IndexedClip],
    *,
    frames_per_video: int,
    renormalise: bool,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    world: World,
    read: ReadShard = read_extents,
) -> Embeddings:
    """Embeds sentences and videos: the means over ``frames_per_video`` frames and audio windows,
    normalised to unit vectors with ``renormalise``. ``clips`` are those of the queries, each once,
    in the order of their first query. Each rank embeds its share of the videos, one at a time so
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
    return Embeddings(
        queries=tuple(queries),
        image=image,
        audio=audio,
        text=_embed_sentences(network, queries, device),
        has_audio=np.array([clip.has_audio for clip in clips]),
        padded_windows=int(world.all_reduce_sum(padded).item()),
    )


def _embed_sentences(
    network: TrimodalNet, queries: Sequence[Query], device: torch.device
) -> Matrix:
    sentences = [query.sentence for query in queries]
    batches = [
        network.text(*network.text.tokenise.encode(sentences[start : start + 1024]).to(device))
        for start in range(0, len(sentences), 1024)
    ]
    return torch.cat(batches).cpu().numpy()


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Writes one row for each query: query_id, video_id, has_audio and the three embeddings
    (fixed_size_list<float>[256]; audio is null for a silent video).
    """
    video = embeddings.true_video
    has_audio = embeddings.has_audio[video]

    def column(rows: Matrix, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
        values = pa.array(np.ascontiguousarray(rows).ravel(), pa.float32())
        is_null = None if valid is None else pa.array(~valid)
        return pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=is_null)

    write_table(
        path,
        pa.table(
            {
                "query_id": [query.query_id for query in embeddings.queries],
                "video_id": [query.video_id for query in embeddings.queries],
                "has_audio": pa.array(has_audio),
                "image": column(embeddings.image[video]),
                "audio": column(embeddings.audio[video], has_audio),
                "text": column(embeddings.text),
            }
        ),
    )
