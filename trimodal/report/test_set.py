"""A tested set as ``evaluate`` left it, for people to look at: ranks, points, pictures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trimodal.core.shards import read_extent
from trimodal.evaluation.retrieval import mix, ranks, row_blocks, similarity, summarise

Matrix = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.float64]
_MAPPED = 200  # videos on the map of the space
_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """Queries and the videos that they are about. ``truth``, (queries,), names each query's row of
    ``videos``, ``image``, ``audio`` and ``has_audio``; a silent video's row of audio is zero.
    """

    sentences: list[str]
    truth: npt.NDArray[np.int64]
    ranks: dict[str, Ranks]
    text: Matrix
    videos: list[str]
    image: Matrix
    audio: Matrix
    has_audio: npt.NDArray[np.bool_]


def read_tested(embeddings: Path, ranks_path: Path) -> Retrieved:
    """Reads embeddings.parquet and ranks.parquet; of both a row is a query of the same id."""
    table, ranked = pq.read_table(embeddings), pq.read_table(ranks_path)
    row = {name: place for place, name in enumerate(table["query_id"].to_pylist())}
    table = table.take([row[name] for name in ranked["query_id"].to_pylist()])
    videos: dict[str, int] = {}
    asked = table["video_id"].to_pylist()
    truth = np.array([videos.setdefault(name, len(videos)) for name in asked], np.int64)
    first = np.unique(truth, return_index=True)[1]
    return Retrieved(
        sentences=ranked["sentence"].to_pylist(),
        truth=truth,
        ranks={name: ranked[f"rank_{name}"].to_numpy() for name in ("image", "image_audio")},
        text=_matrix(table["text"]),
        videos=list(videos),
        image=_matrix(table["image"])[first],
        audio=_matrix(table["audio"])[first],
        has_audio=np.array(table["has_audio"].to_pylist())[first],
    )


def _matrix(column: pa.ChunkedArray) -> Matrix:
    """(rows, dim); a row that is missing is zero."""
    array = column.combine_chunks()
    found = np.zeros((len(array), array.type.list_size), np.float32)
    present = np.array(array.is_valid())
    found[present] = array.drop_null().flatten().to_numpy().reshape(-1, found.shape[1])
    return found


def heard_by_weight(tested: Retrieved, weights: Sequence[float], metric: str) -> list[float]:
    """A text-to-video metric by audio weight, among the videos that have sound alone."""
    place = np.cumsum(tested.has_audio) - 1
    told = tested.has_audio[tested.truth]
    truth = place[tested.truth[told]]
    text = tested.text[told]
    image, audio = (rows[tested.has_audio] for rows in (tested.image, tested.audio))
    found = []
    for weight in weights:
        parts = [
            ranks(
                mix(similarity(text[rows], image), similarity(text[rows], audio), weight),
                truth[rows],
            )
            for rows in row_blocks(len(text))
        ]
        found.append(summarise(np.concatenate(parts))[metric])
    return found


def space_map(tested: Retrieved) -> dict[str, npt.NDArray[np.float64]]:
    """Points of up to 200 videos and their sentences laid out in the plane, (rows, 2) each for
    ``image``, ``audio`` and ``text``: t-SNE (van der Maaten and Hinton 2008) of cosine distances.
    """
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(_SEED)
    videos = rng.permutation(len(tested.videos))[:_MAPPED]
    queries = np.flatnonzero(np.isin(tested.truth, videos))[:_MAPPED]
    parts = {
        "image": tested.image[videos],
        "audio": tested.audio[videos[tested.has_audio[videos]]],
        "text": tested.text[queries],
    }
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    points = np.concatenate(list(parts.values())).astype(np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    layout = TSNE(
        init="pca", method="exact", random_state=_SEED, perplexity=min(30, (len(points) - 1) / 3)
    ).fit_transform(points)
    ends = np.cumsum([len(rows) for rows in parts.values()])
    return dict(zip(parts, np.split(layout, ends[:-1]), strict=True))


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query, the rank of its video, and pictures (JPEG in base64) of that and of the first one
    found.
    """

    sentence: str
    rank: float
    wanted: str
    found: str
    wanted_picture: str
    found_picture: str


def examples(tested: Retrieved, av_dir: Path, audio_weight: float, count: int) -> list[Example]:
    """The ``count`` best and the ``count`` worst queries by image and audio, best first."""
    order = np.argsort(tested.ranks["image_audio"], kind="stable")
    chosen = np.unique(np.concatenate([order[:count], order[-count:]]), return_index=True)[1]
    rows = np.concatenate([order[:count], order[-count:]])[np.sort(chosen)]
    scores = mix(
        similarity(tested.text[rows], tested.image), similarity(tested.text[rows], tested.audio),
        audio_weight, tested.has_audio,
    )  # fmt: skip
    found = scores.argmax(axis=1)
    picture = _pictures(av_dir, {*tested.truth[rows].tolist(), *found.tolist()}, tested.videos)
    return [
        Example(
            sentence=tested.sentences[row],
            rank=float(tested.ranks["image_audio"][row]),
            wanted=tested.videos[tested.truth[row]],
            found=tested.videos[best],
            wanted_picture=picture[int(tested.truth[row])],
            found_picture=picture[int(best)],
        )
        for row, best in zip(rows, found, strict=True)
    ]


def _pictures(av_dir: Path, wanted: set[int], videos: Sequence[str]) -> dict[int, str]:
    """The middle frame of videos by row, as it is stored."""
    names = {videos[row]: row for row in wanted}
    columns = ["clip_id", "shard", "frame_offsets", "frame_sizes"]
    index = pq.read_table(av_dir / "index.parquet", columns=columns)
    index = index.filter(pa.compute.is_in(index["clip_id"], pa.array(list(names))))
    pictures = {}
    for clip in index.to_pylist():
        middle = len(clip["frame_offsets"]) // 2
        content = read_extent(
            av_dir / clip["shard"], clip["frame_offsets"][middle], clip["frame_sizes"][middle]
        )
        pictures[names[clip["clip_id"]]] = base64.b64encode(content).decode()
    return pictures
