"""Clips and shards on an S3 server (moto, on loopback), read and written like local folders."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from configs import MACHINE
from data_fixtures import contents, write_clip
from s3_server import new_bucket, put, s3_server, stored
from test_ray_pool import MEL, add_node, ray_at, started_cluster
from training_fixtures import extract_config

from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import read_manifest, write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.core.storage import is_remote, storage_path, upload
from trimodal.download.local import find_local_clips
from trimodal.preprocess.extract import extract

pytest.importorskip("s3fs")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """One server for all tests of this file."""
    with s3_server():
        yield


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """The URL of a new bucket."""
    request.getfixturevalue("server")
    return new_bucket(request.node.name)


CLIPS = [
    Clip(
        clip_id=f"video{number}" if number > 6 else f"clip-{number:02d}_000000",
        source="msrvtt" if number > 6 else "vggsound",
        split="test" if number > 6 else "train",
        label="",
    )
    for number in range(9)
]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine clips."""
    folder = tmp_path_factory.mktemp("media")
    for clip in CLIPS:
        write_clip(folder / f"{clip.clip_id}.mp4", seconds=3.0)
    return folder


def extracted(media: str, out: str, manifest: Path, machine: MachineConfig = MACHINE) -> None:
    """Runs the local download and the extraction of a folder of clips, in shards of two."""
    write_manifest(manifest, find_local_clips(storage_path(media), CLIPS, [], MACHINE))
    extract(manifest, storage_path(out), replace(extract_config(), clips_per_shard=2), MEL, machine)


def test_shards_on_a_store_are_the_same_as_on_disk(
    media: Path, bucket: str, tmp_path: Path
) -> None:
    """Clips, manifest, shards, index and statistics."""
    extracted(str(media), str(tmp_path / "av"), tmp_path / "local.parquet")
    put(media, f"{bucket}/clips")
    manifest = storage_path(f"{bucket}/manifest.parquet")
    extracted(f"{bucket}/clips", f"{bucket}/av", manifest)
    assert stored(f"{bucket}/av") == contents(tmp_path / "av")
    outcomes = read_manifest(manifest)
    assert [o.status for o in outcomes] == ["ok"] * len(CLIPS)
    assert outcomes[0].path == f"{bucket}/clips/clip-00_000000.mp4"


def test_a_second_run_reuses_shards_and_rebuilds_that_of_a_changed_clip(
    media: Path, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trimodal")
    put(media, f"{bucket}/clips")
    run = partial(extracted, f"{bucket}/clips", f"{bucket}/av", tmp_path / "manifest.parquet")
    run()
    before = stored(f"{bucket}/av")
    (storage_path(bucket) / "av" / "of-another-run.txt").write_text("x")
    caplog.clear()
    run()
    assert stored(f"{bucket}/av") == before
    assert any("reused 5 of 5 shards" in text for text in caplog.messages)
    write_clip(tmp_path / "other.mp4", seconds=3.0, fps=5)
    (storage_path(bucket) / "clips" / "video8.mp4").write_bytes(
        (tmp_path / "other.mp4").read_bytes()
    )
    caplog.clear()
    run()
    changed = {name for name, content in stored(f"{bucket}/av").items() if content != before[name]}
    assert changed == {"test-000000.tar", "index.parquet"}
    assert any("reused 4 of 5 shards" in text for text in caplog.messages)


def test_archives_on_a_store_are_read(media: Path, bucket: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for path in sorted(media.iterdir()):
            tar.add(path, path.name)
    upload(tmp_path / "all.tar", storage_path(bucket) / "all.tar")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(media.iterdir()):
            archive.write(path, path.name)
    upload(tmp_path / "all.zip", storage_path(bucket) / "all.zip")
    local = find_local_clips(media, CLIPS, [], MACHINE)
    for name in ("all.tar", "all.zip"):
        remote = find_local_clips(storage_path(f"{bucket}/{name}"), CLIPS, [], MACHINE)
        assert [(o.status, o.duration_s, o.bytes) for o in remote] == [
            (o.status, o.duration_s, o.bytes) for o in local
        ]
    extracted(f"{bucket}/all.tar", f"{bucket}/av", tmp_path / "tar.parquet")
    extracted(str(media), str(tmp_path / "av"), tmp_path / "local.parquet")
    assert stored(f"{bucket}/av") == contents(tmp_path / "av")


@pytest.mark.nightly
def test_the_stage_takes_urls_and_reports_a_store_that_does_not_answer(
    media: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(media, f"{bucket}/clips")
    write_manifest(
        storage_path(f"{bucket}/manifest.parquet"),
        find_local_clips(storage_path(f"{bucket}/clips"), CLIPS, [], MACHINE),
    )
    params = tmp_path / "params.yaml"
    sections = {"extract": asdict(extract_config()), "mel": asdict(MEL), "machine": asdict(MACHINE)}
    params.write_text(yaml.safe_dump(sections))
    command = [
        sys.executable, "-m", "pipeline.extract", "--params", str(params), "--clips", bucket,
        "--out", f"{bucket}/av",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "extract: 9 clips (5 train, 2 val, 2 test)" in done.stdout
    assert json.loads(stored(f"{bucket}/av")["stats.json"])["clips"]["train"] == 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    message = r"extract: Could not connect to the endpoint URL.*: run dvc repro again"
    assert re.fullmatch(message, done.stderr.strip())


@pytest.mark.parametrize("text", ["http://host/clips", "ftp://host/a", "s3://", "s3:///", "://x"])
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="neither a path nor a URL"):
        storage_path(text)


def test_paths_and_file_urls_are_local() -> None:
    assert storage_path("data/av") == Path("data/av")
    assert storage_path("file:///data/a%20b") == Path("/data/a b")
    assert not is_remote(storage_path("file:///data"))


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nodes_that_share_no_folder_work_by_urls(media: Path, bucket: str, tmp_path: Path) -> None:
    """Clips, manifest and shards are on the store; this machine's folder is not needed."""
    extracted(str(media), str(tmp_path / "av"), tmp_path / "local.parquet")
    put(media, f"{bucket}/clips")
    with started_cluster() as cluster:
        for _ in range(2):
            add_node(cluster)
        machine = replace(ray_at(cluster.address), shared_folder=False)
        manifest = storage_path(f"{bucket}/manifest.parquet")
        extracted(f"{bucket}/clips", f"{bucket}/av", manifest, machine)
    assert stored(f"{bucket}/av") == contents(tmp_path / "av")
