"""Every listed clip gets an outcome, and what an earlier run finished is kept."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import video_server as serve
from configs import MACHINE, config_for_tests
from data_fixtures import contents, write_clip

from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.download import probe as module
from trimodal.download.demo.world import DemoConfig
from trimodal.download.download import DownloadConfig, download
from trimodal.download.youtube import YoutubeConfig

DEMO = config_for_tests(
    DemoConfig, clips=6, clip_seconds=3.0, frame_px=32, fps=2, images_per_clip=2
)
DEMO_SOURCE = config_for_tests(DownloadConfig, min_coverage=0.0)
YOUTUBE = config_for_tests(YoutubeConfig)
# A server on this machine: no pauses, no retries.
LOCAL_SERVER = replace(
    MACHINE,
    youtube=replace(
        MACHINE.youtube, workers=2, pause_seconds=0.0, retries=0, backoff_seconds=0.0,
        stall_seconds=1.0, clip_timeout_seconds=30.0, stop_after=3,
    ),
)  # fmt: skip
IDS = {name: f"{name}{'x' * (11 - len(name))}" for name in ("ok", "silent", "bad", "audio", "blip")}


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good clip, a silent one, one of 0.25 s, one with audio only and one that is text."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "ok.mp4")
    write_clip(folder / "silent.mp4", sound=False)
    write_clip(folder / "blip.mp4", seconds=0.25)
    with av.open(str(folder / "audio.mp4"), "w") as container:
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
    """Two folders of clips and the CSV files that list them and one that is missing."""
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for name, clip_id in IDS.items():
        shutil.copy2(media / f"{name}.mp4", tmp_path / "train" / f"{clip_id}_000010.mp4")
    shutil.copy2(media / "silent.mp4", tmp_path / "test" / "video1.mkv")
    rows = [f'{clip_id},10,"{name}, it is",train' for name, clip_id in IDS.items()]
    rows.append(f"{'gone' * 2}xxx,10,gone,train")
    (tmp_path / "vggsound.csv").write_text("\n".join(rows))
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\nr,m,video1,a dog\n")
    return replace(
        DEMO_SOURCE,
        source="files",
        vggsound_csv=str(tmp_path / "vggsound.csv"),
        vggsound_media=str(tmp_path / "train"),
        msrvtt_csv=str(tmp_path / "test.csv"),
        msrvtt_media=str(tmp_path / "test"),
    )


def run(
    config: DownloadConfig, out: Path, demo: DemoConfig = DEMO, machine: MachineConfig = MACHINE
) -> dict[str, ClipOutcome]:
    download(config, YOUTUBE, demo, out / "clips", out / "world", machine)
    return {o.clip.clip_id: o for o in read_manifest(out / "clips" / "manifest.parquet")}


def test_each_clip_has_its_status_and_reason(folder: DownloadConfig, tmp_path: Path) -> None:
    outcomes = run(folder, tmp_path)
    status = {clip_id: outcome.status for clip_id, outcome in outcomes.items()}
    assert status == {
        f"{IDS['ok']}_000010": "ok",
        f"{IDS['silent']}_000010": "ok",
        f"{IDS['bad']}_000010": "corrupt",
        f"{IDS['audio']}_000010": "no_video",
        f"{IDS['blip']}_000010": "too_short",
        "gonegonexxx_000010": "unavailable",
        "video1": "ok",
    }
    assert all(bool(o.reason) == (o.status != "ok") for o in outcomes.values())


def test_good_clip_has_its_containers_duration_and_streams(
    folder: DownloadConfig, tmp_path: Path
) -> None:
    outcomes = run(folder, tmp_path)
    good, silent = (outcomes[f"{IDS[name]}_000010"] for name in ("ok", "silent"))
    path = tmp_path / "train" / f"{IDS['ok']}_000010.mp4"
    assert good == ClipOutcome(
        clip=Clip(
            clip_id=path.stem, source="vggsound", split="train", label="ok, it is",
            youtube_id=IDS["ok"],
        ),
        path=path.as_posix(), status="ok", duration_s=pytest.approx(2.0, abs=0.2),
        has_audio=True, bytes=path.stat().st_size, attempts=1,
        updated_at=int(path.stat().st_mtime),
    )  # fmt: skip
    assert not silent.has_audio
    assert outcomes["video1"].clip.split == "test"
    assert outcomes["gonegonexxx_000010"].path == ""


def test_unchanged_files_are_not_probed_again(
    folder: DownloadConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path)
    before = (tmp_path / "clips" / "manifest.parquet").read_bytes()
    probed: list[Path] = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda path: probed.append(path) or probe(path))
    run(folder, tmp_path)
    assert [path.stem for path in probed] == [f"{IDS['bad']}_000010"]  # the corrupt one
    assert (tmp_path / "clips" / "manifest.parquet").read_bytes() == before


def test_changed_and_new_files_are_probed(
    folder: DownloadConfig, tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, tmp_path)
    repaired = tmp_path / "train" / f"{IDS['bad']}_000010.mp4"
    arrived = tmp_path / "train" / "gonegonexxx_000010.mp4"
    touched = tmp_path / "train" / f"{IDS['silent']}_000010.mp4"
    shutil.copy2(media / "ok.mp4", repaired)
    shutil.copy2(media / "ok.mp4", arrived)
    os.utime(touched, (1, 1))
    probed = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda path: probed.append(path) or probe(path))
    outcomes = run(folder, tmp_path)
    assert sorted(probed) == sorted([repaired, arrived, touched])
    assert [outcomes[path.stem].status for path in probed] == ["ok"] * 3
    assert outcomes[touched.stem].updated_at == 1


def test_file_that_went_away_is_unavailable(folder: DownloadConfig, tmp_path: Path) -> None:
    run(folder, tmp_path)
    (tmp_path / "train" / f"{IDS['silent']}_000010.mp4").unlink()
    assert run(folder, tmp_path)[f"{IDS['silent']}_000010"].status == "unavailable"


def test_link_to_nowhere_and_folder_are_not_clips(folder: DownloadConfig, tmp_path: Path) -> None:
    blip, silent = (tmp_path / "train" / f"{IDS[name]}_000010.mp4" for name in ("blip", "silent"))
    blip.unlink()
    blip.symlink_to(tmp_path / "nowhere.mp4")
    silent.unlink()
    silent.mkdir()
    outcomes = run(folder, tmp_path)
    assert outcomes[blip.stem].status == outcomes[silent.stem].status == "unavailable"


def test_clip_outside_the_folder_cannot_be_requested(
    folder: DownloadConfig, tmp_path: Path, media: Path
) -> None:
    shutil.copy2(media / "ok.mp4", tmp_path / "secret.mp4")
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\nr,m,../secret,a dog\n")
    with pytest.raises(DataError, match="unsafe name"):
        run(folder, tmp_path)
    assert not (tmp_path / "clips" / "manifest.parquet").exists()


@pytest.mark.parametrize("key", ["vggsound_media", "msrvtt_media"])
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
    with pytest.raises(DataError, match=r"0\.0 % of the 6 vggsound clips"):
        run(folder, tmp_path)
    outcomes = read_manifest(tmp_path / "clips" / "manifest.parquet")
    assert {outcome.status for outcome in outcomes} == {"unavailable"}


def test_manifest_comes_back_with_the_contracts_types(tmp_path: Path) -> None:
    clip = Clip(clip_id="-a_000001", source="vggsound", split="train", label="dog, barking")
    clip = replace(clip, youtube_id="-a123456789")
    outcomes = [
        ClipOutcome(
            clip=clip, path="a/b.tar", member="b.mp4", offset=2**40, status="ok",
            duration_s=9.5, has_audio=True, bytes=2**40, attempts=3, updated_at=1_700_000_000,
            fingerprint="0123456789abcdef",
        ),
        ClipOutcome(clip=replace(clip, clip_id="b"), path="", status="geo_blocked", reason="é"),
    ]  # fmt: skip
    write_manifest(tmp_path / "manifest.parquet", outcomes)
    assert read_manifest(tmp_path / "manifest.parquet") == outcomes
    types = {field.name: field.type for field in pq.read_schema(tmp_path / "manifest.parquet")}
    texts = (
        "clip_id", "source", "split", "label", "youtube_id", "path", "member", "status", "reason",
    )  # fmt: skip
    assert types == {
        **dict.fromkeys(texts, pa.string()),
        "fingerprint": pa.string(), "offset": pa.int64(),
        "duration_s": pa.float64(), "has_audio": pa.bool_(), "bytes": pa.int64(),
        "attempts": pa.int32(), "updated_at": pa.timestamp("ms", tz="UTC"),
    }  # fmt: skip


def without_fingerprints(path: Path) -> None:
    """As an earlier version wrote it."""
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["fingerprint"]), path)


def test_manifest_of_an_earlier_version_is_read(folder: DownloadConfig, tmp_path: Path) -> None:
    outcomes = run(folder, tmp_path)
    without_fingerprints(tmp_path / "clips" / "manifest.parquet")
    assert read_manifest(tmp_path / "clips" / "manifest.parquet") == [*outcomes.values()]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_version(path: Path) -> None:
    pq.write_table(pa.table({"clip": ["a"]}), path)


def flip_a_bit(path: Path) -> None:
    """With the size and the time that the file had."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("damage", [empty, halve, of_another_version])
def test_damaged_manifest_is_made_anew_in_one_run(
    damage: Callable[[Path], None], folder: DownloadConfig, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "trimodal")
    outcomes = run(folder, tmp_path)
    damage(tmp_path / "clips" / "manifest.parquet")
    assert run(folder, tmp_path) == outcomes
    assert sum("it is made anew" in text for text in caplog.messages) == 1
    assert run(folder, tmp_path) == outcomes
    assert sum("it is made anew" in text for text in caplog.messages) == 1


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
    return {
        path.name: path.stat().st_mtime_ns for path in (folder / "clips" / "demo").glob("*.mp4")
    }


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


def test_second_demo_run_renders_nothing_and_gives_the_same(world: Path) -> None:
    run(DEMO_SOURCE, world)
    before, times = contents(world), mtimes(world)
    run(DEMO_SOURCE, world)
    assert mtimes(world) == times
    assert contents(world) == before


def test_interrupted_demo_run_renders_only_what_is_missing(world: Path) -> None:
    run(DEMO_SOURCE, world)
    before, times = contents(world), mtimes(world)
    gone = sorted(times)[:2]
    for name in gone:
        (world / "clips" / "demo" / name).unlink()
    (world / "clips" / "manifest.parquet").unlink()
    run(DEMO_SOURCE, world)
    assert contents(world) == before
    changed = [name for name, time in mtimes(world).items() if times[name] != time]
    assert sorted(changed) == gone


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("clips/manifest.parquet", empty), ("clips/demo/world.json", halve), ("a clip", empty),
        ("a clip", flip_a_bit), ("world/word2vec.bin", flip_a_bit), ("world/truth.parquet", empty),
        ("world/vggsound.csv", empty), ("world/coco/train2017.zip", halve),
        ("world/flickr30k/results.csv", Path.unlink),
    ],
)  # fmt: skip
def test_damaged_output_of_the_demo_is_made_anew_in_one_run(
    name: str, damage: Callable[[Path], None], world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trimodal")
    run(DEMO_SOURCE, world)
    before = contents(world)
    caplog.clear()
    path = world / name
    if name == "a clip":
        path = sorted((world / "clips" / "demo").glob("*.mp4"))[3]
    damage(path)
    run(DEMO_SOURCE, world)
    assert contents(world) == before
    (line,) = [text for text in caplog.messages if "anew" in text]
    assert path.name in line
    caplog.clear()
    run(DEMO_SOURCE, world)
    assert not any("anew" in text for text in caplog.messages)


def test_stray_file_in_the_demos_world_is_removed(world: Path) -> None:
    run(DEMO_SOURCE, world)
    before = contents(world)
    (world / "world" / "more.csv").write_text("of somebody else")
    run(DEMO_SOURCE, world)
    assert contents(world) == before


@pytest.mark.parametrize("text", ["", "[]", '{"demo": 1}', "not json", '{"world": []}'])
def test_damaged_record_of_the_demos_world_is_made_anew(text: str, world: Path) -> None:
    run(DEMO_SOURCE, world)
    before = contents(world)
    (world / "clips" / "demo" / "world.json").write_text(text)
    run(DEMO_SOURCE, world)
    assert contents(world) == before


def test_demo_of_another_seed_starts_over(world: Path) -> None:
    times = mtimes(world)
    (world / "clips" / "demo" / "stray.mp4").write_text("of the old world")
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
    run(DEMO_SOURCE, Path(), machine=replace(MACHINE, workers=2))
    assert contents(Path()) == one


@pytest.mark.parametrize(("coverage", "passes"), [(1 / 3, True), (0.34, False), (1.0, False)])
def test_coverage_below_the_minimum_fails_with_the_table_of_reasons(
    coverage: float, passes: bool, folder: DownloadConfig, tmp_path: Path
) -> None:
    config = replace(folder, min_coverage=coverage)
    if passes:
        run(config, tmp_path)
    else:
        with pytest.raises(DataError, match=r"33\.3 % of the 6 vggsound clips") as caught:
            run(config, tmp_path)
        table = [line.split() for line in str(caught.value).splitlines()[1:]]
        assert {(line[0], line[1]) for line in table} == {
            ("corrupt", "1"), ("no_video", "1"), ("too_short", "1"), ("unavailable", "1"),
        }  # fmt: skip
        assert "gonegonexxx_000010: no such file" in str(caught.value)
    assert len(read_manifest(tmp_path / "clips" / "manifest.parquet")) == 7


def test_coverage_is_required_of_each_data_set(folder: DownloadConfig, tmp_path: Path) -> None:
    (tmp_path / "test" / "video1.mkv").unlink()
    with pytest.raises(DataError, match=r"0\.0 % of the 1 msrvtt clips"):
        run(folder, tmp_path)


def test_stats_count_what_was_requested_found_and_usable(
    folder: DownloadConfig, tmp_path: Path
) -> None:
    with (tmp_path / "vggsound.csv").open("a") as rows:
        rows.write("\nnot an id,10,dog,train\n" + f"{IDS['ok']},10,again,train\n" * 2)
    with (tmp_path / "test.csv").open("a") as rows:
        rows.write("r2,m2,../video2,a cat\n")
    config = replace(folder, min_coverage=0.0)
    run_with_many_rows(config, tmp_path)
    stats = json.loads((tmp_path / "clips" / "stats.json").read_text())
    assert stats["bad_rows"] == {
        "vggsound: no YouTube id": 1, "vggsound: a clip occurs twice": 2, "msrvtt: unsafe name": 1,
    }  # fmt: skip
    assert stats["clips"]["vggsound"] == {
        "wanted": 6 + MANY, "found": 5, "usable": 2, "with_sound": 1, "hours": 0.0011,
        "by_status": {
            "corrupt": 1, "no_video": 1, "ok": 2, "too_short": 1, "unavailable": 1 + MANY,
        },
    }  # fmt: skip
    assert stats["clips"]["msrvtt"] == {
        "wanted": 1, "found": 1, "usable": 1, "with_sound": 0, "hours": 0.0006,
        "by_status": {"ok": 1},
    }  # fmt: skip


def test_clips_and_videos_of_other_splits_are_counted_as_left_out(
    folder: DownloadConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trimodal")
    with (tmp_path / "vggsound.csv").open("a") as rows:
        rows.writelines(f"\n{IDS['ok']},{start},dog,test" for start in (20, 30, 40))
    videos = {"video1": "test", "video2": "train", "video3": "train", "video4": "validate"}
    official = {
        "videos": [{"video_id": name, "split": split} for name, split in videos.items()],
        "sentences": [{"video_id": "video1", "caption": "a dog", "sen_id": 1}],
    }
    (tmp_path / "test.json").write_text(json.dumps(official))
    config = replace(folder, msrvtt_csv=str(tmp_path / "test.json"), min_coverage=0.0)
    run(config, tmp_path)
    other_splits = {
        "vggsound: clip of the test split": 3,
        "msrvtt: video of the train split": 2,
        "msrvtt: video of the validate split": 1,
    }
    stats = json.loads((tmp_path / "clips" / "stats.json").read_text())
    assert stats["bad_rows"] == other_splits
    (summary,) = [text for text in caplog.messages if text.startswith("download: ")]
    assert "left out 10: " in summary  # with four unusable clips
    for reason, count in other_splits.items():
        assert f"{count} {reason}" in summary


MANY = 400


def run_with_many_rows(config: DownloadConfig, out: Path) -> None:
    """Adds enough good rows that a few bad ones do not make the file suspect."""
    with Path(config.vggsound_csv).open("a") as rows:
        rows.writelines(f"{number:011d},0,cat,train\n" for number in range(MANY))
    run(config, out)


def test_youtube_source_fetches_and_another_source_keeps_the_files(
    folder: DownloadConfig, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for clip_id in (*IDS.values(), "gonegonexxx"):
        write_clip(served / f"{clip_id}.mp4", seconds=12.0)
    config = replace(folder, source="youtube", vggsound_media="")
    with serve.running(served) as server:
        server.responses["gonegonexxx"] = serve.status(404)
        youtube = replace(YOUTUBE, page=server.page)
        download(config, youtube, DEMO, tmp_path / "clips", tmp_path / "world", LOCAL_SERVER)
    outcomes = read_manifest(tmp_path / "clips" / "manifest.parquet")
    statuses = {o.clip.clip_id: o.status for o in outcomes}
    assert statuses.pop("gonegonexxx_000010") == "unavailable"
    assert set(statuses.values()) == {"ok"}
    fetched = tmp_path / "clips" / "youtube"
    before = contents(fetched)
    assert len(before) == 5 + 1  # and the ledger
    run(DEMO_SOURCE, tmp_path)
    run(folder, tmp_path)
    assert contents(fetched) == before


def test_folder_source_leaves_the_demos_world_empty(folder: DownloadConfig, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.parquet").write_text("of an earlier demo")
    run(folder, tmp_path)
    assert list((tmp_path / "world").iterdir()) == []
