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


class Oracle:
    """Scores a video by the facts of a caption that are true of it; row i's caption is of video i.

    By sense: `image` counts what is seen, `audio` what is heard, `both` their sum.
    """

    def __init__(self, rows: Sequence[TruthRow]) -> None:
        self._told_and_true = {
            "image": _incidences([r.caption_seen for r in rows], [r.video_seen for r in rows]),
            "audio": _incidences([r.caption_heard for r in rows], [r.video_heard for r in rows]),
        }

    def scores(self, queries: slice) -> dict[str, NDArray[np.float32]]:
        """Float32 (queries, videos) by sense, for some of the captions. Ties are the caller's to
        break.
        """
        found = {name: told[queries] @ true.T for name, (told, true) in self._told_and_true.items()}
        return found | {"both": found["image"] + found["audio"]}


def _incidences(
    captions: Sequence[Sequence[str]], videos: Sequence[Sequence[str]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(captions, facts) and (videos, facts): 1 where one has a fact that some video has."""
    column = {fact: i for i, fact in enumerate(sorted({f for facts in videos for f in facts}))}

    def incidence(all_facts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        table = np.zeros((len(all_facts), len(column)), dtype=np.float32)
        for row, facts in enumerate(all_facts):
            table[row, [column[fact] for fact in facts if fact in column]] = 1
        return table

    return incidence(captions), incidence(videos)
