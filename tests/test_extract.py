"""Clips to shards of frames and mels: members, metadata, counts, reproducible bytes."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
from archive_fixtures import KINDS, cut, overwrite, pack
from configs import MACHINE, config_for_tests
from data_fixtures import (
    brightness,
    contents,
    needs_real_data,
    real_clips,
    six_real_clips_or_all,
    write_clip,
)
from PIL import Image

from trimodal.core.archives import StoredFile, as_path
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.timing import frame_count
from trimodal.download.local import find_local_clips
from trimodal.download.probe import inspect
from trimodal.media.audio import decode_audio
from trimodal.media.container import MediaError
from trimodal.media.mel import MelConfig
from trimodal.media.spectrogram import log_mel
from trimodal.parallel import journal
from trimodal.preprocess import clip_shards
from trimodal.preprocess import extract as extract_module
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, IndexRow, extract_shard
from trimodal.preprocess.extract import extract
from trimodal.preprocess.splits import hold_out

MEL = config_for_tests(
    MelConfig, sample_rate_hz=8000, n_fft=256, window_samples=256, hop_samples=128, mels=16
)
CONFIG = config_for_tests(
    ExtractConfig, frame_px=16, jpeg_quality=95, clips_per_shard=2, longest_seconds=1800.0,
    min_coverage=0.0,
)  # fmt: skip
TIMEOUT_SECONDS = MACHINE.clip_timeout_seconds
TRAIN = [f"clip{i}" for i in range(6)]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six training clips (2.0 to 4.5 s) and a silent one, two test clips, one of them silent."""
    folder = tmp_path_factory.mktemp("clips")
    clips = {
        name: write_clip(folder / f"{name}.mp4", seconds=2 + i / 2) for i, name in enumerate(TRAIN)
    }
    for name, sound in (("mute", False), ("test1", True), ("test0", False)):
        clips[name] = write_clip(folder / f"{name}.mp4", sound=sound)
    return clips


def outcome(name: str, path: Path) -> ClipOutcome:
    split: Any = "test" if name.startswith("test") else "train"
    source: Any = "msrvtt" if split == "test" else "vggsound"
    clip = Clip(clip_id=name, source=source, split=split, label=f"a {name}")
    return inspect(clip, StoredFile(path=path, size=path.stat().st_size), None)


@pytest.fixture
def manifest(media: dict[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "manifest.parquet"
    write_manifest(path, [outcome(name, clip) for name, clip in media.items()])
    return path


def stats(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "stats.json").read_text())
    return content


def index(out: Path) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in pq.read_table(out / "index.parquet").to_pylist()}


def members(out: Path) -> dict[str, bytes]:
    contents_by_name = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            contents_by_name |= {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    return contents_by_name


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction without workers, so that functions patched by a test are used."""
    monkeypatch.setattr(journal, "map_in_order", lambda _, work, jobs, *__, **___: map(work, jobs))


def test_shards_are_named_by_split_and_hold_that_number_of_clips(
    manifest: Path, tmp_path: Path
) -> None:
    extract(manifest, out := tmp_path / "av", CONFIG, MEL, MACHINE)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.parquet", "journal", "stats.json", "test-000000.tar", "train-000000.tar",
        "train-000001.tar", "train-000002.tar", "val-000000.tar",
    ]  # fmt: skip
    assert pq.read_schema(out / "index.parquet").equals(AV_SCHEMA)


def test_sample_has_its_frames_mel_and_metadata(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, out := tmp_path / "av", CONFIG, MEL, MACHINE)
    own = {name: content for name, content in members(out).items() if name.startswith("clip3.")}
    assert sorted(own) == [f"clip3.0{n}.jpg" for n in (1, 2, 3)] + [
        "clip3.json", "clip3.mel.npy", "clip3.mel_top_db.npy"
    ]  # fmt: skip
    metadata = json.loads(own["clip3.json"])
    assert metadata.pop("duration_s") == pytest.approx(3.5, abs=0.2)
    assert metadata.pop("audio_s") == pytest.approx(3.5, abs=0.2)
    assert metadata.pop("mel")["mels"] == MEL.mels
    assert metadata == {
        "format": "trimodal clip", "format_version": 2, "label": "a clip3",
        "frame_times_s": [0.5, 1.5, 2.5], "has_audio": True, "gaps": "",
    }  # fmt: skip
    samples = decode_audio(manifest_path(manifest, "clip3"), 8000, CONFIG.limits(TIMEOUT_SECONDS))
    expected = log_mel(samples, MEL)
    codes, top_db = (array(own[f"clip3.{name}.npy"]) for name in ("mel", "mel_top_db"))
    assert (codes.dtype, top_db.dtype) == (np.uint8, np.float16)
    np.testing.assert_array_equal(codes, expected.codes)
    np.testing.assert_array_equal(top_db, expected.top_db)


def array(content: bytes) -> np.ndarray:
    loaded: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return loaded


def manifest_path(manifest: Path, name: str) -> Path:
    rows = pq.read_table(manifest).to_pylist()
    return Path(next(row["path"] for row in rows if row["clip_id"] == name))


def test_frame_n_shows_second_n_minus_a_half(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, out := tmp_path / "av", CONFIG, MEL, MACHINE)
    for number in (1, 2, 3):
        with Image.open(io.BytesIO(members(out)[f"clip3.0{number}.jpg"])) as image:
            assert (image.mode, image.size) == ("RGB", (16, 16))
            assert np.asarray(image).mean() == pytest.approx(brightness(4 * number - 2, 14), abs=6)


def test_index_has_the_extent_of_each_member(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, out := tmp_path / "av", CONFIG, MEL, MACHINE)
    stored_members = members(out)
    for name, row in index(out).items():
        content = (out / row["shard"]).read_bytes()
        extents = zip(row["frame_offsets"], row["frame_sizes"], strict=True)
        for number, (offset, size) in enumerate(extents, start=1):
            assert content[offset : offset + size] == stored_members[f"{name}.{number:02d}.jpg"]
        codes = content[row["mel_offset"] :][: row["mel_columns"] * MEL.mels]
        top_db = content[row["top_db_offset"] :][: row["mel_columns"] * 2]
        assert codes == array(stored_members[f"{name}.mel.npy"]).tobytes()
        assert top_db == array(stored_members[f"{name}.mel_top_db.npy"]).tobytes()
        assert bool(row["sound_s"]) == bool(row["mel_columns"]) == (name != "test0")


def test_clip_of_over_99_seconds_keeps_its_frames_in_order(tmp_path: Path) -> None:
    long = write_clip(tmp_path / "test2.mp4", seconds=103, fps=1, sound_s=1)
    job = ClipShard(
        path=tmp_path / "test-000000.tar", split="test", clips=(outcome("test2", long),)
    )
    (row,) = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job).rows
    content = job.path.read_bytes()
    levels = [
        float(np.asarray(Image.open(io.BytesIO(content[offset : offset + size]))).mean())
        for offset, size in zip(row["frame_offsets"], row["frame_sizes"], strict=True)
    ]
    assert levels == pytest.approx([brightness(i, 103) for i in range(103)], abs=6)


def test_silent_clips_are_left_out_of_training_but_tested(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, out := tmp_path / "av", CONFIG, MEL, MACHINE)
    assert "mute" not in index(out)
    assert index(out)["test0"]["mel_columns"] == 0
    assert json.loads(members(out)["test0.json"])["has_audio"] is False
    assert array(members(out)["test0.mel.npy"]).shape == (0, MEL.mels)
    assert array(members(out)["test0.mel_top_db.npy"]).shape == (0,)
    assert not any(name.startswith("mute.") for name in members(out))


@pytest.mark.usefixtures("in_process")
def test_a_test_video_with_broken_audio_keeps_its_frames(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, *_: object) -> None:
        raise MediaError(path, "corrupt", "the audio does not decode")

    monkeypatch.setattr("trimodal.preprocess.clip_shards.decode_audio", broken)
    with pytest.raises(DataError, match="'corrupt': 6"):
        extract(manifest, tmp_path / "out", CONFIG, MEL, MACHINE)
    job = ClipShard(
        path=tmp_path / "test-000000.tar",
        split="test",
        clips=tuple(o for o in read_manifest(manifest) if o.clip.clip_id == "test1"),
    )
    done = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job)
    assert [(row["clip_id"], row["mel_columns"]) for row in done.rows] == [("test1", 0)]
    assert not done.left_out


@pytest.mark.usefixtures("in_process")
def test_the_index_changes_with_the_audio_alone(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(manifest, tmp_path / "one", CONFIG, MEL, MACHINE)
    monkeypatch.setattr(clip_shards, "decode_audio", lambda *a: (b / -2 for b in decode_audio(*a)))
    extract(manifest, tmp_path / "two", CONFIG, MEL, MACHINE)
    one, two = index(tmp_path / "one"), index(tmp_path / "two")
    assert {k: v["mel_offset"] for k, v in one.items()} == {
        k: v["mel_offset"] for k, v in two.items()
    }
    assert file_fingerprint(tmp_path / "one/index.parquet") != file_fingerprint(
        tmp_path / "two/index.parquet"
    )


def test_stats_count_what_went_in_and_what_was_left_out(
    media: dict[str, Path], tmp_path: Path
) -> None:
    corrupt = tmp_path / "clip9.mp4"
    corrupt.write_bytes(media["clip1"].read_bytes()[:600])
    lost = ClipOutcome(
        clip=Clip(clip_id="lost", source="vggsound", split="train", label=""), path="",
        status="unavailable", reason="no such file",
    )  # fmt: skip
    broken = replace(
        outcome("clip1", media["clip1"]),
        clip=Clip(clip_id="clip9", source="vggsound", split="train", label=""), path=str(corrupt),
    )  # fmt: skip
    write_manifest(
        tmp_path / "m.parquet", [*(outcome(n, c) for n, c in media.items()), lost, broken]
    )
    extract(tmp_path / "m.parquet", out := tmp_path / "av", CONFIG, MEL, MACHINE)
    written = stats(out)
    clips = written.pop("clips")
    assert clips["test"] == 2
    assert clips["train"] + clips["val"] == 6
    assert written == {
        "frames": sum(name.endswith(".jpg") for name in members(out)),
        "test_clips_without_sound": 1,
        "left_out": {"download: unavailable": 1, "no_audio": 1, "corrupt": 1},
    }


def test_same_bytes_twice_and_with_two_workers(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "one", CONFIG, MEL, MACHINE)
    extract(manifest, tmp_path / "again", CONFIG, MEL, MACHINE)
    extract(manifest, tmp_path / "two", CONFIG, MEL, replace(MACHINE, workers=2))
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "again") == contents(tmp_path / "two")


def packed_manifest(
    archive: Path, manifest: Path, names: list[str], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    """The manifest of the same clips as members of an archive, stored in the order of the names."""
    outcomes = {o.clip.clip_id: o for o in read_manifest(manifest)}
    files = {f"clips/{name}.mp4": Path(outcomes[name].path).read_bytes() for name in names}
    pack(archive, files, method=method)
    clips = [outcome.clip for outcome in outcomes.values()]
    path = archive.parent / "packed.parquet"
    write_manifest(path, find_local_clips(archive, clips, [], MACHINE))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_clips_in_an_archive_give_the_same_bytes(kind: str, manifest: Path, tmp_path: Path) -> None:
    names = [*TRAIN, "mute", "test1", "test0"]
    if kind in (".tar", ".zip"):  # random access: their order makes no difference
        names.reverse()
    packed = packed_manifest(tmp_path / f"a{kind}", manifest, names)
    extract(manifest, tmp_path / "files", CONFIG, MEL, MACHINE)
    extract(packed, tmp_path / "packed", CONFIG, MEL, replace(MACHINE, workers=2))
    assert contents(tmp_path / "files") == contents(tmp_path / "packed")


@pytest.mark.usefixtures("in_process")
def test_shards_follow_the_order_in_a_zipped_tar(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ["test0", "clip4", "clip1", "mute", "clip5", "test1", "clip0", "clip3", "clip2"]
    packed = packed_manifest(tmp_path / "a.tar.gz", manifest, stored)
    offsets = []
    monkeypatch.setattr(
        clip_shards, "as_path", lambda file: offsets.append(file.offset) or as_path(file)
    )
    extract(packed, tmp_path / "packed", CONFIG, MEL, MACHINE)
    by_split: dict[str, list[str]] = {}
    for name, row in index(tmp_path / "packed").items():
        by_split.setdefault(row["split"], []).append(name)
    _, held_out = hold_out(sorted([*TRAIN, "mute"]), 0.1, 2020)
    assert by_split == {
        "train": [name for name in stored if name.startswith("clip") and name not in held_out],
        "val": [name for name in stored if name in held_out and name != "mute"],
        "test": ["test0", "test1"],
    }
    assert sum(b < a for a, b in pairwise(offsets)) == 2  # three splits
    extract(manifest, tmp_path / "files", CONFIG, MEL, MACHINE)
    assert members(tmp_path / "packed") == members(tmp_path / "files")


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_member_damaged_since_the_download_is_left_out(
    kind: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    clip = manifest_path(manifest, "clip1").read_bytes()
    archive = tmp_path / f"a{kind}"
    names = [*TRAIN, "mute", "test1", "test0"]
    packed = packed_manifest(archive, manifest, names, zipfile.ZIP_STORED)
    overwrite(archive, clip, bytes(len(clip)))
    extract(packed, tmp_path / "packed", CONFIG, MEL, MACHINE)
    extract(manifest, tmp_path / "files", CONFIG, MEL, MACHINE)
    assert stats(tmp_path / "packed")["left_out"] == {"no_audio": 1, "corrupt": 1}
    intact = members(tmp_path / "files")
    others = {name: content for name, content in intact.items() if not name.startswith("clip1.")}
    assert members(tmp_path / "packed") == others != intact
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", [".tar", ".tar.gz"])
def test_archive_truncated_since_the_download_gives_what_it_still_has(
    kind: str, manifest: Path, tmp_path: Path
) -> None:
    names = ["test1", "test0", *TRAIN, "mute"]
    packed = packed_manifest(archive := tmp_path / f"a{kind}", manifest, names)
    clips = [o for o in read_manifest(packed) if o.clip.clip_id in names]
    cut(archive, 2 * archive.stat().st_size // 3)
    job = ClipShard(
        path=tmp_path / "test-000000.tar",
        split="test",
        clips=tuple(sorted(clips, key=lambda o: o.offset)),
    )
    done = extract_shard(CONFIG, MEL, TIMEOUT_SECONDS, job)
    clip_ids = [row["clip_id"] for row in done.rows]
    assert 2 <= len(clip_ids) < len(names)
    assert clip_ids == names[: len(clip_ids)]
    assert done.left_out == {"corrupt": len(names) - len(clip_ids)}


def test_archive_that_is_gone_costs_only_its_clips(manifest: Path, tmp_path: Path) -> None:
    outcomes = read_manifest(manifest)
    packed_manifest(archive := tmp_path / "a.zip", manifest, ["clip1", "clip2"])
    moved = [
        replace(o, path=str(archive), member=f"clips/{o.clip.clip_id}.mp4")
        if o.clip.clip_id in ("clip1", "clip2") else o
        for o in outcomes
    ]  # fmt: skip
    archive.unlink()
    write_manifest(tmp_path / "moved.parquet", moved)
    extract(tmp_path / "moved.parquet", out := tmp_path / "av", CONFIG, MEL, MACHINE)
    assert stats(out)["left_out"] == {"no_audio": 1, "missing": 2}
    assert index(out).keys() == {"clip0", "clip3", "clip4", "clip5", "test0", "test1"}


def test_without_test_clips_in_the_manifest_none_are_needed(
    media: dict[str, Path], tmp_path: Path
) -> None:
    write_manifest(tmp_path / "m.parquet", [outcome(name, media[name]) for name in TRAIN])
    extract(tmp_path / "m.parquet", tmp_path / "av", CONFIG, MEL, MACHINE)
    assert stats(tmp_path / "av")["clips"].keys() == {"train", "val"}


@pytest.mark.parametrize(
    ("names", "message"),
    [(("test0", "test1", "mute"), "no clip in train; left out: {'download: corrupt': 1}"),
     ((*TRAIN, "mute"), "no clip in test; left out: {'download: corrupt': 1}"),
     ((), "no clip in train, val, test; left out: {'download: corrupt': 1}")],
    ids=["train", "test", "all"],
)  # fmt: skip
def test_empty_split_is_refused_before_anything_is_extracted(
    names: tuple[str, ...], message: str, media: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def start_workers(*_: object, **__: object) -> NoReturn:
        raise AssertionError("extraction started")

    monkeypatch.setattr(journal, "map_in_order", start_workers)
    monkeypatch.setattr(extract_module, "extract_shard", start_workers)
    lost = ClipOutcome(
        clip=Clip(clip_id="lost", source="msrvtt", split="test", label=""), path="",
        status="corrupt", reason="",
    )  # fmt: skip
    outcomes = [outcome(name, media[name]) for name in names]
    write_manifest(tmp_path / "m.parquet", [*outcomes, lost])
    with pytest.raises(DataError, match=f"^extract: {message}$"):
        extract(tmp_path / "m.parquet", tmp_path / "av", CONFIG, MEL, MACHINE)
    assert not (tmp_path / "av").exists()


def test_split_that_extraction_leaves_empty_is_an_error_with_the_reasons(
    media: dict[str, Path], tmp_path: Path
) -> None:
    """Of three training clips the two without audio validate."""
    names = ["clip0", "clip1", "clip2"]
    held_out = hold_out(names, CONFIG.validation_share, CONFIG.validation_seed)[1]
    outcomes = [
        replace(outcome(name, media["mute" if name in held_out else name]),
                clip=Clip(clip_id=name, source="vggsound", split="train", label=""))
        for name in names
    ]  # fmt: skip
    write_manifest(tmp_path / "m.parquet", [*outcomes, outcome("test1", media["test1"])])
    with pytest.raises(DataError, match=r"no clip in val; left out: {'no_audio': 2}"):
        extract(tmp_path / "m.parquet", tmp_path / "av", CONFIG, MEL, MACHINE)
    assert not (tmp_path / "av" / "index.parquet").exists()


def test_index_rows_have_the_columns_of_the_schema() -> None:
    assert [field.name for field in fields(IndexRow)] == AV_SCHEMA.names


@pytest.mark.usefixtures("in_process")
def test_failed_job_leaves_no_partial_shard(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, samples: Any) -> Any:
        def partial_samples() -> Iterator[Any]:
            yield next(iter(samples))
            raise RuntimeError("no luck")

        return write_shard(path, partial_samples() if path.name == "train-000001.tar" else samples)

    write_shard = clip_shards.write_shard
    monkeypatch.setattr(clip_shards, "write_shard", failing)
    with pytest.raises(RuntimeError, match="no luck"):
        extract(manifest, tmp_path / "av", CONFIG, MEL, MACHINE)
    assert list(contents(tmp_path / "av")) == ["train-000000.tar"]


@needs_real_data
@six_real_clips_or_all
def test_real_clips_yield_frames_and_a_mel(count: int, tmp_path: Path) -> None:
    paths = real_clips(count)
    job = ClipShard(
        path=tmp_path / "test-000000.tar", split="test",
        clips=tuple(outcome("test", path) for path in paths),
    )  # fmt: skip
    job = replace(
        job,
        clips=tuple(
            replace(o, clip=replace(o.clip, clip_id=path.stem))
            for o, path in zip(job.clips, paths, strict=True)
        ),
    )
    done = extract_shard(CONFIG, replace(MEL, sample_rate_hz=16_000), TIMEOUT_SECONDS, job)
    assert not done.left_out
    assert len(done.rows) == count
    for row in done.rows:
        assert abs(len(row["frame_offsets"]) - frame_count(row["duration_s"])) <= 1
        assert row["mel_columns"] == pytest.approx(row["sound_s"] * 125, abs=1.5)
        assert row["sound_s"] == pytest.approx(row["duration_s"], abs=0.5)
