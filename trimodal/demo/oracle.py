"""What a perfect observer would score, from the facts that are true of each video."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TruthRow:
    """One test video and its caption: facts such as `drum=red` and `hear=dog`."""

    video_id: str
    video_seen: tuple[str, ...]
    video_heard: tuple[str, ...]
    caption_seen: tuple[str, ...]
    caption_heard: tuple[str, ...]
    has_audio: bool


def load_truth(path: Path) -> tuple[TruthRow, ...]:
    """The rows of a `truth.parquet` as `write_annotations` leaves it, in file order."""
    rows = pq.read_table(path).to_pylist()
    return tuple(
        TruthRow(
            video_id=row["video_id"],
            video_seen=tuple(row["video_seen"]),
            video_heard=tuple(row["video_heard"]),
            caption_seen=tuple(row["caption_seen"]),
            caption_heard=tuple(row["caption_heard"]),
            has_audio=row["has_audio"],
        )
        for row in rows
    )


def oracle_scores(rows: Sequence[TruthRow]) -> dict[str, NDArray[np.float32]]:
    """Facts of each caption that are true of each video: float32 (queries, videos) a key.

    Keys: `image` counts what is seen, `audio` what is heard, `both` their sum. Ties are the
    caller's to break.
    """
    image = _shared([row.caption_seen for row in rows], [row.video_seen for row in rows])
    audio = _shared([row.caption_heard for row in rows], [row.video_heard for row in rows])
    return {"image": image, "audio": audio, "both": image + audio}


def _shared(
    captions: Sequence[Sequence[str]], videos: Sequence[Sequence[str]]
) -> NDArray[np.float32]:
    column = {fact: i for i, fact in enumerate(sorted({f for facts in videos for f in facts}))}

    def incidence(all_facts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        table = np.zeros((len(all_facts), len(column)), dtype=np.float32)
        for row, facts in enumerate(all_facts):
            table[row, [column[fact] for fact in facts if fact in column]] = 1
        return table

    return incidence(captions) @ incidence(videos).T
