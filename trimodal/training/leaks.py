"""Detects test videos that are in the training data: same clip, YouTube video, frame or image.

The training data are the training and validation clips and all captioned images. Images are
compared byte for byte as stored: that finds copies of one file, not a film encoded twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION
from trimodal.core.files import read_table
from trimodal.core.progress import log
from trimodal.core.records import DataError
from trimodal.core.schemas import AV_SCHEMA, IMAGE_SCHEMA
from trimodal.media.image import UNIFORM_IMAGE

Policy = Literal["fail", "leave_out", "keep"]
Reason = Literal["same_clip", "same_youtube_video", "same_picture"]
_EXAMPLES = 5


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class LeaksConfig:
    """Section ``leaks``. If test videos are in the training data, ``fail`` stops train and
    evaluate, ``leave_out`` leaves them out of the evaluation and ``keep`` only counts them.
    """

    test_in_training: Policy


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """``by_reason`` has the leaked ``test_videos`` for each reason, each with the first training
    clip or image that it matches; ``unknown_origin`` are test videos without a known YouTube id.
    """

    test_videos: frozenset[str]
    by_reason: Mapping[Reason, Mapping[str, str]]
    unknown_origin: frozenset[str]

    @property
    def videos(self) -> frozenset[str]:
        """The test videos that are in the training data, for any reason."""
        return frozenset().union(*self.by_reason.values())

    def among(self, videos: Collection[str]) -> "Leaks":
        """The leaks of ``videos`` alone."""
        chosen = frozenset(videos)
        return Leaks(
            test_videos=self.test_videos & chosen,
            by_reason={
                reason: {video: other for video, other in pairs.items() if video in chosen}
                for reason, pairs in self.by_reason.items()
            },
            unknown_origin=self.unknown_origin & chosen,
        )


def find_leaks(av_dir: Path, images_dir: Path) -> Leaks:
    """Compares the test clips of ``av_dir`` with its other clips and the images of ``images_dir``.

    Raises DataError for an index without the columns to compare.
    """
    clips = read_table(
        av_dir / "index.parquet", AV_SCHEMA,
        columns=["split", "clip_id", "youtube_id", "picture_fingerprints"],
    ).combine_chunks()  # fmt: skip
    images = read_table(
        images_dir / "index.parquet", IMAGE_SCHEMA, columns=["image_id", "picture_fingerprint"]
    ).combine_chunks()
    is_test = pc.equal(clips["split"], "test")
    test, training = clips.filter(is_test), clips.filter(pc.invert(is_test))
    training_images = pa.concat_tables([_frames(training), _images(images)])

    def shared(column: str) -> dict[str, str]:
        test_keys, training_keys = (
            part.select(["clip_id", column]).rename_columns(["owner", "key"])
            for part in (test, training)
        )
        return _shared(test_keys, training_keys, ignored="")

    return Leaks(
        test_videos=frozenset(test["clip_id"].to_pylist()),
        by_reason={
            "same_clip": shared("clip_id"),
            "same_youtube_video": shared("youtube_id"),
            "same_picture": _shared(_frames(test), training_images, ignored=UNIFORM_IMAGE),
        },
        unknown_origin=frozenset(
            test["clip_id"].filter(pc.equal(test["youtube_id"], "")).to_pylist()
        ),
    )


def check_leaks(
    stage: str, leaks: Leaks, config: LeaksConfig, *, items: str = "test videos"
) -> None:
    """If test videos, or other test ``items``, are in the training data: raises DataError, with up
    to five examples for each reason, if ``leaks.test_in_training`` is ``fail``, and else logs the
    same.
    """
    if not leaks.videos:
        return
    policy = config.test_in_training
    headline = f"{stage}: {len(leaks.videos)} of {len(leaks.test_videos)} {items} are in training"
    lines = [_line(reason, pairs) for reason, pairs in leaks.by_reason.items() if pairs]
    if policy != "fail":
        log.info(f"{headline} (leaks.test_in_training: {policy})\n" + "\n".join(lines))
        return
    raise DataError(
        "\n".join(
            [
                f"{headline}: the metrics would be too good (test data <-> training data)",
                *lines,
                "remove those clips and images from training, or set leaks.test_in_training to "
                "leave_out (evaluate leaves these out) or keep (evaluate counts them)",
            ]
        )
    )


def _line(reason: Reason, pairs: Mapping[str, str]) -> str:
    shown = ", ".join(f"{video} <-> {other}" for video, other in islice(pairs.items(), _EXAMPLES))
    more = ", ..." if len(pairs) > _EXAMPLES else ""
    return f"  {reason.replace('_', ' ')}: {len(pairs)}, {shown}{more}"


def _frames(clips: pa.Table) -> pa.Table:
    """One row for each frame: its clip as ``owner``, its fingerprint as ``key``."""
    lists = clips["picture_fingerprints"].combine_chunks()
    owners = clips["clip_id"].combine_chunks().take(pc.list_parent_indices(lists))
    return pa.table({"owner": owners, "key": pc.list_flatten(lists)})


def _images(images: pa.Table) -> pa.Table:
    """One row for each image: its name as ``owner``, its fingerprint as ``key``."""
    owners = pc.binary_join_element_wise("image", images["image_id"], " ")
    return pa.table({"owner": owners, "key": images["picture_fingerprint"]})


def _shared(test: pa.Table, training: pa.Table, *, ignored: str | int) -> dict[str, str]:
    """Each owner in ``test`` of a ``key`` that is also in ``training``, with that key's first owner
    there. The key ``ignored`` does not count.
    """
    test = test.filter(pc.not_equal(test["key"], ignored)).combine_chunks()
    training = training.filter(pc.is_in(training["key"], test["key"].combine_chunks()))
    rows = pc.index_in(test["key"], training["key"].combine_chunks())
    owners = test["owner"].filter(pc.is_valid(rows)).to_pylist()
    matches = training["owner"].take(rows.drop_null()).to_pylist()
    first_match: dict[str, str] = {}
    for owner, match in zip(owners, matches, strict=True):
        first_match.setdefault(owner, match)
    return first_match
