"""Indexing a folder: new, changed and deleted videos, embeddings, problems, killed runs."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from media_fixtures import ffmpeg, write_steps
from model_fixtures import Tool, make_tool
from training_fixtures import RATE_HZ, TinyData

from trimodal.media.audio import decode_audio
from trimodal.media.container import DecodingLimits
from trimodal.media.spectrogram import log_mel
from trimodal.media.video import decode_frames
from trimodal.search import index
from trimodal.search.audio_windows import (
    audio_windows,
    cut_windows,
    duration_seconds,
    moment_centre,
)
from trimodal.search.index import LIMITS, index_folder
from trimodal.search.store import FRAME_BITS, MomentStore, StoreError


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, one of them silent, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a folder").mkdir()
    write_steps(folder / "a.mp4", seconds=5)
    write_steps(folder / "a folder/ü '; --.MP4", seconds=4)
    write_steps(folder / "silent.mp4", seconds=3, with_audio=False)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture
def folder(videos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(videos, tmp_path / "videos"))


def rows_of(store: MomentStore, path: str) -> dict[float, np.ndarray]:
    """The vectors of a video's moments by second."""
    number = next(file.file for file in store.files() if file.path == path)
    table = store.table.to_arrow()
    return {
        (row["moment"] & (1 << FRAME_BITS) - 1) - 0.5: np.array(row["point"], np.float32)
        for row in table.to_pylist() if row["file"] == number
    }  # fmt: skip


def test_an_unchanged_folder_is_indexed_once(tool: Tool, folder: Path, tmp_path: Path) -> None:
    location = str(tmp_path / "store")
    report = index_folder(tool.model, folder, location, workers=2)
    assert (report.added, report.changed, report.kept, report.dropped) == (3, 0, 0, 0)
    assert (report.moments, report.problems) == (12, {})
    store = MomentStore.open(location)
    assert [(f.path, f.moments, f.has_audio) for f in store.files()] == [
        ("a folder/ü '; --.MP4", 4, True), ("a.mp4", 5, True), ("silent.mp4", 3, False),
    ]  # fmt: skip
    assert all(abs(file.aspect - 1.5) < 1e-6 for file in store.files())
    again = index_folder(tool.model, folder, location)
    assert (again.added, again.kept, again.moments) == (0, 3, 12)


def test_embeddings_are_those_of_the_frame_and_the_audio_around_it(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    location = str(tmp_path / "store")
    index_folder(tool.model, folder, location)
    store = MomentStore.open(location)
    frames = list(decode_frames(folder / "a.mp4", 32, 32, LIMITS))
    vectors = rows_of(store, "a.mp4")
    assert list(vectors) == [0.5, 1.5, 2.5, 3.5, 4.5]
    by_frame = tool.model.embed_images(frames)
    front_end = tool.model.checkpoint.audio_front_end
    by_audio = tool.model.embed_windows(audio_windows(folder / "a.mp4", front_end))
    np.testing.assert_allclose([v[:256] for v in vectors.values()], by_frame, atol=1e-5)
    audio = [v[256:] for v in vectors.values()]
    # Windows fit around 1.5, 2.5 and 3.5; at the edges they are moved inside.
    np.testing.assert_allclose(audio[:4], by_audio[[0, 0, 1, 2]], atol=1e-5)
    stored = log_mel(decode_audio(folder / "a.mp4", RATE_HZ, LIMITS), front_end.mel)
    end = duration_seconds(stored, front_end.mel)
    last = tool.model.embed_windows(cut_windows(stored, [end - 1.5], front_end))
    np.testing.assert_allclose(audio[4:], last, atol=1e-5)
    for vector in rows_of(store, "silent.mp4").values():
        np.testing.assert_array_equal(vector[:256], vector[256:])


@pytest.mark.parametrize(
    ("centre", "audio_seconds", "expected"),
    [(0.5, 10, 1.5), (5.5, 10, 5.5), (9.5, 10, 8.5), (9.5, 8, None), (1.5, 2, 1.0), (0.5, 0, None)],
)
def test_windows_are_moved_inside_the_audio(
    centre: float, audio_seconds: float, expected: float | None
) -> None:
    assert moment_centre(centre, audio_seconds, 3.0) == expected


def test_new_changed_and_deleted_videos(tool: Tool, folder: Path, tmp_path: Path) -> None:
    location = str(tmp_path / "store")
    index_folder(tool.model, folder, location)
    (folder / "silent.mp4").unlink()
    write_steps(folder / "a.mp4", seconds=2)
    write_steps(folder / "new.mkv.mp4", seconds=3).rename(folder / "new.mkv")
    report = index_folder(tool.model, folder, location)
    assert (report.added, report.changed, report.kept, report.dropped) == (1, 1, 1, 1)
    assert report.moments == 4 + 2 + 3
    store = MomentStore.open(location)
    assert [file.path for file in store.files()] == ["a folder/ü '; --.MP4", "a.mp4", "new.mkv"]
    assert len({file.file for file in store.files()}) == 3
    assert len(rows_of(store, "a.mp4")) == 2


def test_what_cannot_be_used_is_reported_with_its_reason(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    (folder / "rubbish.mp4").write_bytes(b"no video at all")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "link.mp4").symlink_to(folder / "a.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "linked").symlink_to(folder / "a folder")
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / os.fsdecode(b"\xff.mp4")).write_bytes(b"")
    (folder / "line\nbreak.mp4").write_bytes(b"")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2", folder / "audio.mp4")
    report = index_folder(tool.model, folder, str(tmp_path / "store"))
    assert report.moments == 12 + 5
    assert report.added == 7
    problems = report.problems
    assert problems.keys() == {
        "rubbish.mp4", "empty.mp4", "dangling.mp4", "\\udcff.mp4", "line\\nbreak.mp4", "audio.mp4",
        "linked", "pipe.mp4",
    }  # fmt: skip
    assert problems["audio.mp4"].startswith("no_video: ")
    assert problems["rubbish.mp4"].startswith("corrupt: ")
    assert problems["dangling.mp4"] == "a link to a file that does not exist"
    assert problems["linked"] == "a folder that is indexed under another path"
    assert problems["pipe.mp4"] == "not a regular file"
    again = index_folder(tool.model, folder, str(tmp_path / "store"))
    assert (again.added, again.kept) == (0, 7)
    assert again.problems == problems


def test_a_video_with_broken_audio_is_searched_by_its_frames(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its audio exceeds the length limit, its frames do not."""
    ffmpeg(
        "-i", folder / "a.mp4", "-f", "lavfi", "-i", "sine=duration=30:sample_rate=16000",
        "-map", "0:v", "-map", "1:a", "-c:v", "copy", folder / "long.mp4",
    )  # fmt: skip
    limits = DecodingLimits(clip_seconds=20, frame_pixels=10_000, timeout_seconds=60)
    monkeypatch.setattr(index, "LIMITS", limits)
    location = str(tmp_path / "store")
    report = index_folder(tool.model, folder, location)
    assert report.problems.keys() == {"long.mp4"}
    assert report.problems["long.mp4"].startswith("indexed without its audio: too_long")
    assert len(rows_of(MomentStore.open(location), "long.mp4")) == 5


def test_a_long_video_is_left_out(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        index, "LIMITS", DecodingLimits(clip_seconds=4, frame_pixels=10_000, timeout_seconds=60)
    )
    report = index_folder(tool.model, folder, str(tmp_path / "store"))
    assert report.moments == 7
    assert report.problems["a.mp4"].startswith("too_long: ")


class KilledError(Exception):
    """Simulates the end of the process."""


def test_a_killed_run_is_resumed(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after writing the first video, between the second's moments and its row."""
    location = str(tmp_path / "store")
    monkeypatch.setattr(index, "_VIDEOS_PER_WRITE", 1)
    add, calls = MomentStore.add, iter(range(100))

    def add_partly(store: MomentStore, files: list, moments: list, embeddings: np.ndarray) -> None:
        killed = next(calls) == 1
        add(store, [] if killed else files, moments, embeddings)
        if killed:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(MomentStore, "add", add_partly)
        with pytest.raises(KilledError):
            index_folder(tool.model, folder, location)
    report = index_folder(tool.model, folder, location)
    assert (report.added, report.kept, report.moments) == (2, 1, 12)
    assert sorted(file.file for file in MomentStore.open(location).files()) == [0, 1, 2]


def test_another_model_indexes_all_again(
    tool: Tool, tiny_data: TinyData, folder: Path, tmp_path: Path
) -> None:
    location = str(tmp_path / "store")
    index_folder(tool.model, folder, location)
    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    with pytest.raises(StoreError, match="indexed by another model than the loaded one"):
        other.search("a dog", store=location)
    assert index_folder(other, folder, location).added == 3
    assert MomentStore.open(location).about.model == other.fingerprint
    assert other.search("a dog", store=location)


def test_a_store_is_of_one_folder(tool: Tool, folder: Path, tmp_path: Path) -> None:
    location = str(tmp_path / "store")
    index_folder(tool.model, folder, location)
    (tmp_path / "others").mkdir()
    with pytest.raises(StoreError, match=r"index of .*videos; choose another --store"):
        index_folder(tool.model, tmp_path / "others", location)
    with pytest.raises(FileNotFoundError):
        index_folder(tool.model, tmp_path / "nowhere", location)
    with pytest.raises(NotADirectoryError):
        index_folder(tool.model, folder / "a.mp4", location)


def test_two_runs_at_once_are_refused(tool: Tool, folder: Path, tmp_path: Path) -> None:
    location = tmp_path / "store"
    location.mkdir()
    with FileLock(location / ".lock"), pytest.raises(StoreError, match="another run"):
        index_folder(tool.model, folder, str(location))


def test_batches_change_nothing(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One moment or all moments per batch."""
    one_batch, many_batches = str(tmp_path / "one"), str(tmp_path / "many")
    index_folder(tool.model, folder, one_batch)
    monkeypatch.setattr(index, "_BATCH_SIZE", 1)
    monkeypatch.setattr(index, "_VIDEOS_PER_WRITE", 1)
    index_folder(tool.model, folder, many_batches, workers=1)
    for name in ("a.mp4", "silent.mp4", "a folder/ü '; --.MP4"):
        one, other = (
            rows_of(MomentStore.open(location), name) for location in (one_batch, many_batches)
        )
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-5)
    files = [replace(file, file=0) for file in MomentStore.open(one_batch).files()]
    assert files == [replace(file, file=0) for file in MomentStore.open(many_batches).files()]
