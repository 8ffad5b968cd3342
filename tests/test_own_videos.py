"""A folder of one's own videos, of any names, is the training set."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from configs import MACHINE, config_for_tests
from data_fixtures import write_clip

from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.core.records import DataError
from trimodal.download import own_videos as module
from trimodal.download.demo.world import DemoConfig
from trimodal.download.download import DownloadConfig, download
from trimodal.download.own_videos import clip_ids, find_own_videos
from trimodal.download.youtube import YoutubeConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five videos, one of them twice by name, one silent, one damaged, and a text file."""
    videos = tmp_path / "my videos"
    (videos / "2025").mkdir(parents=True)
    write_clip(videos / "a-video.mp4", seconds=2, sound=True)
    shutil.copy(videos / "a-video.mp4", videos / "2025" / "a-video.mp4")
    shutil.copy(videos / "a-video.mp4", videos / "Été (1).MP4")
    write_clip(videos / "silent.mp4", seconds=1, sound=False)
    (videos / "broken.mkv").write_bytes(b"no video")
    (videos / "notes.txt").write_text("no video either")
    return videos


def found(folder: Path, earlier: Sequence[ClipOutcome] = ()) -> dict[str, ClipOutcome]:
    outcomes = find_own_videos(folder, ["silent"] if earlier else [], earlier)
    return {outcome.clip.clip_id: outcome for outcome in outcomes}


def test_every_video_is_a_training_clip_with_a_plain_name(folder: Path) -> None:
    outcomes = found(folder)
    assert len(outcomes) == 5
    assert outcomes["silent"].status == "ok"
    assert not outcomes["silent"].has_audio
    assert outcomes["broken"].status == "corrupt"
    twins = [name for name in outcomes if name.startswith("a-video-")]
    assert len(twins) == 2  # neither has the bare stem, whatever the order of the folder
    assert [name for name in outcomes if name.startswith("t-1-")]
    assert {outcome.clip.split for outcome in outcomes.values()} == {"train"}
    assert all(outcome.path.startswith(folder.as_posix()) for outcome in outcomes.values())


def test_unchanged_files_are_not_probed_again_and_changed_ones_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(found(folder).values())
    probed: list[str] = []
    inspect = module.inspect
    monkeypatch.setattr(
        module, "inspect", lambda clip, *rest: probed.append(clip.clip_id) or inspect(clip, *rest)
    )
    assert found(folder, first).keys() == {o.clip.clip_id for o in first} - {"silent"}
    assert probed == ["broken"]  # which may have been half copied
    os.utime(folder / "2025" / "a-video.mp4", (1, 1))
    found(folder, first)
    assert len(probed) == 3
    assert probed[1].startswith("a-video-")


def test_ids_depend_on_the_path_within_the_folder_alone(tmp_path: Path) -> None:
    names = ["x y.mp4", "sub/x y.mp4", "..mp4", "é.mp4"]
    first, second = (
        clip_ids(tmp_path / root, [tmp_path / root / name for name in names]) for root in "ab"
    )
    assert first == second
    assert len(set(first)) == len(names)


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vggsound_media: .*: no videos \(\.mp4"):
        find_own_videos(tmp_path, (), ())


def test_the_stage_takes_a_folder_with_or_without_test_videos(folder: Path, tmp_path: Path) -> None:
    config = config_for_tests(
        DownloadConfig, source="videos", vggsound_media=str(folder), min_coverage=0.5
    )
    rest = config_for_tests(YoutubeConfig), config_for_tests(DemoConfig)
    download(config, *rest, tmp_path / "clips", tmp_path / "world", MACHINE)
    assert len(read_manifest(tmp_path / "clips" / "manifest.parquet")) == 5
    test_csv = tmp_path / "test.csv"
    test_csv.write_text("key,vid_key,video_id,sentence\nret0,m0,silent,nothing to hear\n")
    tested = replace(config, msrvtt_csv=str(test_csv), msrvtt_media=str(folder))
    download(tested, *rest, tmp_path / "clips", tmp_path / "world", MACHINE)
    rows = read_manifest(tmp_path / "clips" / "manifest.parquet")
    assert {row.clip.clip_id: row.clip.split for row in rows if row.clip.split == "test"} == {
        "silent": "test"
    }
    assert len(rows) == 5
    with pytest.raises(ValueError, match="msrvtt_media is required"):
        replace(config, msrvtt_csv="test.csv")
