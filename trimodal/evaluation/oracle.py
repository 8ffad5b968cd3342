"""The score of a perfect observer of the demo's videos, from the facts that are true of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimodal.core.files import read_table


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The facts of a test video and of its caption, such as `drum=red` and `hear=dog`."""

    video_id: str
    video_seen: tuple[str, ...]
    video_heard: tuple[str, ...]
    caption_seen: tuple[str, ...]
    caption_heard: tuple[str, ...]
    has_audio: bool


def read_ground_truth(path: Path) -> tuple[GroundTruth, ...]:
    """The rows of the `truth.parquet` that `write_annotations` writes, in file order."""
    rows = read_table(path).to_pylist()
    return tuple(
        GroundTruth(
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
    """The score of a caption and a video is the number of the caption's facts that are true of the
    video. Row i has caption i and its video i.

    By sense: `image` counts what is seen, `audio` what is heard, `both` is their sum.
    """

    def __init__(self, rows: Sequence[GroundTruth]) -> None:
        self._facts = {
            "image": _incidences([r.caption_seen for r in rows], [r.video_seen for r in rows]),
            "audio": _incidences([r.caption_heard for r in rows], [r.video_heard for r in rows]),
        }

    def scores(self, queries: slice) -> dict[str, NDArray[np.float32]]:
        """Float32 (queries, videos) by sense, for some of the captions. The caller breaks ties."""
        scores = {
            sense: captions[queries] @ videos.T for sense, (captions, videos) in self._facts.items()
        }
        return scores | {"both": scores["image"] + scores["audio"]}


def _incidences(
    captions: Sequence[Sequence[str]], videos: Sequence[Sequence[str]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(captions, facts) and (videos, facts), 1 where the caption or video has the fact. Facts of no
    video are left out.
    """
    column = {fact: i for i, fact in enumerate(sorted({f for facts in videos for f in facts}))}

    def incidence(all_facts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        table = np.zeros((len(all_facts), len(column)), dtype=np.float32)
        for row, facts in enumerate(all_facts):
            table[row, [column[fact] for fact in facts if fact in column]] = 1
        return table

    return incidence(captions), incidence(videos)
