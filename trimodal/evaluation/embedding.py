"""Test videos and their sentences as points of the joint space (docs/method.md, Evaluation)."""

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
from trimodal.core.text import Vocabulary, tokenise
from trimodal.core.timing import evenly_spaced_positions
from trimodal.evaluation.retrieval import mix, similarity
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.networks import EMBEDDING_DIM, TrimodalNet
from trimodal.models.preprocessing import AugmentConfig, centre_views, normalise
from trimodal.training.clip_index import IndexedClip
from trimodal.training.distributed import World
from trimodal.training.readers import read_frame, read_windows

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MatchedVideos:
    """The queries to test, the videos they name, each once and in the order of their first query,
    and counts of videos: ``asked_for``, ``found``, ``with_sound`` (of those found), ``left_out``.
    """

    queries: list[Query]
    clips: list[IndexedClip]
    asked_for: int
    found: int
    with_sound: int
    left_out: dict[str, int]


def match_videos(
    queries: list[Query],
    clips: Sequence[IndexedClip],
    left_out: Collection[str],
    min_coverage: float,
) -> MatchedVideos:
    """Finds the queries' videos; a missing one, and one in ``left_out`` because training saw it,
    is left out and counted.

    Raises DataError if a query or a clip occurs twice, if less than ``min_coverage`` of the videos
    are there or if fewer than two can be tested.
    """
    _refuse_twice("the test file", "query", (query.query_id for query in queries))
    _refuse_twice("the index of clips", "video", (clip.clip_id for clip in clips))
    by_id = {clip.clip_id: clip for clip in clips}
    asked = list(dict.fromkeys(query.video_id for query in queries))
    found = [name for name in asked if name in by_id]
    missing = [name for name in asked if name not in by_id]
    check_coverage(
        "evaluate",
        "test videos",
        len(found),
        {"not among the clips that extract left": len(missing)},
        required=min_coverage,
        param="evaluate.min_coverage",
        examples={"not among the clips that extract left": ", ".join(missing[:5])},
    )
    kept = [name for name in found if name not in left_out]
    counts = {"missing": len(missing), "seen in training": len(found) - len(kept)}
    chosen = set(kept)
    if len(kept) < 2:
        raise DataError(f"evaluate: {len(kept)} test videos; left out: {counts}")
    return MatchedVideos(
        queries=[query for query in queries if query.video_id in chosen],
        clips=[by_id[name] for name in kept],
        asked_for=len(asked),
        found=len(found),
        with_sound=sum(by_id[name].has_audio for name in found),
        left_out=counts,
    )


def _refuse_twice(place: str, what: str, names: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"evaluate: {place} has {len(twice)} {what} ids more than once, the first {twice[0]}"
        )


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Row i of ``text``, (queries, 256), belongs to query i; row k of ``image`` and ``audio``,
    (videos, 256), and of ``has_audio`` to the k-th video that the queries name, in the order of
    their first query.

    Image and audio rows are means over the video's points. Audio rows of
    silent videos are zero and not ``has_audio``.
    """

    queries: tuple[Query, ...]
    image: Matrix
    audio: Matrix
    text: Matrix
    has_audio: npt.NDArray[np.bool_]
    padded_points: int

    def __post_init__(self) -> None:
        if not len(set(self.truth)) == len(self.image) == len(self.audio) == len(self.has_audio):
            raise ValueError("embeddings: a row of image, audio and has_audio for every video")
        if len(self.queries) != len(self.text):
            raise ValueError("embeddings: a row of text for every query")

    @cached_property
    def truth(self) -> npt.NDArray[np.int64]:
        """(queries,): the row of the video that each query describes."""
        row: dict[str, int] = {}
        return np.array([row.setdefault(q.video_id, len(row)) for q in self.queries], np.int64)

    def scores(self, audio_weights: Sequence[float], queries: slice) -> Iterator[Matrix]:
        """For each weight (queries, videos): how well some sentences fit each video, by image and,
        where there is sound, with that weight by audio.
        """
        by_image = similarity(self.text[queries], self.image)
        by_audio = similarity(self.text[queries], self.audio)
        for weight in audio_weights:
            yield mix(by_image, by_audio, weight, self.has_audio)

    def select(self, keep: npt.NDArray[np.bool_]) -> "Embeddings":
        """The videos where ``keep``, (videos,), is true, and their queries."""
        told = keep[self.truth]
        return Embeddings(
            queries=tuple(q for q, kept in zip(self.queries, told, strict=True) if kept),
            image=self.image[keep],
            audio=self.audio[keep],
            text=self.text[told],
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


def video_views(
    clip: IndexedClip, frames_per_video: int, front_end: AudioFrontEnd, augment: AugmentConfig
) -> VideoViews:
    """Cuts the frames and sound windows of ``points`` moments spread over a video."""
    duration = min(clip.sound_s, clip.duration_s) if clip.has_audio else clip.duration_s
    chosen = evenly_spaced_positions(
        clip.frames, duration, front_end.window.seconds, frames_per_video
    )
    frames = centre_views([read_frame(clip, at.frame) for at in chosen], augment)
    if not clip.has_audio:
        return VideoViews(frames=frames, windows=None, padded=0)
    centres = [at.centre_seconds for at in chosen]
    windows, missing = read_windows([clip] * frames_per_video, centres, front_end)
    padded = sum(columns > 0 for columns in missing)
    return VideoViews(frames=frames, windows=windows, padded=padded)


@torch.inference_mode()
def embed_test_set(
    network: TrimodalNet,
    vocabulary: Vocabulary,
    queries: Sequence[Query],
    clips: Sequence[IndexedClip],
    *,
    frames_per_video: int,
    renormalise: bool,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    world: World,
) -> Embeddings:
    """Embeds sentences and videos, the mean of ``points`` frames and sounds a video, with
    ``renormalise`` made a unit vector. The clips are those of the queries, each once, in the order
    of their first query. Each of several ranks embeds its share of the videos, one at a time as one
    process would, and has all in the end.
    """
    device = world.device
    network = network.to(device).eval()
    vectors = torch.zeros(2, len(clips), EMBEDDING_DIM, device=device)  # image and audio
    padded = torch.zeros(1, dtype=torch.int64, device=device)
    mine = range(world.rank, len(clips), world.size)
    for row in bar(mine, task="embedding", unit="videos", total=len(mine)):
        views = video_views(clips[row], frames_per_video, front_end, augment)
        vectors[0, row] = network.image(normalise(views.frames.to(device))).mean(dim=0)
        if views.windows is not None:
            vectors[1, row] = network.audio(views.windows.to(device)).mean(dim=0)
        padded += views.padded
    means = world.all_reduce_sum(vectors)
    image, audio = (F.normalize(means, dim=2) if renormalise else means).cpu().numpy()
    return Embeddings(
        queries=tuple(queries),
        image=image,
        audio=audio,
        text=_embed_sentences(network, vocabulary, queries, device),
        has_audio=np.array([clip.has_audio for clip in clips]),
        padded_points=int(world.all_reduce_sum(padded).item()),
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
    """Writes a row a query: query_id, video_id, has_audio and the three embeddings
    (fixed_size_list<float>[256]; audio is null for a silent video).
    """
    video = embeddings.truth
    has_audio = embeddings.has_audio[video]

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
                "has_audio": pa.array(has_audio),
                "image": column(embeddings.image[video]),
                "audio": column(embeddings.audio[video], has_audio),
                "text": column(embeddings.text),
            }
        ),
    )
