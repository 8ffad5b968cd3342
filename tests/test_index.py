"""Indexing a folder: new, changed and deleted videos, embeddings, problems, killed runs."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pytest
import simplejpeg
import torch
from filelock import FileLock
from media_fixtures import ffmpeg, write_steps
from model_fixtures import Tool, make_tool
from torch import Tensor
from training_fixtures import RATE_HZ, TinyData

from trimodal.core import files as core_files
from trimodal.media.audio import decode_audio
from trimodal.media.audio_windows import (
    audio_windows,
    cut_windows,
    duration_seconds,
    moment_centre,
)
from trimodal.media.container import DecodingLimits
from trimodal.media.spectrogram import log_mel
from trimodal.media.video import decode_frames
from trimodal.search import folder as folder_module
from trimodal.search import index
from trimodal.search.folder import FolderError
from trimodal.search.footage import Footage, VideoFile
from trimodal.search.index import LIMITS, UnreachableError, drop_folder, index_folders
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError
from trimodal.search.tables import FRAME_BITS


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
    report = index_folders(tool.model, folder, location, workers=2)
    assert (report.added, report.changed, report.kept, report.dropped) == (3, 0, 0, 0)
    assert (report.moments, report.problems) == (12, {})
    store = MomentStore.open(location)
    assert [(f.path, f.moments, f.has_audio) for f in store.files()] == [
        ("a folder/ü '; --.MP4", 4, True), ("a.mp4", 5, True), ("silent.mp4", 3, False),
    ]  # fmt: skip
    assert all(abs(file.aspect - 1.5) < 1e-6 for file in store.files())
    again = index_folders(tool.model, folder, location)
    assert (again.added, again.kept, again.moments) == (0, 3, 12)


def test_embeddings_are_those_of_the_frame_and_the_audio_around_it(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    location = str(tmp_path / "store")
    index_folders(tool.model, folder, location)
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
    index_folders(tool.model, folder, location)
    (folder / "silent.mp4").unlink()
    write_steps(folder / "a.mp4", seconds=2)
    write_steps(folder / "new.mkv.mp4", seconds=3).rename(folder / "new.mkv")
    report = index_folders(tool.model, folder, location)
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
    report = index_folders(tool.model, folder, str(tmp_path / "store"))
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
    again = index_folders(tool.model, folder, str(tmp_path / "store"))
    assert (again.added, again.kept) == (0, 7)
    assert again.problems == problems


def test_a_video_that_the_machine_could_not_read_is_tried_again(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(videos: Iterable[VideoFile], *_: object) -> Iterator[Footage]:
        for video in videos:
            yield Footage(
                video=video, moments=0, side=0, mel=None, aspect=0.0,
                problem="unreadable: [Errno 5] Input/output error",
            )  # fmt: skip

    location = str(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(index, "decode_videos", unreadable)
        assert len(index_folders(tool.model, folder, location).problems) == 3
    report = index_folders(tool.model, folder, location)
    assert (report.kept, report.added, report.moments, report.problems) == (0, 3, 12, {})


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
    report = index_folders(tool.model, folder, location)
    assert report.problems.keys() == {"long.mp4"}
    assert report.problems["long.mp4"].startswith("indexed without its audio: too_long")
    assert len(rows_of(MomentStore.open(location), "long.mp4")) == 5


def test_a_long_video_is_left_out(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        index, "LIMITS", DecodingLimits(clip_seconds=4, frame_pixels=10_000, timeout_seconds=60)
    )
    report = index_folders(tool.model, folder, str(tmp_path / "store"))
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
            index_folders(tool.model, folder, location)
    report = index_folders(tool.model, folder, location)
    assert (report.added, report.kept, report.moments) == (2, 1, 12)
    assert sorted(file.file for file in MomentStore.open(location).files()) == [0, 1, 2]


def test_another_model_indexes_all_again(
    tool: Tool, tiny_data: TinyData, folder: Path, tmp_path: Path
) -> None:
    location = str(tmp_path / "store")
    index_folders(tool.model, folder, location)
    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    with pytest.raises(StoreError, match="indexed by another model than the loaded one"):
        other.search("a dog", store=location)
    assert index_folders(other, folder, location).added == 3
    assert MomentStore.open(location).about.model == other.fingerprint
    assert other.search("a dog", store=location)


def test_a_folder_without_videos_binds_no_store(tool: Tool, folder: Path, tmp_path: Path) -> None:
    """Nor does it replace one, or a mistyped one beside a right one."""
    store, empty = tmp_path / "store", tmp_path / "empty"
    empty.mkdir()
    for name in ("a.jpg", "b.JPG", "c", ".d.mp4"):
        (empty / name).touch()
    there = r"empty: no video here; left out: 1 hidden, 2 \.jpg, 1 without a suffix$"
    for wrong, told in (
        ([empty], there),
        ([folder, empty], there),
        ([tmp_path / "nowhere"], "nowhere: no such folder"),
        ([folder / "a.mp4"], "a.mp4: no such folder"),
        ([folder, folder / "a folder"], "a folder: inside .*videos, which is indexed"),
    ):
        with pytest.raises(FolderError, match=told):
            index_folders(tool.model, wrong, str(store), rebuild=True)
        assert not store.exists()
    index_folders(tool.model, folder / "a folder", str(store))
    with pytest.raises(FolderError, match="no video here"):
        index_folders(tool.model, empty, str(store), rebuild=True)
    with pytest.raises(FolderError, match=r"a folder: inside .*videos, which is indexed"):
        index_folders(tool.model, folder, str(store))
    assert MomentStore.open(str(store)).moments == 4


def test_folders_share_a_store_and_each_video_has_its_folder(
    tool: Tool, tiny_data: TinyData, folder: Path, tmp_path: Path
) -> None:
    """Videos of the same name are two; a folder that is not named stays, also for another model."""
    one, two, store = folder / "a folder", tmp_path / "two", tmp_path / "store"
    two.mkdir()
    shutil.copy(folder / "silent.mp4", two / "ü '; --.MP4")
    (two / "bad.mp4").write_bytes(b"rubbish")

    def stored() -> list[tuple[str, str, int]]:
        videos = MomentStore.open(str(store)).files()
        return [(video.folder, Path(video.path).suffix, video.moments) for video in videos]

    report = index_folders(tool.model, [one, two, one], str(store))
    assert (report.added, report.moments) == (3, 7)
    assert report.problems.keys() == {f"{two}/bad.mp4"}
    both = [(str(two), ".mp4", 0), (str(two), ".MP4", 3), (str(one), ".MP4", 4)]
    assert stored() == both
    hits = tool.model.search("a dog", store=store)
    assert {hit.location for hit in hits} == {one / "ü '; --.MP4", two / "ü '; --.MP4"}

    (two / "bad.mp4").unlink()
    report = index_folders(tool.model, two, str(store))
    assert (report.kept, report.dropped, report.moments) == (1, 1, 7)
    assert stored() == both[1:]

    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    report = index_folders(other, two, str(store))
    assert (report.added, report.moments) == (2, 7)
    assert stored() == both[1:]
    shutil.rmtree(two)
    report = index_folders(tool.model, one, str(store))
    assert (report.added, report.moments) == (1, 4)
    assert report.problems == {f"{two}/": "not there; its videos, of another model, are dropped"}


def test_a_folder_is_dropped_also_if_it_is_gone(tool: Tool, folder: Path, tmp_path: Path) -> None:
    two, store = tmp_path / "two", str(tmp_path / "store")
    two.mkdir()
    shutil.copy(folder / "silent.mp4", two / "b.mp4")
    index_folders(tool.model, [folder / "a folder", two], store)
    shutil.rmtree(two)
    assert drop_folder(store, two) == 1
    assert {video.folder for video in MomentStore.open(store).files()} == {str(folder / "a folder")}
    with pytest.raises(StoreError, match=r"no videos of .*two; there is .*a folder$"):
        drop_folder(store, two)
    drop_folder(store, folder / "a folder")
    with pytest.raises(StoreError, match="the index is empty; `trimodal index FOLDER` fills it"):
        tool.model.search("a dog", store=store)


def test_an_index_of_one_folder_by_an_earlier_version_is_refused(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    index_folders(tool.model, folder / "a folder", store)
    table = lancedb.connect(store).open_table("about")
    (row,) = table.to_arrow().to_pylist()
    earlier = {"folder": str(folder / "a folder"), **row, "format": 2}
    lancedb.connect(store).create_table("about", [earlier], mode="overwrite")
    (tmp_path / "store" / "checksums.json").unlink()
    with pytest.raises(StoreError, match="another format; delete it and index again"):
        tool.model.search("a dog", store=store)


def test_two_runs_at_once_are_refused(tool: Tool, folder: Path, tmp_path: Path) -> None:
    location = tmp_path / "store"
    location.mkdir()
    with FileLock(location / ".lock"), pytest.raises(StoreError, match="another run"):
        index_folders(tool.model, folder, str(location))


def test_batches_change_nothing(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One moment or all moments per batch."""
    one_batch, many_batches = str(tmp_path / "one"), str(tmp_path / "many")
    index_folders(tool.model, folder, one_batch)
    monkeypatch.setattr(index, "_BATCH_SIZE", 1)
    monkeypatch.setattr(index, "_VIDEOS_PER_WRITE", 1)
    index_folders(tool.model, folder, many_batches, workers=1)
    for name in ("a.mp4", "silent.mp4", "a folder/ü '; --.MP4"):
        one, other = (
            rows_of(MomentStore.open(location), name) for location in (one_batch, many_batches)
        )
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-5)
    files = [replace(file, file=0) for file in MomentStore.open(one_batch).files()]
    assert files == [replace(file, file=0) for file in MomentStore.open(many_batches).files()]


def test_the_networks_get_the_moments_of_several_videos_at_once(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4, 5 and 3 moments, in batches of at most 9."""
    sizes = []
    embed = tool.model.embed_frames

    def embed_frames(frames: list[Tensor]) -> np.ndarray:
        sizes.append(len(frames))
        return embed(frames)

    monkeypatch.setattr(tool.model, "embed_frames", embed_frames)
    monkeypatch.setattr(index, "_BATCH_SIZE", 9)
    index_folders(tool.model, [folder], str(tmp_path / "store"))
    assert sizes == [9, 3]


def test_the_picture_of_a_window_has_the_interpolated_colours() -> None:
    window = torch.linspace(-1, 1, 64 * 48).reshape(64, 48)
    levels = (window.numpy()[::-1] + 1) / 2 * 5
    colours = [np.interp(levels, np.arange(6), colour) for colour in index._COLOURS.T]
    picture = simplejpeg.decode_jpeg(index._mel_jpeg(window)).astype(int)
    expected = np.stack(colours, axis=-1)
    assert picture.shape == expected.shape
    assert np.abs(picture - expected).mean() < 2


def test_numbers_of_videos_are_not_given_twice(tool: Tool, folder: Path, tmp_path: Path) -> None:
    """A browser may have kept the images of an earlier one."""
    location = str(tmp_path / "store")
    index_folders(tool.model, folder, location)
    (folder / "silent.mp4").unlink()
    index_folders(tool.model, folder, location)
    write_steps(folder / "silent.mp4", seconds=2)
    report = index_folders(tool.model, folder, location)
    assert (report.added, report.kept) == (1, 2)
    numbers = {video.path: video.file for video in MomentStore.open(location).files()}
    assert sorted(numbers.values()) == [0, 1, 3]
    assert numbers["silent.mp4"] == 3


def test_videos_behind_links_are_searched(tool: Tool, folder: Path, tmp_path: Path) -> None:
    """Case linked_videos: a linked file and a linked folder, as DVC's links also are."""
    elsewhere, linking = tmp_path / "elsewhere", tmp_path / "linking"
    elsewhere.mkdir()
    linking.mkdir()
    shutil.copy(folder / "a.mp4", elsewhere / "clip.mp4")
    (linking / "2019").symlink_to(Path("..") / "elsewhere")
    (linking / "a.mp4").symlink_to(elsewhere / "clip.mp4")
    location = str(tmp_path / "store")
    report = index_folders(tool.model, linking, location)
    assert (report.added, report.moments, report.problems) == (2, 10, {})
    store = MomentStore.open(location)
    assert [video.path for video in store.files()] == ["2019/clip.mp4", "a.mp4"]
    assert {video.real for video in store.files()} == {str(elsewhere / "clip.mp4")}
    assert index_folders(tool.model, linking, location).kept == 2
    shutil.copy(folder / "silent.mp4", tmp_path / "other.mp4")
    (linking / "a.mp4").unlink()
    (linking / "a.mp4").symlink_to(tmp_path / "other.mp4")
    assert index_folders(tool.model, linking, location).changed == 1


def test_what_cannot_be_looked_at_is_kept(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subfolder on a network that is gone, a file on a bad sector."""
    location = str(tmp_path / "store")
    index_folders(tool.model, folder, location)
    scandir, stat = os.scandir, Path.stat

    def scan(path: Path) -> object:
        if str(path).endswith("a folder"):
            raise OSError(5, "Input/output error", str(path))
        return scandir(path)

    def state(path: Path, **options: bool) -> os.stat_result:
        if path.name == "a.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module.os, "scandir", scan)
        patch.setattr(Path, "stat", state)
        report = index_folders(tool.model, folder, location)
    assert (report.kept, report.dropped, report.unread, report.moments) == (3, 0, 2, 12)
    assert report.problems == {
        "a folder": "cannot be read now: Input/output error",
        "a.mp4": "cannot be read now: Permission denied",
    }
    assert index_folders(tool.model, folder, location).problems == {}


def failing(monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    """Decoding of a.mp4 fails."""
    decode = index.decode_videos

    def decode_videos(videos: Iterator[VideoFile], *rest: object) -> Iterator[Footage]:
        for footage in decode(videos, *rest):  # type: ignore[arg-type]
            failed = footage.video.path.name.startswith("a") and footage.moments
            yield replace(footage, moments=0, mel=None, problem=problem) if failed else footage

    monkeypatch.setattr(index, "decode_videos", decode_videos)


@pytest.mark.parametrize(
    ("problem", "noted"),
    [
        ("unreadable: [Errno 5] Input/output error", False), ("missing: gone", False),
        ("too_slow: decoding its frames took over 600 s", True),
    ],
)  # fmt: skip
def test_what_may_heal_is_tried_again(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str,
    noted: bool,
) -> None:  # fmt: skip
    location = str(tmp_path / "store")
    with monkeypatch.context() as patch:
        failing(patch, problem)
        report = index_folders(tool.model, folder, location)
    assert (report.added, report.moments, report.unread) == (2 + noted, 7, not noted)
    assert report.problems == {"a.mp4": problem}
    assert ("a.mp4" in {video.path for video in MomentStore.open(location).files()}) == noted
    report = index_folders(tool.model, folder, location)
    assert (report.added, report.changed, report.kept) == (not noted, noted, 2)
    assert (report.moments, report.problems) == (12, {})


def test_a_folder_out_of_reach_stops_the_run(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        shutil.copy(folder / "silent.mp4", folder / f"a{number}.mp4")
    monkeypatch.setattr(index, "_MAX_UNREAD", 3)
    location = str(tmp_path / "store")
    with monkeypatch.context() as patch:
        failing(patch, "unreadable: [Errno 107] not connected")
        with pytest.raises(UnreachableError, match=r"3 videos in a row .* a1\.mp4: .*Errno 107"):
            index_folders(tool.model, folder, location)
    assert [video.path for video in MomentStore.open(location).files()] == ["a folder/ü '; --.MP4"]
    assert index_folders(tool.model, folder, location).kept == 1


def test_a_file_that_the_disk_cannot_read_is_not_noted(tool: Tool, tmp_path: Path) -> None:
    """/proc/self/mem is a file whose first byte cannot be read: EIO, for every account."""
    pytest.importorskip("trimodal.core.machine_errors")
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc on this system")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to("/proc/self/mem")
    report = index_folders(tool.model, tmp_path / "videos", str(tmp_path / "store"))
    assert (report.added, report.unread) == (0, 1)
    assert report.problems["a.mp4"].startswith("unreadable")
    assert MomentStore.open(str(tmp_path / "store")).files() == []


def test_a_damaged_index_is_refused_and_rebuilt_on_request(
    tool: Tool, folder: Path, tmp_path: Path
) -> None:
    """The newest manifest is lost: LanceDB takes the one before it, with no moments, for it."""
    location = tmp_path / "store"
    index_folders(tool.model, folder, str(location))
    min((location / "moments.lance" / "_versions").glob("*.manifest")).unlink()
    with pytest.raises(StoreError, match=r"damaged .*; delete it and index again"):
        index_folders(tool.model, folder, str(location))
    with pytest.raises(StoreError, match=r"damaged .*; delete it and index again"):
        tool.model.search("a dog", store=location)
    report = index_folders(tool.model, folder, str(location), rebuild=True)
    assert (report.added, report.kept, report.moments) == (3, 0, 12)
    assert len(tool.model.search("a dog", store=location)) == 3


def test_temporary_files_of_killed_runs_are_removed(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(index, "remove_stale_temporary_folders", lambda: called.append(True))
    assert index.remove_stale_temporary_folders is not core_files.remove_stale_temporary_folders
    index_folders(tool.model, folder, str(tmp_path / "store"))
    assert called == [True]
