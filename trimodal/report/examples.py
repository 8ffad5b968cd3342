"""Queries that show what the model does well and badly, by kind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.evaluation.retrieval import mix, row_blocks, similarity
from trimodal.report.evaluated import EvaluatedTestSet
from trimodal.report.shown_videos import ShownVideo, show

_A_GROUP = 3


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query with its true video's ranks, by image and audio and by image alone, and the best
    video beside the true one, None if the true one is first.
    """

    sentence: str
    rank: float
    rank_image: float
    true: ShownVideo
    rival: ShownVideo | None


@dataclass(frozen=True, kw_only=True)
class ExampleGroup:
    """Examples of one kind; ``text`` says which."""

    title: str
    text: str
    examples: list[Example]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Rows of queries, (chosen,), of one kind."""

    title: str
    text: str
    queries: npt.NDArray[np.int64]


def example_groups(
    test_set: EvaluatedTestSet,
    audio_weight: float,
    av_dir: Path,
    manifest: Path,
    window_seconds: float,
) -> list[ExampleGroup]:
    """The examples of each kind that occurs, with ``window_seconds`` of sound a video: as long as
    what the audio network hears of a moment.
    """
    rivals, gaps = rivals_of(test_set, audio_weight)
    choices = [choice for choice in choose(test_set, rivals, gaps) if len(choice.queries)]
    queries = [int(query) for choice in choices for query in choice.queries]
    rows = {int(test_set.truth[query]) for query in queries}
    rows |= {int(rivals[query]) for query in queries if gaps[query] <= 0}
    names = [test_set.videos[row] for row in sorted(rows)]
    shown = show(names, av_dir, manifest, window_seconds)

    def example(query: int) -> Example:
        rival = shown[test_set.videos[rivals[query]]] if gaps[query] <= 0 else None
        return Example(
            sentence=test_set.sentences[query],
            rank=float(test_set.ranks["image_audio"][query]),
            rank_image=float(test_set.ranks["image"][query]),
            true=shown[test_set.videos[test_set.truth[query]]],
            rival=rival,
        )

    return [
        ExampleGroup(
            title=choice.title, text=choice.text, examples=[example(int(q)) for q in choice.queries]
        )
        for choice in choices
    ]


def unreadable_sounds(groups: Sequence[ExampleGroup]) -> Counter[str]:
    """How many of the shown videos' sounds could not be read, by reason."""
    videos = {
        video.name: f"sound {video.problem}"
        for group in groups
        for example in group.examples
        for video in (example.true, example.rival)
        if video and video.problem
    }
    return Counter(videos.values())


def choose(
    test_set: EvaluatedTestSet, rivals: npt.NDArray[np.int64], gaps: npt.NDArray[np.float32]
) -> list[Choice]:
    """The queries of each kind, three at most, the clearest first; a query may be of several."""
    image, both = test_set.ranks["image"], test_set.ranks["image_audio"]
    gain = np.where(test_set.has_audio[test_set.truth], image / both, 1.0)
    best = np.flatnonzero(gaps > 0)
    confused = _confused(test_set.truth, rivals, gaps)
    return [
        Choice(
            title="Best",
            text="The true video is first, by the widest margin.",
            queries=best[np.argsort(-gaps[best], kind="stable")][:_A_GROUP],
        ),
        Choice(
            title="Worst",
            text="The true video is ranked last.",
            queries=np.argsort(-both, kind="stable")[:_A_GROUP],
        ),
        Choice(
            title="Helped most by sound",
            text="With its audio the true video rises furthest, by the ratio of its ranks.",
            queries=_largest(gain),
        ),
        Choice(
            title="Misled most by sound",
            text="With its audio the true video falls furthest.",
            queries=_largest(1 / gain),
        ),
        Choice(
            title="Confused with each other",
            text="Two videos, each of them ranked first for the other's sentence.",
            queries=confused,
        ),
    ]


def _largest(ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    order = np.argsort(-ratio, kind="stable")
    return order[ratio[order] > 1][:_A_GROUP]


def _confused(
    truth: npt.NDArray[np.int64], rivals: npt.NDArray[np.int64], gaps: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """One query of each pair of videos that are taken for each other, the widest gaps first."""
    wrong = np.flatnonzero(gaps < 0)
    widest: dict[tuple[int, int], int] = {}
    for query in wrong[np.argsort(gaps[wrong], kind="stable")].tolist():
        widest.setdefault((int(truth[query]), int(rivals[query])), query)
    pairs = [
        query
        for (true, rival), query in widest.items()
        if (rival, true) in widest and gaps[query] <= gaps[widest[rival, true]]
    ]
    return np.array(pairs[:_A_GROUP], np.int64)


def rivals_of(
    test_set: EvaluatedTestSet, audio_weight: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The best video beside the true one for each query, and by how much the true one's score is
    above its score, (queries,) each. There must be two videos.
    """
    rivals, gaps = [], []
    for rows in row_blocks(len(test_set.text)):
        scores = mix(
            similarity(test_set.text[rows], test_set.image),
            similarity(test_set.text[rows], test_set.audio),
            audio_weight,
            test_set.has_audio,
        )
        each, true = np.arange(len(scores)), test_set.truth[rows]
        own = scores[each, true]
        scores[each, true] = -np.inf
        rivals.append(scores.argmax(axis=1))
        gaps.append(own - scores[each, rivals[-1]])
    return np.concatenate(rivals), np.concatenate(gaps)
