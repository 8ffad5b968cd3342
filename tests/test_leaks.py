"""Test videos in the training data: detected by clip, YouTube video or image; then refused or
counted.
"""

import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from configs import MACHINE
from trainer_fixtures import run_training
from training_fixtures import TinyData, extract_config

from trimodal.core.archives import StoredFile
from trimodal.core.files import write_table
from trimodal.core.manifest import write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.core.schemas import AV_SCHEMA, IMAGE_SCHEMA
from trimodal.download.probe import inspect
from trimodal.media.shard_format import index_metadata
from trimodal.preprocess.extract import extract
from trimodal.training.leaks import Leaks, LeaksConfig, check_leaks, find_leaks
from trimodal.training.trainer import Trainer

FAIL, LEAVE_OUT, KEEP = (
    LeaksConfig(test_in_training=policy) for policy in ("fail", "leave_out", "keep")
)
Row = tuple[str, str, str, list[int]]  # split, clip id, YouTube id, fingerprints


def write_indexes(
    folder: Path, clips: Iterable[Row], images: Iterable[tuple[str, int]] = ()
) -> tuple[Path, Path]:
    rows = [
        {
            "split": split,
            "clip_id": name,
            "youtube_id": youtube_id,
            "picture_fingerprints": pictures,
        }
        for split, name, youtube_id, pictures in clips
    ]
    write_table(folder / "av" / "index.parquet", pa.Table.from_pylist(rows, AV_SCHEMA))
    image_rows = [
        {"image_id": name, "picture_fingerprint": picture, "split": ("train", "val")[i % 2]}
        for i, (name, picture) in enumerate(images)
    ]
    write_table(folder / "images" / "index.parquet", pa.Table.from_pylist(image_rows, IMAGE_SCHEMA))
    return folder / "av", folder / "images"


def leaks_of(folder: Path, clips: Iterable[Row], images: Iterable[tuple[str, int]] = ()) -> Leaks:
    return find_leaks(*write_indexes(folder, clips, images))


CLEAN: list[Row] = [
    ("train", "a", "youtube___a", [1, 2, 0]),
    ("val", "b", "youtube___b", [3, -4]),
    ("train", "c", "", [0, 0]),
    ("test", "video1", "youtube___1", [5, 6, 0]),
    ("test", "video2", "", [0, 7]),
    ("test", "video3", "", []),
]
IMAGES = [("coco_1", 8), ("coco_2", 9), ("coco_3", 0)]


def test_uniform_images_and_unknown_videos_are_not_leaks(tmp_path: Path) -> None:
    leaks = leaks_of(tmp_path, CLEAN, IMAGES)
    assert leaks.by_reason == {"same_clip": {}, "same_youtube_video": {}, "same_picture": {}}
    assert leaks.videos == frozenset()
    assert leaks.test_videos == {"video1", "video2", "video3"}
    assert leaks.unknown_origin == {"video2", "video3"}
    for config in (FAIL, LEAVE_OUT, KEEP):
        check_leaks("train", leaks, config)


@pytest.mark.parametrize(
    ("row", "reason", "video", "other"),
    [
        (("train", "video1", "", []), "same_clip", "video1", "video1"),
        (("val", "video2", "", []), "same_clip", "video2", "video2"),
        (("train", "d", "youtube___1", []), "same_youtube_video", "video1", "d"),
        (("val", "d", "youtube___1", []), "same_youtube_video", "video1", "d"),
        (("train", "d", "", [11, 7]), "same_picture", "video2", "d"),
        (("val", "d", "", [11, 6, 0]), "same_picture", "video1", "d"),
        (("test", "video4", "youtube___b", [11]), "same_youtube_video", "video4", "b"),
        (("test", "video4", "", [11, -4]), "same_picture", "video4", "b"),
        (("test", "video4", "", [9]), "same_picture", "video4", "image coco_2"),
    ],
)
def test_each_way_into_training_is_found(
    row: Row, reason: Any, video: str, other: str, tmp_path: Path
) -> None:
    for position in (0, 3, len(CLEAN)):
        leaks = leaks_of(tmp_path, [*CLEAN[:position], row, *CLEAN[position:]], IMAGES)
        assert {name: pairs for name, pairs in leaks.by_reason.items() if pairs} == {
            reason: {video: other}
        }
        assert leaks.videos == {video}


def test_test_videos_may_match_each_other(tmp_path: Path) -> None:
    assert not leaks_of(tmp_path, [*CLEAN, ("test", "video4", "youtube___1", [5, 7])]).videos


@pytest.mark.parametrize("seed", range(20))
def test_all_leaks_are_what_slow_loops_find(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    clips: list[Row] = [
        (
            str(rng.choice(["train", "val", "test"])),
            f"clip{rng.integers(40)}",
            str(rng.choice(["", f"id{rng.integers(40):09d}"])),
            rng.integers(0, 60, rng.integers(0, 4)).tolist(),
        )
        for _ in range(25)
    ]
    images = [(f"i{n}", int(rng.integers(0, 60))) for n in range(5)]
    leaks = leaks_of(tmp_path, clips, images)
    tests = [clip for clip in clips if clip[0] == "test"]
    others = [clip for clip in clips if clip[0] != "test"]
    expected: dict[str, dict[str, set[str]]] = {name: {} for name in leaks.by_reason}
    for _, name, youtube_id, pictures in tests:
        for _, other, origin, shown in others:
            if name == other:
                expected["same_clip"].setdefault(name, set()).add(other)
            if youtube_id and youtube_id == origin:
                expected["same_youtube_video"].setdefault(name, set()).add(other)
            if (set(pictures) & set(shown)) - {0}:
                expected["same_picture"].setdefault(name, set()).add(other)
        for image, picture in images:
            if picture and picture in pictures:
                expected["same_picture"].setdefault(name, set()).add(f"image {image}")
    assert {reason: set(pairs) for reason, pairs in leaks.by_reason.items()} == {
        reason: set(pairs) for reason, pairs in expected.items()
    }
    for reason, pairs in leaks.by_reason.items():
        assert all(other in expected[reason][video] for video, other in pairs.items())


def test_videos_outside_the_test_file_are_not_leaks(tmp_path: Path) -> None:
    clips = [*CLEAN, ("train", "video1", "", [7])]
    leaks = leaks_of(tmp_path, clips).among({"video2", "elsewhere"})
    assert leaks.by_reason == {
        "same_clip": {}, "same_youtube_video": {}, "same_picture": {"video2": "video1"},
    }  # fmt: skip
    assert leaks.test_videos == leaks.unknown_origin == {"video2"}
    assert not leaks_of(tmp_path, clips).among({"video3"}).videos


LEAKED = Leaks(
    test_videos=frozenset(f"video{n}" for n in range(20)),
    by_reason={
        "same_clip": {},
        "same_youtube_video": {"video0": "abc_000010"},
        "same_picture": {f"video{n}": f"image coco_{n}" for n in range(7)},
    },
    unknown_origin=frozenset(),
)


def test_failure_gives_examples_and_advice() -> None:
    with pytest.raises(DataError) as caught:
        check_leaks("train", LEAKED, FAIL)
    message = str(caught.value)
    assert "train: 7 of 20 test videos are in training" in message
    assert "same youtube video: 1, video0 <-> abc_000010\n" in message
    assert "same picture: 7, video0 <-> image coco_0, video1" in message
    assert "video4 <-> image coco_4, ...\n" in message
    assert "video5" not in message
    assert "same clip" not in message
    for word in ("leaks.test_in_training", "leave_out", "keep"):
        assert word in message


@pytest.mark.parametrize("config", [LEAVE_OUT, KEEP])
def test_other_policies_log_the_leaks(
    config: LeaksConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        check_leaks("train", LEAKED, config)
    policy = config.test_in_training
    message = f"7 of 20 test videos are in training (leaks.test_in_training: {policy})"
    assert message in caplog.text


@pytest.mark.parametrize(
    ("folder", "column"),
    [("av", "picture_fingerprints"), ("av", "youtube_id"), ("images", "picture_fingerprint")],
)
def test_index_of_an_earlier_version_is_refused(folder: str, column: str, tmp_path: Path) -> None:
    folders = write_indexes(tmp_path, CLEAN, IMAGES)
    path = tmp_path / folder / "index.parquet"
    write_table(path, pq.read_table(path).drop_columns([column]))
    with pytest.raises(
        DataError,
        match=rf"index\.parquet: a different table, without {column}, .* run its stage again",
    ):
        find_leaks(*folders)


def test_frames_of_one_clip_under_two_names_match(tiny_data: TinyData, tmp_path: Path) -> None:
    """Real files, from the media to the check: a training clip is also in the test set."""
    files = {f"clip-{n}": n for n in range(6)} | {"video1": 3, "video2": 8}
    outcomes = []
    for name, number in files.items():
        path = tiny_data.av_dir.parent / "clips" / f"{number}.mp4"
        clip = Clip(
            clip_id=name, source="vggsound", label="",
            split="test" if name.startswith("video") else "train",
        )  # fmt: skip
        outcomes.append(inspect(clip, StoredFile.plain(path), None))
    write_manifest(tmp_path / "manifest.parquet", outcomes)
    extract(
        tmp_path / "manifest.parquet",
        tmp_path / "av",
        extract_config(),
        tiny_data.mel,
        MACHINE,
    )
    leaks = find_leaks(tmp_path / "av", tiny_data.images_dir)
    assert leaks.by_reason["same_picture"] == {"video1": "clip-3"}
    assert leaks.videos == {"video1"}
    assert leaks.unknown_origin == {"video1", "video2"}


@pytest.fixture
def leaking(tiny_data: TinyData, tmp_path: Path) -> TinyData:
    """A test video is from the same YouTube video as a validation clip."""
    av_dir = Path(shutil.copytree(tiny_data.av_dir, tmp_path / "av"))
    rows = pq.read_table(av_dir / "index.parquet").to_pylist()
    for split in ("val", "test"):
        next(row for row in rows if row["split"] == split)["youtube_id"] = "abcdefghijk"
    write_table(
        av_dir / "index.parquet",
        pa.Table.from_pylist(rows, AV_SCHEMA.with_metadata(index_metadata(tiny_data.mel))),
    )
    return replace(tiny_data, av_dir=av_dir)


def test_a_leak_stops_training_before_its_first_step(
    leaking: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # outside the repository, so that DVC logs nothing
    steps: list[int] = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *a: (steps.append(1), step(*a))[1])
    with pytest.raises(DataError, match=r"train: 1 of 2 test videos") as caught:
        run_training(leaking, tmp_path / "run")
    assert "same youtube video: 1, video9 <-> clip-" in str(caught.value)
    assert not steps
    assert not (tmp_path / "run").exists()
    run_training(leaking, tmp_path / "run", leaks="leave_out")
    assert steps


def test_tiny_data_has_no_leak(tiny_data: TinyData) -> None:
    assert not find_leaks(tiny_data.av_dir, tiny_data.images_dir).videos


def test_paper_scale_takes_seconds(tmp_path: Path) -> None:
    """1.7 million frames, 30,000 of them of test videos; one is in both."""
    clips, tests = 167_000, 3000
    pictures = np.random.default_rng(0).integers(1, 2**63, 10 * (clips + tests))
    pictures[-5] = pictures[10 * 1234]
    ends = np.arange(clips + tests + 1, dtype=np.int32) * 10
    table = pa.table(
        {
            "split": ["train"] * clips + ["test"] * tests,
            "clip_id": [f"clip{n}" for n in range(clips + tests)],
            "youtube_id": [f"{n:011d}" for n in range(clips + tests)],
            "picture_fingerprints": pa.ListArray.from_arrays(ends, pictures),
        }
    )
    av_dir, images_dir = write_indexes(tmp_path, [], IMAGES)
    rows = len(table)
    for name, kind in zip(AV_SCHEMA.names, AV_SCHEMA.types, strict=True):
        if name not in table.column_names:
            empty = {pa.string(): "", pa.list_(pa.int64()): []}.get(kind, 0)
            table = table.append_column(name, pa.array([empty] * rows, kind))
    write_table(av_dir / "index.parquet", table.select(AV_SCHEMA.names).cast(AV_SCHEMA))
    before = time.process_time()
    leaks = find_leaks(av_dir, images_dir)
    assert time.process_time() - before < 10
    assert leaks.by_reason["same_picture"] == {f"clip{clips + tests - 1}": "clip1234"}
    assert not replace(leaks, by_reason=dict(leaks.by_reason, same_picture={})).videos
