"""The test queries and the clips that they describe; what is missing or left out is counted."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from trimodal.core.coverage import check_coverage
from trimodal.core.records import DataError, Query
from trimodal.data.clip_index import IndexedClip


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
