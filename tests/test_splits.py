"""The validation split: the authors' choice, large enough, and no video on both sides."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from configs import MACHINE
from data_fixtures import write_clip
from training_fixtures import TinyData, extract_config

from trimodal.core.archives import StoredFile
from trimodal.core.manifest import write_manifest
from trimodal.core.records import Clip
from trimodal.download.probe import inspect
from trimodal.preprocess.extract import extract
from trimodal.preprocess.splits import hold_out, keep_videos_together


def authors_split(names: list[str], share: float) -> tuple[list[str], list[str]]:
    """As the authors' code is described: shuffled with seed 2020, the last share held out."""
    shuffled = sorted(names)
    random.seed(2020)
    random.shuffle(shuffled)
    count = int(share * len(shuffled))
    return shuffled[: len(shuffled) - count], shuffled[len(shuffled) - count :]


@pytest.mark.parametrize("count", [20, 30, 100, 1234])
def test_held_out_clips_are_the_authors(count: int) -> None:
    names = sorted(f"clip{i}" for i in range(count))
    train, val = authors_split(names, 0.1)
    assert hold_out(names, 0.1, 2020) == (sorted(train), sorted(val))


@pytest.mark.parametrize("count", [4, 19])
def test_at_least_two_clips_are_held_out(count: int) -> None:
    names = sorted(f"clip{i}" for i in range(count))
    train, val = hold_out(names, 0.1, 2020)
    assert len(val) == 2
    assert sorted(train + val) == names


def test_another_seed_holds_out_others() -> None:
    names = sorted(f"clip{i}" for i in range(100))
    assert hold_out(names, 0.1, 2020)[1] != hold_out(names, 0.1, 2021)[1]


def test_clips_that_share_a_video_with_validation_leave_training() -> None:
    names = sorted(f"clip{i}" for i in range(100))
    train, val = hold_out(names, 0.1, 2020)
    youtube_ids = {name: name for name in names}
    youtube_ids[train[3]] = youtube_ids[train[50]] = youtube_ids[val[0]]
    youtube_ids[val[5]] = youtube_ids[val[4]]
    youtube_ids[train[7]] = youtube_ids[train[8]]
    moved = {train[3], train[50]}
    train_after, val_after = keep_videos_together(train, val, youtube_ids)
    assert train_after == [name for name in train if name not in moved]
    assert val_after == sorted({*val, *moved})


def test_videos_that_occur_once_and_unknown_ones_are_not_moved() -> None:
    names = sorted(f"clip{i}" for i in range(100))
    split = hold_out(names, 0.1, 2020)
    assert keep_videos_together(*split, {name: name for name in names}) == split
    assert keep_videos_together(*split, dict.fromkeys(names, "")) == split


def test_extract_keeps_videos_together(tiny_data: TinyData, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", seconds=2)
    names = [f"clip{i}" for i in range(6)]
    train, val = hold_out(names, 0.1, 2020)
    youtube_ids = {name: f"{name:_<11}" for name in names} | dict.fromkeys(
        (train[0], val[0]), "abcdefghijk"
    )
    test = Clip(clip_id="video1", source="msrvtt", split="test", label="", youtube_id="abcdefghijk")
    clips = [
        Clip(clip_id=name, source="vggsound", split="train", label="", youtube_id=youtube_id)
        for name, youtube_id in youtube_ids.items()
    ]
    file = StoredFile(path=path, size=path.stat().st_size)
    write_manifest(
        tmp_path / "manifest.parquet", [inspect(clip, file, None) for clip in [*clips, test]]
    )
    extract(
        tmp_path / "manifest.parquet", tmp_path / "av", extract_config(), tiny_data.mel, MACHINE
    )
    rows = pq.read_table(tmp_path / "av" / "index.parquet").to_pylist()
    split = {row["clip_id"]: row["split"] for row in rows}
    assert split.pop("video1") == "test"
    assert sorted(name for name in split if split[name] == "val") == sorted([*val, train[0]])
    assert len(split) == 6
