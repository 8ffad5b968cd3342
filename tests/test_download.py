"""Every wanted clip gets a typed outcome, and what an earlier run finished is kept."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixtures import contents, write_clip

from trimodal import download as module
from trimodal.demo.world import DemoConfig
from trimodal.download import DownloadConfig, download
from trimodal.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.records import Clip, DataError

DEMO = DemoConfig(
    clips=6, seed=1, clip_seconds=3.0, frame_px=32, fps=2, audio_rate_hz=16_000, images_per_clip=2
)
DEMO_SOURCE = DownloadConfig(
    source="demo", vggsound_csv="", vggsound_folder="", vggsound_splits=("train",), msrvtt_csv="",
    msrvtt_folder="", workers=1,
)  # fmt: skip
IDS = {name: f"{name}{'x' * (11 - len(name))}" for name in ("ok", "silent", "bad", "sound", "blip")}


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip, a silent one, one of 0.25 s, one with sound alone and one that is text."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "ok.mp4")
    write_clip(folder / "silent.mp4", sound=False)
    write_clip(folder / "blip.mp4", seconds=0.25)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (folder / "bad.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path, media: Path) -> DownloadConfig:
    """Two folders of clips and the CSV files that ask for them and for one that is not there."""
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for name, clip_id in IDS.items():
        shutil.copy2(media / f"{name}.mp4", tmp_path / "train" / f"{clip_id}_000010.mp4")
    shutil.copy2(media / "silent.mp4", tmp_path / "test" / "video1.mkv")
    rows = [f'{clip_id},10,"{name}, it is",train' for name, clip_id in IDS.items()]
    rows.append(f"{'gone' * 2}xxx,10,gone,train")
    (tmp_path / "vggsound.csv").write_text("\n".join(rows))
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\nr,m,video1,a dog\n")
    return DownloadConfig(
        source="folder",
        vggsound_csv=str(tmp_path / "vggsound.csv"), vggsound_folder=str(tmp_path / "train"),
        vggsound_splits=("train",),
        msrvtt_csv=str(tmp_path / "test.csv"), msrvtt_folder=str(tmp_path / "test"),
        workers=1,
    )  # fmt: skip


def run(config: DownloadConfig, out: Path, demo: DemoConfig = DEMO) -> dict[str, ClipOutcome]:
    download(config, demo, out / "clips", out / "world")
    return {o.clip.clip_id: o for o in read_manifest(out / "clips" / "manifest.parquet")}


def test_each_clip_has_its_status_and_reason(folder: DownloadConfig, tmp_path: Path) -> None:
    outcomes = run(folder, tmp_path)
    status = {clip_id: outcome.status for clip_id, outcome in outcomes.items()}
    assert status == {
        f"{IDS['ok']}_000010": "ok",
        f"{IDS['silent']}_000010": "ok",
        f"{IDS['bad']}_000010": "corrupt",
        f"{IDS['sound']}_000010": "no_video",
        f"{IDS['blip']}_000010": "too_short",
        "gonegonexxx_000010": "unavailable",
        "video1": "ok",
    }
    assert all(bool(o.reason) == (o.status != "ok") for o in outcomes.values())


def test_good_clip_carries_what_its_container_says(folder: DownloadConfig, tmp_path: Path) -> None:
    outcomes = run(folder, tmp_path)
    good, silent = (outcomes[f"{IDS[name]}_000010"] for name in ("ok", "silent"))
    path = tmp_path / "train" / f"{IDS['ok']}_000010.mp4"
    assert good == ClipOutcome(
        clip=Clip(clip_id=path.stem, source="vggsound", split="train", label="ok, it is"),
        path=path.as_posix(), status="ok", duration_s=pytest.approx(2.0, abs=0.2),
        has_audio=True, bytes=path.stat().st_size, attempts=1,
        updated_at=int(path.stat().st_mtime),
    )  # fmt: skip
    assert not silent.has_audio
    assert outcomes["video1"].clip.split == "test"
    assert outcomes["gonegonexxx_000010"].path == ""


def test_unchanged_files_are_not_looked_into_again(
    folder: DownloadConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path)
    before = (tmp_path / "clips" / "manifest.parquet").read_bytes()
    monkeypatch.setattr(module, "probe", lambda path: pytest.fail(f"looked into {path}"))
    run(folder, tmp_path)
    assert (tmp_path / "clips" / "manifest.parquet").read_bytes() == before


def test_changed_and_new_files_are_looked_into(
    folder: DownloadConfig, tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path)
    repaired = tmp_path / "train" / f"{IDS['bad']}_000010.mp4"
    arrived = tmp_path / "train" / "gonegonexxx_000010.mp4"
    touched = tmp_path / "train" / f"{IDS['silent']}_000010.mp4"
    shutil.copy2(media / "ok.mp4", repaired)
    shutil.copy2(media / "ok.mp4", arrived)
    os.utime(touched, (1, 1))
    looked = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda path: looked.append(path) or probe(path))
    outcomes = run(folder, tmp_path)
    assert sorted(looked) == sorted([repaired, arrived, touched])
    assert [outcomes[path.stem].status for path in looked] == ["ok"] * 3
    assert outcomes[touched.stem].updated_at == 1


def test_file_that_went_away_is_unavailable(folder: DownloadConfig, tmp_path: Path) -> None:
    run(folder, tmp_path)
    (tmp_path / "test" / "video1.mkv").unlink()
    assert run(folder, tmp_path)["video1"].status == "unavailable"


def test_link_to_nowhere_and_folder_are_no_clips(folder: DownloadConfig, tmp_path: Path) -> None:
    (tmp_path / "test" / "video1.mkv").unlink()
    (tmp_path / "test" / "video1.mp4").symlink_to(tmp_path / "nowhere.mp4")
    silent = tmp_path / "train" / f"{IDS['silent']}_000010.mp4"
    silent.unlink()
    silent.mkdir()
    outcomes = run(folder, tmp_path)
    assert outcomes["video1"].status in ("unavailable", "corrupt")
    assert outcomes[silent.stem].status in ("unavailable", "corrupt")


def test_clip_outside_the_folder_cannot_be_asked_for(
    folder: DownloadConfig, tmp_path: Path, media: Path
) -> None:
    shutil.copy2(media / "ok.mp4", tmp_path / "secret.mp4")
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\nr,m,../secret,a dog\n")
    with pytest.raises(DataError, match=r"row 2.*'\.\./secret'"):
        run(folder, tmp_path)
    assert not (tmp_path / "clips" / "manifest.parquet").exists()


@pytest.mark.parametrize("key", ["vggsound_folder", "msrvtt_folder"])
def test_missing_folder_is_named(key: str, folder: DownloadConfig, tmp_path: Path) -> None:
    gone = str(tmp_path / "not_here")
    with pytest.raises(DataError, match="not_here"):
        run(replace(folder, **{key: gone}), tmp_path)


def test_no_usable_clip_is_an_error_that_leaves_the_reasons(
    folder: DownloadConfig, tmp_path: Path
) -> None:
    for name in ("train", "test"):
        shutil.rmtree(tmp_path / name)
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="not one clip"):
        run(folder, tmp_path)
    outcomes = read_manifest(tmp_path / "clips" / "manifest.parquet")
    assert {outcome.status for outcome in outcomes} == {"unavailable"}


def test_manifest_comes_back_with_the_contracts_types(tmp_path: Path) -> None:
    clip = Clip(clip_id="-a_000001", source="vggsound", split="train", label="dog, barking")
    outcomes = [
        ClipOutcome(
            clip=clip, path="a/b.mp4", status="ok", duration_s=9.5, has_audio=True, bytes=2**40,
            attempts=3, updated_at=1_700_000_000,
        ),
        ClipOutcome(clip=replace(clip, clip_id="b"), path="", status="geo_blocked", reason="é"),
    ]  # fmt: skip
    write_manifest(tmp_path / "manifest.parquet", outcomes)
    assert read_manifest(tmp_path / "manifest.parquet") == outcomes
    types = {field.name: field.type for field in pq.read_schema(tmp_path / "manifest.parquet")}
    assert types == {
        **dict.fromkeys(
            ("clip_id", "source", "split", "label", "path", "status", "reason"), pa.string()
        ),
        "duration_s": pa.float64(), "has_audio": pa.bool_(), "bytes": pa.int64(),
        "attempts": pa.int32(), "updated_at": pa.timestamp("ms", tz="UTC"),
    }  # fmt: skip


# The demo


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    run(DEMO_SOURCE, folder)
    return folder


@pytest.fixture
def world(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the rendered demo; paths in the manifest are relative to it."""
    shutil.copytree(rendered, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path()


def mtimes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "clips").glob("*.mp4")}


def test_demo_clips_are_ok_and_real_mp4(rendered: Path) -> None:
    outcomes = read_manifest(rendered / "clips" / "manifest.parquet")
    assert [outcome.status for outcome in outcomes] == ["ok"] * 6
    assert sorted(outcome.clip.split for outcome in outcomes) == ["test"] * 2 + ["train"] * 4
    assert {outcome.updated_at for outcome in outcomes} == {None}
    for outcome in outcomes:
        with av.open(outcome.path) as container:
            (video,) = container.streams.video
            assert (video.codec_context.name, video.width, video.height) == ("h264", 32, 32)
            assert [s.codec_context.name for s in container.streams.audio] == (
                ["aac"] if outcome.has_audio else []
            )
            assert outcome.duration_s == pytest.approx(3.0, abs=0.2)
    assert {outcome.has_audio for outcome in outcomes} == {True, False}


def test_second_demo_run_renders_nothing_and_says_the_same(world: Path) -> None:
    run(DEMO_SOURCE, world)
    before, times = contents(world), mtimes(world)
    run(DEMO_SOURCE, world)
    assert mtimes(world) == times
    assert contents(world) == before


def test_interrupted_demo_run_renders_only_what_is_missing(world: Path) -> None:
    run(DEMO_SOURCE, world)
    before, times = contents(world), mtimes(world)
    gone = sorted(times)[:2]
    for name in [*gone, "manifest.parquet"]:
        (world / "clips" / name).unlink()
    run(DEMO_SOURCE, world)
    assert contents(world) == before
    changed = [name for name, time in mtimes(world).items() if times[name] != time]
    assert sorted(changed) == gone


def test_demo_of_another_seed_starts_anew(world: Path) -> None:
    times = mtimes(world)
    (world / "clips" / "stray.mp4").write_text("of the old world")
    outcomes = run(DEMO_SOURCE, world, replace(DEMO, seed=2))
    assert sorted(mtimes(world)) == sorted(f"{name}.mp4" for name in outcomes)
    trained = {name for name in times if not name.startswith("video")}
    assert not trained & set(mtimes(world))


def test_demo_renders_at_the_lowest_audio_rate(tmp_path: Path) -> None:
    slow = replace(DEMO, seed=2, audio_rate_hz=8000)
    assert {outcome.status for outcome in run(DEMO_SOURCE, tmp_path, slow).values()} == {"ok"}


def test_two_workers_render_the_same(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(DEMO_SOURCE, world)
    one = contents(world)
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "two")
    run(replace(DEMO_SOURCE, workers=2), Path())
    assert contents(Path()) == one


def test_folder_source_leaves_the_demos_world_empty(folder: DownloadConfig, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.parquet").write_text("of an earlier demo")
    run(folder, tmp_path)
    assert list((tmp_path / "world").iterdir()) == []
