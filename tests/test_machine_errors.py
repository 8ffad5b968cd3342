"""An error of the machine never becomes a verdict on a file: it is tried again, counted, and not
recorded; many in a row stop the run.
"""

import ctypes
import errno
import multiprocessing
import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import av
import pytest
from archive_fixtures import KINDS, pack
from configs import MACHINE
from data_fixtures import write_clip
from media_fixtures import ffmpeg
from test_extract import CONFIG, MEL, TIMEOUT_SECONDS, TRAIN, index, outcome, stats
from test_image_shards import IMAGE_FORMAT, image_file, jpeg

from trimodal.core import machine_errors as module
from trimodal.core.archives import StoredFile, members_of, read_file
from trimodal.core.files import read_json, read_table
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine_errors import (
    ReadFailures,
    TooManyUnreadableError,
    UnreadableError,
    is_machine_error,
    reading,
    refuse_unreadable,
    retried,
)
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.records import CaptionedImage, Clip, DataError
from trimodal.core.schemas import AV_SCHEMA
from trimodal.download.local import find_local_clips
from trimodal.media import audio as audio_module
from trimodal.media import container as container_module
from trimodal.media import video as video_module
from trimodal.media.container import MediaError
from trimodal.media.tracks import probe
from trimodal.parallel import journal
from trimodal.preprocess.clip_shards import ClipShard, extract_shard
from trimodal.preprocess.extract import extract
from trimodal.preprocess.image_shards import ImageShard, write_image_shard
from trimodal.preprocess.images import write_images
from trimodal.sources.image_files import ImageFile

# Reading it is a true EIO, for root, too.
BAD_SECTOR = Path("/proc/self/mem")
MACHINE_ERRNOS = [
    errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ENOSPC, errno.EMFILE,
    errno.ENFILE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENODEV,
    errno.ENXIO, errno.EDQUOT, errno.EROFS, errno.ENOENT,
]  # fmt: skip


@pytest.fixture(autouse=True)
def here_without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are made in this process."""
    monkeypatch.setattr(module, "_WAITS_SECONDS", [0.0 for _ in module._WAITS_SECONDS])
    monkeypatch.setattr(journal, "map_in_order", lambda _, work, jobs, **__: map(work, jobs))


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "clip.mp4")


@pytest.mark.parametrize("number", MACHINE_ERRNOS)
def test_errors_of_the_machine_are_told_by_their_number(number: int) -> None:
    assert is_machine_error(system_error(number))
    ffmpegs = av.error.classes[number](number, os.strerror(number), "clip.mp4")
    assert is_machine_error(MediaError(Path("clip.mp4"), "corrupt", "")) is False
    wrapped = MediaError(Path("clip.mp4"), "corrupt", str(ffmpegs))
    wrapped.__cause__ = ffmpegs
    assert is_machine_error(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), TimeoutError(), ConnectionResetError(), FileNotFoundError("s3 names none"),
        OSError("out of memory error when reading image file"),
    ],
)  # fmt: skip
def test_errors_without_a_number_may_be_of_the_machine(error: Exception) -> None:
    assert is_machine_error(error)


@pytest.mark.parametrize(
    "error",
    [
        av.InvalidDataError(errno.EINVAL, "moov atom not found"), av.EOFError(0, "end"),
        av.ArgumentError(errno.EINVAL, "invalid"), OSError("broken data stream"), EOFError(),
        OSError(errno.EINVAL, "seek"), zipfile.BadZipFile("not a zip file"), ValueError(),
        SyntaxError("not a PNG file"),
    ],
)  # fmt: skip
def test_errors_of_the_content_are_not_of_the_machine(error: Exception) -> None:
    assert not is_machine_error(error)


def test_zipfile_hides_an_error_of_the_machine_and_it_is_found() -> None:
    class Failing(BytesIO):
        def seek(self, *_: object) -> NoReturn:
            raise system_error(errno.EIO)

    with pytest.raises(UnreadableError, match="Input/output error"), reading(Path("a.zip")):
        zipfile.ZipFile(Failing())


def test_an_unreadable_error_is_picklable() -> None:
    error = UnreadableError.of(Path("a"), system_error(errno.EIO))
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.reason) == (str(error), "unreadable")
    assert UnreadableError.of(Path("a"), FileNotFoundError()).reason == "missing"


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises these errors in turn, then succeeds."""
    waiting = list(errors)

    def read() -> str:
        if waiting:
            with reading(Path("clip.mp4")):
                raise waiting.pop(0)
        return "read"

    return read


def test_an_error_of_the_machine_is_tried_twice_more() -> None:
    trouble = [system_error(errno.EIO) for _ in range(3)]
    assert retried(failing(*trouble[:2])) == "read"
    with pytest.raises(UnreadableError):
        retried(failing(*trouble))


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), DataError("of the content")])
def test_other_errors_are_not_tried_again(error: Exception) -> None:
    with pytest.raises(Exception, match=r"gone|of the content"):
        retried(failing(error))


def test_a_file_that_can_be_read_is_refused_for_its_content(tmp_path: Path) -> None:
    """FFmpeg has EIO for a file that ends early, as for a bad sector."""
    ffmpegs = av.error.classes[errno.EIO](errno.EIO, "Input/output error")
    (tmp_path / "short.avi").write_bytes(b"RIFF")
    refuse_unreadable(tmp_path / "short.avi", ffmpegs)
    with pytest.raises(UnreadableError):
        refuse_unreadable(BAD_SECTOR, ffmpegs)


def test_the_tenth_unreadable_file_in_a_row_stops() -> None:
    failures = ReadFailures()
    for _ in range(3):
        for _ in range(9):
            failures.record("a.mp4: unreadable")
        failures.record("")
    for _ in range(9):
        failures.record("a.mp4: unreadable")
    with pytest.raises(TooManyUnreadableError, match=r"10 files in a row .*a\.mp4: unreadable"):
        failures.record("a.mp4: unreadable")


def refusing_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise av.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(container_module.av, "open", refuse)


def test_memory_refused_within_ffmpeg_is_not_the_clips_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    refusing_memory(monkeypatch)
    with pytest.raises(UnreadableError, match="Cannot allocate memory"):
        probe(clip)


def test_memory_refused_for_a_packet_is_not_a_damaged_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> NoReturn:
        raise av.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    packet = SimpleNamespace(decode=refuse, is_corrupt=False, size=1)
    for reader in (video_module, audio_module):
        monkeypatch.setattr(reader, "packets_of", lambda *_: [packet])
    clip = write_clip(tmp_path / "a.mp4")
    with av.open(str(clip)) as container:
        with pytest.raises(av.MemoryError):
            list(video_module._all_pictures(clip, container, container.streams.video[0]))
        deadline: Any = SimpleNamespace(check=lambda: None)
        with pytest.raises(av.MemoryError):
            list(audio_module._frames(clip, container, deadline))


def with_memory(more_bytes: int, work: Callable[[], str]) -> str:
    """What ``work`` returns in a process that gets this much more memory than it has now."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def limited() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        now = pages * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now, hard))
        malloc = ctypes.CDLL(None).malloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        while malloc(2**20):  # takes what is free in the heap
            pass
        resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, hard))
        sender.send(work())

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    answer: str = receiver.recv()
    return answer


@pytest.mark.nightly  # alone: what other tests have left in the heap would be used
def test_a_clip_is_extracted_whole_or_unreadable_however_little_memory_there_is(
    tmp_path: Path,
) -> None:
    """FFmpeg's H.264 decoder calls refused memory invalid data; the pictures would be missing."""
    clip = tmp_path / "test1.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc=size=3840x2160:rate=3:duration=1", "-f", "lavfi",
        "-i", "sine=duration=1", "-c:v", "libx264", "-preset", "ultrafast", clip,
    )  # fmt: skip
    job = shard_of([outcome("test1", clip)], tmp_path)

    def extracted() -> str:
        left_out = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job).left_out
        return f"{dict(left_out)}" if left_out else file_fingerprint(job.path)

    undisturbed = with_memory(2**34, extracted)
    assert undisturbed != "{'unreadable': 1}"
    answers = {with_memory(megabytes * 2**20, extracted) for megabytes in (4, 16, 40)}
    assert "{'unreadable': 1}" in answers <= {undisturbed, "{'unreadable': 1}"}


# Extraction


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, Path]:
    return {name: write_clip(tmp_path / f"{name}.mp4") for name in [*TRAIN, "test0", "test1"]}


def manifest_of(clips: dict[str, Path]) -> Path:
    path = next(iter(clips.values())).with_name("manifest.parquet")
    write_manifest(path, [outcome(name, clip) for name, clip in clips.items()])
    return path


def test_a_bad_sector_costs_one_clip_of_one_run(clips: dict[str, Path], tmp_path: Path) -> None:
    manifest, out = manifest_of(clips), tmp_path / "av"
    good = clips["test1"].rename(tmp_path / "good.mp4")
    clips["test1"].symlink_to(BAD_SECTOR)
    clips["test0"].unlink()
    with pytest.raises(DataError, match=r"no clip in test; left out: .*'unreadable': 1"):
        extract(manifest, out, CONFIG, MEL, MACHINE)
    records = {path.stem for path in (out / "journal").iterdir()}
    assert records == {"train-000000", "train-000001", "val-000000"}
    clips["test1"].unlink()
    good.rename(clips["test1"])
    extract(manifest, out, CONFIG, MEL, MACHINE)
    assert index(out).keys() == {*TRAIN, "test1"}
    assert stats(out)["left_out"] == {"missing": 1}
    assert not (out / "journal" / "test-000000.json").exists()


def test_a_bad_sector_counts_against_the_coverage(clips: dict[str, Path], tmp_path: Path) -> None:
    manifest = manifest_of(clips)
    clips["test1"].unlink()
    clips["test1"].symlink_to(BAD_SECTOR)
    config = replace(CONFIG, min_coverage=0.9)
    with pytest.raises(DataError, match=r"87\.5 % .*\n.*unreadable +1 +e\.g\. test1: \[Errno 5\]"):
        extract(manifest, tmp_path / "av", config, MEL, MACHINE)


def shard_of(outcomes: list[ClipOutcome], folder: Path) -> ClipShard:
    return ClipShard(path=folder / "test-000000.tar", split="test", clips=tuple(outcomes))


def test_a_short_disturbance_costs_nothing(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shard_of([outcome("test1", clips["test1"])], tmp_path)
    undisturbed = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job)
    opened, calls = container_module.av.open, [0]

    def once_eio(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise av.error.classes[errno.EIO](errno.EIO, "Input/output error", "test1.mp4")
        return opened(*arguments, **options)

    monkeypatch.setattr(container_module.av, "open", once_eio)
    assert extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job) == undisturbed


def test_a_test_video_whose_sound_is_unreadable_is_not_called_silent(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shard_of([outcome("test1", clips["test1"])], tmp_path)
    refusing_memory(monkeypatch)
    done = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job)
    assert (done.rows, done.left_out) == ([], {"unreadable": 1})


def test_a_folder_that_is_gone_stops_the_run(clips: dict[str, Path], tmp_path: Path) -> None:
    rows = [replace(outcome("test1", clips["test1"]), path="/gone/test1.mp4") for _ in range(12)]
    with pytest.raises(TooManyUnreadableError, match="10 files in a row"):
        extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, shard_of(rows, tmp_path))


def test_no_room_for_the_copy_of_a_member_is_not_its_fault(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = clips["test1"].read_bytes()
    (member,) = members_of(pack(tmp_path / "a.tar", {"test1.mp4": content}))
    row = replace(outcome("test1", clips["test1"]), path=str(member.path), member=member.member,
                  offset=member.offset, bytes=member.size)  # fmt: skip

    def full(*_: object) -> NoReturn:
        raise system_error(errno.ENOSPC)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, shard_of([row], tmp_path))
    assert done.left_out == {"unreadable": 1}
    assert "No space left" in done.examples["unreadable"]


# Archives and tables


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_cannot_be_read_is_not_called_broken(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / f"a{kind}", {"a.jpg": b"a", "b.jpg": b"b"})
    first, second = members_of(archive)
    assert read_file(first) == b"a"

    def fails(*_: object, **__: object) -> NoReturn:
        raise system_error(errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        patch.setattr(Path, "stat", fails)  # zips and gzips are opened by their libraries
        with pytest.raises(UnreadableError, match=f"a{kind}: unreadable: .*Input/output"):
            list(members_of(archive))
        with pytest.raises(UnreadableError, match=f"a{kind}: unreadable: .*Input/output"):
            read_file(second)
    assert read_file(second) == b"b"


def test_a_table_that_cannot_be_read_is_not_called_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> NoReturn:
        raise system_error(errno.EIO)

    monkeypatch.setattr("trimodal.core.files.pq.read_metadata", fails)
    with pytest.raises(OSError, match="Input/output"):
        read_table(tmp_path / "index.parquet", AV_SCHEMA)


# Images


def image_shard(folder: Path, *names: str) -> ImageShard:
    images = tuple(
        (image_file(name, None).image, StoredFile(path=folder / f"{name}.jpg")) for name in names
    )
    return ImageShard(path=folder / "train-000000.tar", split="train", images=images)


def test_an_unreadable_image_is_not_broken_and_the_journal_forgets_it(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg(0))
    (tmp_path / "bad.jpg").symlink_to(BAD_SECTOR)
    images = [
        ImageFile(
            image=CaptionedImage(
                image_id=name, split="train", source="coco", file_name=f"{name}.jpg",
                captions=("a dog",),
            ),
            file=StoredFile(path=tmp_path / f"{name}.jpg"),
        )
        for name in ("good", "bad")
    ]  # fmt: skip
    done = write_images(images, tmp_path / "out", IMAGE_FORMAT, MACHINE)
    assert done.left_out == {"image file unreadable": 1}
    assert not list((tmp_path / "out" / "journal").glob("*"))
    (tmp_path / "bad.jpg").unlink()
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    assert write_images(images, tmp_path / "out", IMAGE_FORMAT, MACHINE).left_out == {
        "image file broken": 1
    }
    assert read_json(tmp_path / "out/journal/train-000000.json")["left_out"]


def test_memory_refused_for_an_image_is_not_a_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg(0))

    def refuse(*_: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr("trimodal.preprocess.image_shards.square", refuse)
    done = write_image_shard(IMAGE_FORMAT, image_shard(tmp_path, "good"))
    assert done.left_out == {"image file unreadable": 1}


def test_an_image_folder_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyUnreadableError, match="10 files in a row"):
        write_image_shard(IMAGE_FORMAT, image_shard(tmp_path, *map(str, range(12))))


# Download


LISTED = [
    Clip(clip_id=f"clip{n}", source="vggsound", split="train", label="a dog") for n in range(12)
]


def scan(folder: Path, earlier: list[ClipOutcome]) -> dict[str, ClipOutcome]:
    outcomes = find_local_clips(folder, LISTED, earlier, MACHINE)
    return {row.clip.clip_id: row for row in outcomes}


def test_an_unreadable_clip_is_looked_into_again(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip0.mp4")
    good = write_clip(tmp_path / "good.mp4")
    (tmp_path / "clip1.mp4").symlink_to(BAD_SECTOR)
    (tmp_path / "clip2.mp4").write_bytes(b"")
    os.utime(good, (1, 1))
    first = scan(tmp_path, [])
    statuses = {name: row.status for name, row in first.items()}
    assert [statuses[f"clip{n}"] for n in range(4)] == [
        "ok",
        "unreadable",
        "corrupt",
        "unavailable",
    ]
    assert "Input/output error" in first["clip1"].reason
    for name in ("clip1", "clip2"):  # a healed file may have the time and size of the damaged one
        (tmp_path / f"{name}.mp4").unlink()
        os.link(good, tmp_path / f"{name}.mp4")
    earlier = [
        replace(row, updated_at=1, bytes=good.stat().st_size) if row.status != "ok" else row
        for row in first.values()
    ]
    again = scan(tmp_path, earlier)
    assert [again[f"clip{n}"].status for n in range(4)] == ["ok", "ok", "ok", "unavailable"]


def test_a_folder_of_unreadable_clips_stops_the_run(tmp_path: Path) -> None:
    for clip in LISTED:
        (tmp_path / f"{clip.clip_id}.mp4").symlink_to(BAD_SECTOR)
    with pytest.raises(TooManyUnreadableError, match="10 files in a row"):
        scan(tmp_path, [])


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tgz"])
def test_clips_of_an_archive_that_cannot_be_read_are_not_called_unavailable(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / f"a{kind}").symlink_to(BAD_SECTOR)
    write_clip(tmp_path / "clip0.mp4")
    outcomes = scan(tmp_path, [])
    assert outcomes.pop("clip0").status == "ok"
    assert {row.status for row in outcomes.values()} == {"unreadable"}
    assert f"a{kind}: unreadable: " in outcomes["clip1"].reason
