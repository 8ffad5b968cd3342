"""Local clips: every listed clip gets its outcome, in folders and in archives."""

import logging
import os
import random
import shutil
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from archive_fixtures import KINDS, add_file, cut, overwrite, pack, store
from configs import MACHINE, config_for_tests
from data_fixtures import REAL, needs_real_data, write_clip

from trimodal.core.archives import read_file
from trimodal.core.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.download import probe as probe_module
from trimodal.download.local import find_local_clips
from trimodal.media.mel import MelConfig
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard

IDS = ["-a_000010", "_b_000010", "--_000010", "__", "video7010", "0c_000120"]
CLIPS = [Clip(clip_id=name, source="vggsound", split="train", label="a dog") for name in IDS]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Clips of one second and more as <id>.mp4; those of '__' and 'video7010' have no audio."""
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(IDS):
        write_clip(
            folder / f"{name}.mp4", seconds=1 + number / 4, sound=name not in ("__", "video7010")
        )
    return {f"{name}.mp4": (folder / f"{name}.mp4").read_bytes() for name in IDS}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents of the probed files."""
    contents: list[bytes] = []
    probe = probe_module.probe
    monkeypatch.setattr(
        probe_module, "probe", lambda path: contents.append(path.read_bytes()) or probe(path)
    )
    return contents


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log lines so far."""
    caplog.set_level(logging.INFO, logger="trimodal")
    return lambda: [record.getMessage() for record in caplog.records]


def scan(
    location: Path, earlier: Sequence[ClipOutcome] = (), workers: int = 1
) -> dict[str, ClipOutcome]:
    outcomes = find_local_clips(location, CLIPS, earlier, replace(MACHINE, workers=workers))
    assert [outcome.clip for outcome in outcomes] == CLIPS
    return {outcome.clip.clip_id: outcome for outcome in outcomes}


def statuses(outcomes: dict[str, ClipOutcome]) -> list[str]:
    return [outcome.status for outcome in outcomes.values()]


def reversed_members(media: dict[str, bytes]) -> dict[str, bytes]:
    return {f"deep/{name}": media[name] for name in reversed(media)}


def without_location(outcomes: dict[str, ClipOutcome]) -> list[ClipOutcome]:
    """The outcomes without the location of their files."""
    return [replace(o, path="", member="", offset=0, updated_at=None) for o in outcomes.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_archive_gives_the_outcomes_that_a_folder_gives(
    kind: str, media: dict[str, bytes], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    folder = scan(store(tmp_path / "folder", "", media))
    archive = store(tmp_path / "archive", kind, reversed_members(media))
    packed = scan(archive)
    assert statuses(folder) == ["ok"] * 6
    assert (
        without_location(folder)
        == without_location(packed)
        == without_location(scan(archive.parent))
    )
    assert [o.has_audio for o in packed.values()] == [True, True, True, False, False, True]
    assert not logged()


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_outcome_has_the_location_of_the_bytes(
    kind: str, media: dict[str, bytes], tmp_path: Path
) -> None:
    location = store(tmp_path, kind, media)
    write_manifest(tmp_path / "manifest.parquet", [*scan(location).values()])
    for outcome in read_manifest(tmp_path / "manifest.parquet"):
        name = f"{outcome.clip.clip_id}.mp4"
        assert read_file(outcome.file) == media[name]
        assert (outcome.path, outcome.member) == (
            (location.as_posix(), name) if kind else ((location / name).as_posix(), "")
        )
        assert outcome.updated_at == int(Path(outcome.path).stat().st_mtime)
        assert (outcome.bytes, outcome.attempts) == (len(media[name]), 1)


def mixture(location: Path, media: dict[str, bytes]) -> Path:
    """Each clip in another kind of archive or a file, the fifth missing."""
    files = list(media.items())
    for number, (name, content) in enumerate(files[:4]):
        pack(location / f"part{number}{KINDS[number]}", {name: content, f"{number}.txt": b"noise"})
    return store(location, "", {files[5][0]: files[5][1], "notes.txt": b"x", "other.mp4": b"x"})


@pytest.mark.parametrize("workers", [1, 2])
def test_folder_may_mix_files_and_archives(
    workers: int, media: dict[str, bytes], tmp_path: Path
) -> None:
    outcomes = scan(mixture(tmp_path / "mix", media), workers=workers)
    assert statuses(outcomes) == ["ok"] * 4 + ["unavailable", "ok"]
    assert outcomes["video7010"] == ClipOutcome(
        clip=CLIPS[4], path="", status="unavailable", reason="no such file"
    )
    names = [Path(outcome.path).name for outcome in outcomes.values()]
    assert names == [f"part{n}{kind}" for n, kind in enumerate(KINDS)] + ["", "0c_000120.mp4"]


def test_two_workers_give_the_same_as_one(
    media: dict[str, bytes], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    location = mixture(tmp_path / "mix", media)
    cut(pack(location / "broken.tar", media), 20_000)
    pack(location / "zz.tgz", media)
    one = scan(location)
    (first, second) = logged()
    assert scan(location, workers=2) == one
    assert logged()[2:] == [first, second]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".mov", ".avi", ".MP4"])
def test_media_may_have_several_endings(
    ending: str, media: dict[str, bytes], tmp_path: Path
) -> None:
    content = media["-a_000010.mp4"]
    assert scan(pack(tmp_path / "a.tar", {f"-a_000010{ending}": content}))["-a_000010"].file.size
    assert scan(store(tmp_path / "f", "", {f"-a_000010{ending}": content}))["-a_000010"].file.size


@pytest.mark.parametrize(
    "name", ["-a_000010", "-a_000010.wav", "-a_000010.mp4.part", "a_000010.mp4"]
)
def test_other_names_are_not_clips(
    name: str, media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    location = store(tmp_path / "location", "", {name: media["-a_000010.mp4"]})
    pack(location / "a.tar", {name: media["-a_000010.mp4"]})
    assert statuses(scan(location)) == ["unavailable"] * 6
    assert not probed


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_unchanged_files_are_probed_again_only_if_damaged(
    kind: str, media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    damaged = media | {"__.mp4": b"text"}
    location = store(tmp_path / "location", kind, damaged)
    first = scan(location)
    assert sorted(probed) == sorted(damaged.values())
    probed.clear()
    write_manifest(tmp_path / "manifest.parquet", [*first.values()])
    assert scan(location, read_manifest(tmp_path / "manifest.parquet")) == first
    assert probed == [b"text"]  # it may have been half copied


@pytest.mark.parametrize("kind", KINDS)
def test_changed_archive_is_probed_and_its_neighbour_is_not(
    kind: str, media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    half = list(media)[:3]
    unchanged = pack(tmp_path / f"unchanged{kind}", {name: media[name] for name in half})
    changed = pack(
        tmp_path / f"changed{kind}", {name: media[name] for name in media if name not in half}
    )
    first = scan(tmp_path)
    probed.clear()
    pack(changed, {"video7010.mp4": media["0c_000120.mp4"], "__.mp4": media["__.mp4"]})
    os.utime(changed, (1, 1))
    second = scan(tmp_path, [*first.values()])
    assert sorted(probed) == sorted([media["0c_000120.mp4"], media["__.mp4"]])
    assert statuses(second) == ["ok"] * 5 + ["unavailable"]
    assert second["video7010"].has_audio
    assert [second[name[:-4]] for name in half] == [first[name[:-4]] for name in half]
    assert second["__"].updated_at == 1
    assert second["-a_000010"].path == str(unchanged)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_archive_of_the_same_time_but_another_size_of_a_clip_is_probed(
    kind: str, media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    archive = pack(tmp_path / f"a{kind}", {"__.mp4": media["__.mp4"]})
    first = scan(archive)
    pack(archive, {"__.mp4": media["0c_000120.mp4"]})
    os.utime(archive, (first["__"].updated_at,) * 2)
    assert scan(archive, [*first.values()])["__"].has_audio
    assert probed == [media["__.mp4"], media["0c_000120.mp4"]]


def test_clip_with_another_label_is_probed(
    media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    archive = pack(tmp_path / "a.tar", media)
    earlier = [replace(o, clip=replace(o.clip, label="a cat")) for o in scan(archive).values()]
    probed.clear()
    assert {o.clip.label for o in scan(archive, earlier).values()} == {"a dog"}
    assert len(probed) == 6


def test_clip_that_moved_into_an_archive_is_probed(
    media: dict[str, bytes], tmp_path: Path, probed: list[bytes]
) -> None:
    location = store(tmp_path / "location", "", media)
    first = scan(location)
    for name in media:
        (location / name).unlink()
    pack(location / "a.tar", media)
    probed.clear()
    second = scan(location, [*first.values()])
    assert without_location(second) == without_location(first)
    assert {o.path for o in second.values()} == {(location / "a.tar").as_posix()}
    assert len(probed) == 6


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tgz"])
def test_truncated_archive_is_named_and_its_first_members_are_used(
    kind: str, media: dict[str, bytes], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    noise = random.Random(1).randbytes(200_000)  # noqa: S311
    archive = pack(tmp_path / f"a{kind}", media | {"--_000010.mp4": noise})
    cut(archive, archive.stat().st_size // 2)
    outcomes = scan(tmp_path)
    assert statuses(outcomes) == ["ok", "ok", "corrupt"] + ["unavailable"] * 3
    assert outcomes["--_000010"].reason.startswith(f"{archive}: --_000010.mp4: ")
    (line,) = logged()
    assert line.startswith(f"download: {archive}: a broken archive: ")


@pytest.mark.parametrize("kind", KINDS)
def test_text_called_an_archive_is_named_and_the_rest_is_used(
    kind: str, media: dict[str, bytes], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    location = store(tmp_path / "location", "", media | {f"a{kind}": b"not found"})
    pack(location / f"b{kind}", media)
    assert statuses(scan(location)) == ["ok"] * 6
    assert any(f"{location / f'a{kind}'}: a broken archive" in line for line in logged())


@pytest.mark.parametrize("workers", [1, 2])
def test_clip_that_occurs_twice_is_used_once_and_reported(
    workers: int, media: dict[str, bytes], tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    a, b, c = (media[f"{name}.mp4"] for name in ("-a_000010", "_b_000010", "0c_000120"))
    location = tmp_path / "location"
    pack(location / "a.tar", {"-a_000010.mp4": a, "x/-a_000010.mp4": b, "_b_000010.mp4": b})
    pack(location / "b.zip", {"-a_000010.mkv": c, "_b_000010.mp4": c})
    store(location, "", {"video7010.mp4": a, "video7010.webm": b})
    outcomes = scan(location, workers=workers)
    assert [read_file(outcomes[name].file) for name in ("-a_000010", "_b_000010")] == [a, b]
    assert outcomes["video7010"].path.endswith(".mp4")
    assert logged() == [f"download: {location}: 3 clips occur more than once; the first is used"]


def test_plain_file_takes_precedence_over_a_member(media: dict[str, bytes], tmp_path: Path) -> None:
    location = store(tmp_path / "location", "", {"__.mp4": media["__.mp4"]})
    pack(location / "!.tar", {"__.mp4": media["0c_000120.mp4"]})
    assert scan(location)["__"].path == (location / "__.mp4").as_posix()


@pytest.mark.parametrize("method", [0, 8])
def test_zip_member_with_a_wrong_checksum_is_corrupt(
    method: int, media: dict[str, bytes], tmp_path: Path
) -> None:
    archive = pack(tmp_path / "a.zip", reversed_members(media), method=method)
    crc = checksum(media["__.mp4"])
    overwrite(archive, crc, crc[::-1])
    outcomes = scan(archive)
    assert statuses(outcomes) == ["ok"] * 3 + ["corrupt"] + ["ok"] * 2
    bad = outcomes["__"]
    assert bad.reason == f"{archive}: deep/__.mp4: Bad CRC-32 for file 'deep/__.mp4'"
    assert (bad.path, bad.member, bad.duration_s) == (str(archive), "deep/__.mp4", 0.0)


def checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


@pytest.mark.parametrize("kind", KINDS)
def test_member_that_is_not_a_video_is_corrupt_and_named(
    kind: str, media: dict[str, bytes], tmp_path: Path
) -> None:
    archive = pack(tmp_path / f"a{kind}", media | {"__.mp4": b"#EXTM3U\nfile:///etc/passwd\n"})
    outcomes = scan(archive)
    assert statuses(outcomes) == ["ok"] * 3 + ["corrupt"] + ["ok"] * 2
    assert outcomes["__"].reason.startswith(f"{archive}/__.mp4: corrupt: ")
    assert "trimodal-" not in outcomes["__"].reason


@pytest.mark.parametrize("kind", KINDS)
def test_outcomes_other_than_ok_are_reported_for_members_too(kind: str, tmp_path: Path) -> None:
    blip = write_clip(tmp_path / "blip.mp4", seconds=0.25).read_bytes()
    outcomes = scan(pack(tmp_path / f"a{kind}", {"__.mp4": blip, "video7010.mp4": b""}))
    assert outcomes["__"].status == "too_short"
    assert outcomes["video7010"].status == "corrupt"


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_no_temporary_file_is_left(
    kind: str, media: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    location = store(
        tmp_path / "location", kind, {f"../../{n}" if kind else n: c for n, c in media.items()}
    )
    before = sorted(tmp_path.rglob("*"))
    assert statuses(scan(location)) == ["ok"] * 6
    assert sorted(tmp_path.rglob("*")) == before


def test_links_and_hidden_files_are_not_clips(media: dict[str, bytes], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_file(tar, "-a_000010.mp4", kind=tarfile.SYMTYPE)
        add_file(tar, "_b_000010.mp4", kind=tarfile.LNKTYPE)
        add_file(tar, "__.mp4", kind=tarfile.FIFOTYPE)
        add_file(tar, "__MACOSX/._video7010.mp4", b"x")
        add_file(tar, "0c_000120.mp4", media["0c_000120.mp4"])
    assert statuses(scan(tmp_path)) == ["unavailable"] * 5 + ["ok"]


@pytest.mark.parametrize("name", ["gone", "gone.tar", "gone.txt"])
def test_missing_location_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name):
        scan(tmp_path / name)


def test_empty_folder_and_archive_leave_all_unavailable(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert statuses(scan(tmp_path / "empty")) == ["unavailable"] * 6
    assert statuses(scan(pack(tmp_path / "a.zip", {}))) == ["unavailable"] * 6


@needs_real_data
@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
def test_real_clips_in_an_archive_become_the_shard_of_their_files(
    kind: str, tmp_path: Path
) -> None:
    paths = sorted((REAL / "clips").glob("*.mp4"))[:5]
    clips = [Clip(clip_id=p.stem, source="vggsound", split="train", label="") for p in paths]
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in paths:
        shutil.copy(path, folder)
    archive = pack(tmp_path / f"a{kind}", {f"clips/{p.name}": p.read_bytes() for p in paths})
    config = config_for_tests(
        ExtractConfig, frame_px=16, jpeg_quality=95, clips_per_shard=5, longest_seconds=1800.0
    )
    mel = config_for_tests(MelConfig, n_fft=512, window_samples=512, hop_samples=128, mels=16)
    shards = []
    for location in (folder, archive):
        outcomes = find_local_clips(location, clips, [], MACHINE)
        assert [o.status for o in outcomes] == ["ok"] * 5
        job = ClipShard(path=tmp_path / "s.tar", split="test", clips=tuple(outcomes))
        done = extract_shard(config, mel, 120.0, job)
        assert len(done.rows) == 5
        assert not done.left_out
        shards.append(job.path.read_bytes())
    assert shards[0] == shards[1]
