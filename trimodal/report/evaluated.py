"""A test set as ``evaluate`` left it: ranks and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.core.files import read_table
from trimodal.evaluation.cache import matrix_of
from trimodal.evaluation.results import EMBEDDINGS, RANKS
from trimodal.evaluation.retrieval import mix, ranks, row_blocks, similarity, summarise
from trimodal.report.significance import RankArray

Matrix = npt.NDArray[np.float32]
_MAP_ROWS = 200  # maximum number of videos, and of sentences, on the map
_SEED = 1
_RANK_COLUMNS = ["query_id", "sentence", "rank_image", "rank_image_audio"]


@dataclass(frozen=True, kw_only=True)
class EvaluatedTestSet:
    """Sentences (queries) and the videos that they describe.

    ``truth``, (queries,), is the row of each query's video in ``videos``, ``image``, ``audio`` and
    ``has_audio``; ``text`` is (queries, dim), ``image`` and ``audio`` are (videos, dim). The audio
    row of a video without audio is zero. ``ranks`` holds (queries,) by ``image`` and
    ``image_audio``.
    """

    sentences: list[str]
    truth: npt.NDArray[np.int64]
    ranks: dict[str, RankArray]
    text: Matrix
    videos: list[str]
    image: Matrix
    audio: Matrix
    has_audio: npt.NDArray[np.bool_]


def read_test_set(folder: Path) -> EvaluatedTestSet:
    """Reads embeddings.parquet and ranks.parquet of a test set of kind text_video, whose rows are
    matched by query id. Raises DataError, naming the file, for a damaged one.
    """
    table = read_table(folder / EMBEDDINGS, nullable=["audio"])
    rank_table = read_table(folder / RANKS, columns=_RANK_COLUMNS)
    row_of_query = {query: row for row, query in enumerate(table["query_id"].to_pylist())}
    table = table.take([row_of_query[query] for query in rank_table["query_id"].to_pylist()])
    videos: dict[str, int] = {}
    video_of_query = table["video_id"].to_pylist()
    truth = np.array([videos.setdefault(video, len(videos)) for video in video_of_query], np.int64)
    first_row = np.unique(truth, return_index=True)[1]
    return EvaluatedTestSet(
        sentences=rank_table["sentence"].to_pylist(),
        truth=truth,
        ranks={name: rank_table[f"rank_{name}"].to_numpy() for name in ("image", "image_audio")},
        text=matrix_of(table["text"]),
        videos=list(videos),
        image=matrix_of(table["image"])[first_row],
        audio=matrix_of(table["audio"])[first_row],
        has_audio=np.array(table["has_audio"].to_pylist())[first_row],
    )


def metric_by_audio_weight(
    test_set: EvaluatedTestSet, weights: Sequence[float], metric: str
) -> list[float]:
    """A text-to-video metric at each audio weight, of the videos with audio and their queries."""
    has_audio = test_set.has_audio
    queries = has_audio[test_set.truth]
    row_with_audio = np.cumsum(has_audio) - 1
    truth, text = row_with_audio[test_set.truth[queries]], test_set.text[queries]
    image, audio = test_set.image[has_audio], test_set.audio[has_audio]
    values = []
    for weight in weights:
        blocks = [
            ranks(
                mix(similarity(text[rows], image), similarity(text[rows], audio), weight),
                truth[rows],
            )
            for rows in row_blocks(len(text))
        ]
        values.append(summarise(np.concatenate(blocks))[metric])
    return values


def space_map(test_set: EvaluatedTestSet) -> dict[str, npt.NDArray[np.float64]]:
    """Embeddings of up to 200 videos and 200 of their sentences laid out in the plane, (rows, 2)
    each for ``image``, ``audio`` and ``text``: t-SNE (van der Maaten and Hinton 2008) of cosine
    distances.
    """
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(_SEED)
    videos = rng.permutation(len(test_set.videos))[:_MAP_ROWS]
    queries = np.flatnonzero(np.isin(test_set.truth, videos))[:_MAP_ROWS]
    parts = {
        "image": test_set.image[videos],
        "audio": test_set.audio[videos[test_set.has_audio[videos]]],
        "text": test_set.text[queries],
    }
    parts = {modality: rows for modality, rows in parts.items() if len(rows)}
    embeddings = np.concatenate(list(parts.values())).astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    perplexity = min(30, (len(embeddings) - 1) / 3)
    layout = TSNE(
        init="pca", method="exact", random_state=_SEED, perplexity=perplexity
    ).fit_transform(embeddings)
    ends = np.cumsum([len(rows) for rows in parts.values()])
    return dict(zip(parts, np.split(layout, ends[:-1]), strict=True))
