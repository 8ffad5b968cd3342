"""What ``evaluate`` leaves of a few test videos, with shards that hold their frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from training_fixtures import TinyData

from trimodal.core.files import write_table
from trimodal.core.records import Query
from trimodal.evaluation.embeddings import Embeddings, write_embeddings
from trimodal.evaluation.metrics import video_ranks

AUDIO_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The test set's folder, with embeddings and ranks, the shards and the manifest of their clips,
    and the embeddings.
    """

    folder: Path
    av_dir: Path
    manifest: Path
    embeddings: Embeddings


def make_evaluated(data: TinyData, folder: Path) -> Evaluated:
    """Two sentences a video, the last video without audio, random embeddings."""
    index = pq.read_table(data.av_dir / "index.parquet", columns=["clip_id"])
    videos = index["clip_id"].to_pylist()[:6]
    rng = np.random.default_rng(4)
    queries = tuple(
        Query(query_id=f"q{number}", video_id=videos[number // 2], sentence=f"<b>{number}</b> dogs")
        for number in range(2 * len(videos))
    )

    def random_embeddings(rows: int) -> np.ndarray:
        drawn = rng.standard_normal((rows, 256)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    audio = random_embeddings(len(videos))
    has_audio = np.arange(len(videos)) < len(videos) - 1
    audio[~has_audio] = 0
    embeddings = Embeddings(
        queries=queries, image=random_embeddings(len(videos)), audio=audio,
        text=random_embeddings(len(queries)), has_audio=has_audio, padded_windows=0,
    )  # fmt: skip
    write_embeddings(folder / "embeddings.parquet", embeddings)
    image, both = video_ranks(embeddings, (0.0, AUDIO_WEIGHT))
    order = rng.permutation(len(queries))  # rows are matched by query id
    table = pa.table(
        {
            "query_id": [query.query_id for query in queries],
            "sentence": [query.sentence for query in queries],
            "rank_image": image,
            "rank_image_audio": both,
            "rank_audio_to_image": pa.array([None] * len(both), pa.float64()),
        }
    )
    write_table(folder / "ranks.parquet", table.take(order))
    return Evaluated(
        folder=folder, av_dir=data.av_dir, manifest=data.av_dir.parent / "manifest.parquet",
        embeddings=embeddings,
    )  # fmt: skip
