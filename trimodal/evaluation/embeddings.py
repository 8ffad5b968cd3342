"""The embeddings of a set of videos and sentences, in memory and in Parquet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.records import Query
from trimodal.evaluation.cache import matrix_of, read_cached, vector_column, write_cached
from trimodal.evaluation.config import Duplicates
from trimodal.evaluation.retrieval import Truth, mix, similarity, truth_of

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The embeddings of a test set. Row i of ``text``, (queries, dim), is query i. Row k of
    ``image`` and ``audio``, (videos, dim), and of ``has_audio`` is video k; videos are in the order
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

    def truth(self, duplicates: Duplicates) -> Truth:
        """Which videos are right for each query, (queries, videos): its own, or with ``any`` also
        those of every equal sentence.
        """
        sentences = [query.sentence for query in self.queries]
        return truth_of(self.true_video, sentences, any_duplicate=duplicates == "any")

    def scores(self, audio_weights: Sequence[float], queries: slice) -> Iterator[Matrix]:
        """For each audio weight, the scores of all videos for some queries, (queries, videos):
        image and audio similarity mixed, or image alone for silent videos.
        """
        return self.scores_of(self.text[queries], audio_weights)

    def scores_of(self, text: Matrix, audio_weights: Sequence[float]) -> Iterator[Matrix]:
        """As :meth:`scores`, of any sentences' embeddings, (sentences, dim)."""
        by_image = similarity(text, self.image)
        by_audio = similarity(text, self.audio)
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


def write_embeddings(path: Path, embeddings: Embeddings, identity: str = "") -> None:
    """Writes one row for each query: query_id, video_id, has_audio and the three embeddings
    (fixed_size_list<float>[dim]; audio is null for a silent video).
    """
    video = embeddings.true_video
    has_audio = embeddings.has_audio[video]
    columns = {
        "query_id": [query.query_id for query in embeddings.queries],
        "video_id": [query.video_id for query in embeddings.queries],
        "has_audio": pa.array(has_audio),
        "image": vector_column(embeddings.image[video]),
        "audio": vector_column(embeddings.audio[video], has_audio),
        "text": vector_column(embeddings.text),
    }
    write_cached(path, pa.table(columns), identity, {"padded_windows": embeddings.padded_windows})


def read_embeddings(path: Path, identity: str, queries: Sequence[Query]) -> Embeddings | None:
    """What :func:`write_embeddings` wrote of these queries under this ``identity``, else None."""
    cached = read_cached(path, identity, nullable=["audio"])
    if cached is None:
        return None
    names = list(dict.fromkeys(query.video_id for query in queries))
    row_of_video = {
        name: row for row, name in reversed([*enumerate(cached.table["video_id"].to_pylist())])
    }
    videos = cached.table.take([row_of_video[name] for name in names])
    return Embeddings(
        queries=tuple(queries),
        image=matrix_of(videos["image"]),
        audio=matrix_of(videos["audio"]),
        text=matrix_of(cached.table["text"]),
        has_audio=np.array(videos["has_audio"].to_pylist(), bool),
        padded_windows=cached.facts["padded_windows"],
    )
