"""Whether test videos are in what training sees: the clip, its YouTube video or its pictures.

Training sees the training and validation clips and all caption images. Pictures are compared byte
for byte as they are stored: that finds copies of one file, not the same film encoded twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.core.progress import log
from trimodal.core.records import DataError
from trimodal.media.image import UNIFORM_IMAGE

Policy = Literal["fail", "leave_out", "keep"]
Reason = Literal["same_clip", "same_youtube_video", "same_picture"]
_EXAMPLES = 5


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class LeaksConfig:
    """Section ``leaks``. Where test videos are in training, ``fail`` stops train and evaluate,
    ``leave_out`` drops them from the evaluation and ``keep`` only counts them in the audit.
    """

    test_in_training: Policy


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """``found`` has the leaked ``test_videos`` of each reason, each with the first clip or image of
    training that it shares; ``unknown_origin`` are test videos whose YouTube id nobody knows.
    """

    test_videos: frozenset[str]
    found: Mapping[Reason, Mapping[str, str]]
    unknown_origin: frozenset[str]

    @property
    def videos(self) -> frozenset[str]:
        """The test videos that are in training, whatever the reason."""
        return frozenset().union(*self.found.values())

    def among(self, videos: Collection[str]) -> "Leaks":
        """What of this concerns ``videos``."""
        chosen = frozenset(videos)
        return Leaks(
            test_videos=self.test_videos & chosen,
            found={
                reason: {video: other for video, other in pairs.items() if video in chosen}
                for reason, pairs in self.found.items()
            },
            unknown_origin=self.unknown_origin & chosen,
        )


def find_leaks(av_dir: Path, images_dir: Path) -> Leaks:
    """Compares the test clips of ``av_dir`` with everything else there and in ``images_dir``.

    Raises DataError for an index that does not say what to compare.
    """
    clips = _read(av_dir, ("split", "clip_id", "youtube_id", "picture_fingerprints"), "extract")
    images = _read(images_dir, ("image_id", "picture_fingerprint"), "captions")
    is_test = pc.equal(clips["split"], "test")
    test, trained = clips.filter(is_test), clips.filter(pc.invert(is_test))
    pictures = pa.concat_tables([_frames(trained), _images(images)])

    def shared(column: str) -> dict[str, str]:
        ours, others = (
            part.select(["clip_id", column]).rename_columns(["owner", "key"])
            for part in (test, trained)
        )
        return _shared(ours, others, nothing="")

    return Leaks(
        test_videos=frozenset(test["clip_id"].to_pylist()),
        found={
            "same_clip": shared("clip_id"),
            "same_youtube_video": shared("youtube_id"),
            "same_picture": _shared(_frames(test), pictures, nothing=UNIFORM_IMAGE),
        },
        unknown_origin=frozenset(
            test["clip_id"].filter(pc.equal(test["youtube_id"], "")).to_pylist()
        ),
    )


def check_leaks(stage: str, leaks: Leaks, config: LeaksConfig) -> None:
    """Raises DataError, with five examples of each reason, if a test video is in training and
    ``leaks.test_in_training`` is ``fail``; else says in the log how many are.
    """
    if not leaks.videos:
        return
    policy = config.test_in_training
    told = f"{stage}: {len(leaks.videos)} of {len(leaks.test_videos)} test videos are in training"
    lines = [_line(reason, pairs) for reason, pairs in leaks.found.items() if pairs]
    if policy != "fail":
        log.info(f"{told} (leaks.test_in_training: {policy})\n" + "\n".join(lines))
        return
    raise DataError(
        "\n".join(
            [
                f"{told}: retrieval would be easier than it is (test video <-> in training)",
                *lines,
                "take those clips and images out of training, or set leaks.test_in_training to "
                "leave_out (evaluate leaves these videos out) or keep (evaluate counts them)",
            ]
        )
    )


def _line(reason: Reason, pairs: Mapping[str, str]) -> str:
    shown = ", ".join(f"{video} <-> {other}" for video, other in islice(pairs.items(), _EXAMPLES))
    more = ", ..." if len(pairs) > _EXAMPLES else ""
    return f"  {reason.replace('_', ' ')}: {len(pairs)}, {shown}{more}"


def _read(folder: Path, columns: tuple[str, ...], stage: str) -> pa.Table:
    path = folder / "index.parquet"
    if lacking := set(columns) - set(pq.read_schema(path).names):
        raise DataError(f"{path} has no {', '.join(sorted(lacking))}; run the {stage} stage again")
    return pq.read_table(path, columns=list(columns)).combine_chunks()


def _frames(clips: pa.Table) -> pa.Table:
    """A row a frame: the clip it is of, its fingerprint."""
    lists = clips["picture_fingerprints"].combine_chunks()
    owners = clips["clip_id"].combine_chunks().take(pc.list_parent_indices(lists))
    return pa.table({"owner": owners, "key": pc.list_flatten(lists)})


def _images(images: pa.Table) -> pa.Table:
    """A row an image: its name, its fingerprint."""
    owners = pc.binary_join_element_wise("image", images["image_id"], " ")
    return pa.table({"owner": owners, "key": images["picture_fingerprint"]})


def _shared(test: pa.Table, trained: pa.Table, *, nothing: str | int) -> dict[str, str]:
    """Each owner in ``test`` that has a ``key`` which ``trained`` has too, with the first owner of
    that key there; the key ``nothing`` is none.
    """
    test = test.filter(pc.not_equal(test["key"], nothing)).combine_chunks()
    trained = trained.filter(pc.is_in(trained["key"], test["key"].combine_chunks()))
    places = pc.index_in(test["key"], trained["key"].combine_chunks())
    owners = test["owner"].filter(pc.is_valid(places)).to_pylist()
    others = trained["owner"].take(places.drop_null()).to_pylist()
    found: dict[str, str] = {}
    for owner, other in zip(owners, others, strict=True):
        found.setdefault(owner, other)
    return found
