"""The media stages on a real Ray cluster of several nodes (raylets) on this machine."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from configs import MACHINE, config_for_tests
from data_fixtures import contents, write_clip
from test_download import DEMO, DEMO_SOURCE
from test_youtube import CONFIG as YOUTUBE
from training_fixtures import RATE_HZ, caption_sources, extract_config

from trimodal.core.archives import files_and_archives_in
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.records import Clip, DataError, Split
from trimodal.core.timing import frame_count
from trimodal.download.download import download
from trimodal.media.mel import MelConfig
from trimodal.parallel.executor import map_in_order
from trimodal.parallel.journal import FOLDER
from trimodal.parallel.pool import ExecutorError, WorkerError
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.extract import extract

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
STORE_BYTES = 80 * 2**20
MEL = config_for_tests(
    MelConfig, sample_rate_hz=RATE_HZ, n_fft=512, window_samples=320, hop_samples=160, mels=16
)


@contextmanager
def started_cluster() -> Iterator[Any]:
    """A head without cores, in the current environment; tests add nodes."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    started = Cluster(initialize_head=True, head_node_args=head)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One cluster for all tests of this file."""
    with started_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def node(cluster: Any) -> Any:
    """A node with one core, added to the cluster."""
    return add_node(cluster)


def add_node(cluster: Any, **arguments: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, **arguments)


def ray_at(address: str) -> MachineConfig:
    return replace(MACHINE, executor="ray", ray_address=address, shared_folder=True)


def on(cluster: Any) -> MachineConfig:
    return ray_at(cluster.address)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 2 test clips, one of them not a video."""
    folder = tmp_path_factory.mktemp("clips")
    outcomes = []
    for number in range(26):
        split: Split = "test" if number > 23 else "train"
        path = folder / f"{number}.mp4"
        if number == 5:
            path.write_bytes(b"no video at all")
        else:
            write_clip(path, seconds=3.0)
        clip = Clip(
            clip_id=f"video{number}" if split == "test" else f"clip-{number:02d}_000000",
            source="msrvtt" if split == "test" else "vggsound",
            split=split,
            label="",
        )
        outcomes.append(
            ClipOutcome(clip=clip, path=str(path), status="ok", duration_s=3.0, has_audio=True)
        )
    write_manifest(folder / "manifest.parquet", outcomes)
    return folder / "manifest.parquet"


def extracted(manifest: Path, out: Path, machine: MachineConfig) -> dict[str, bytes]:
    """All files that an extraction writes, in shards of two clips."""
    extract(manifest, out, replace(extract_config(), clips_per_shard=2), MEL, machine)
    return contents(out)


@pytest.mark.nightly
def test_a_cluster_without_nodes_is_an_error(cluster: Any) -> None:
    with pytest.raises(ExecutorError, match="no node with a CPU core"):
        list(map_in_order(on(cluster), frame_count, [1.0]))


@pytest.mark.nightly
@pytest.mark.usefixtures("node")
def test_a_jobs_own_error_is_raised_here(cluster: Any) -> None:
    with pytest.raises(DataError, match="is neither a folder") as caught:
        list(map_in_order(on(cluster), files_and_archives_in, [Path("missing")]))
    assert any("On a node of the cluster" in note for note in caught.value.__notes__)


@pytest.mark.nightly
@pytest.mark.usefixtures("node")
def test_results_are_in_the_order_of_the_jobs(cluster: Any) -> None:
    jobs = [float(number) for number in range(60)]
    assert list(map_in_order(on(cluster), frame_count, jobs)) == [*map(frame_count, jobs)]


@pytest.mark.nightly
@pytest.mark.usefixtures("node")
def test_a_crash_goes_to_on_crash_or_ends_the_run(cluster: Any) -> None:
    """The job kills its process with SIGSEGV."""
    machine, jobs = on(cluster), [signal.SIGSEGV] * 2

    def on_crash(job: signal.Signals, error: WorkerError) -> str:
        assert error.crashed
        return f"replaced {job}"

    results = list(map_in_order(machine, signal.raise_signal, jobs, on_crash=on_crash))  # type: ignore[arg-type]
    assert results == [f"replaced {job}" for job in jobs]
    with pytest.raises(WorkerError, match="crashed or was killed"):
        list(map_in_order(machine, signal.raise_signal, jobs))


def test_an_address_without_a_listener_fails_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    machine = ray_at(address)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match=f"machine.ray_address {address} cannot be reached"):
        list(map_in_order(machine, frame_count, [1.0]))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("address", ["nonsense", "host:port", "127.0.0.1:"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    machine = ray_at(address)
    with pytest.raises(ExecutorError, match="cannot be reached"):
        list(map_in_order(machine, frame_count, [1.0]))


def test_without_ray_the_package_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "trimodal.parallel.ray_pool", raising=False)
    machine = ray_at("")
    with pytest.raises(ExecutorError, match=r"trimodal\[ray\]"):
        list(map_in_order(machine, frame_count, [1.0]))


def test_locally_neither_ray_nor_a_store_is_imported() -> None:
    """Neither by the stages' imports."""
    code = """
import sys
from pathlib import Path
import trimodal.preprocess.captions, trimodal.download.download, trimodal.preprocess.extract
from trimodal.core.archives import files_and_archives_in
from trimodal.preprocess.captions import prepare_captions
from trimodal.download.download import download
from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.core.storage import storage_path
from trimodal.parallel.executor import map_in_order
storage_path("data/av"), storage_path("file:///data")
machine = load_section(Path("params.yaml"), "machine", MachineConfig)
assert machine.executor == "local"
assert list(map_in_order(machine, abs, [-1, 2])) == [1, 2]
print(*{"ray", "fsspec", "upath", "s3fs", "botocore"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.nightly
@pytest.mark.usefixtures("node")
def test_a_node_without_ffmpeg_is_named(cluster: Any, manifest: Path, tmp_path: Path) -> None:
    other = add_node(cluster, env_vars={"IMAGEIO_FFMPEG_EXE": "/no/such/ffmpeg"})
    try:
        with pytest.raises(ExecutorError, match=r"node \S+ \w{8}: has no working ffmpeg"):
            extracted(manifest, tmp_path / "out", on(cluster))
    finally:
        cluster.remove_node(other)
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.usefixtures("node")
@pytest.mark.nightly
def test_download_and_captions_make_the_same_bytes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = caption_sources(tmp_path / "sources")
    contents_by_machine = []
    for machine in (MACHINE, on(cluster)):
        folder = tmp_path / machine.executor
        folder.mkdir()
        monkeypatch.chdir(folder)  # so that both manifests name the same paths
        download(DEMO_SOURCE, YOUTUBE, DEMO, Path("clips"), Path("world"), machine)
        prepare_captions(sources, Path("captions"), Path("images"), machine)
        contents_by_machine.append(contents(folder))
    local, remote = contents_by_machine
    assert sum(name.endswith(".mp4") for name in local) == 6
    assert sum(name.endswith(".tar") for name in local) >= 2
    assert remote == local


@pytest.mark.nightly
@pytest.mark.usefixtures("node")
def test_shards_are_the_same_as_locally_even_if_a_node_is_killed(
    cluster: Any, manifest: Path, tmp_path: Path, caplog: Any
) -> None:
    """Byte for byte; the other node redoes the killed node's jobs."""
    caplog.set_level("INFO", "trimodal")
    expected = extracted(manifest, tmp_path / "local", MACHINE)
    local_messages = [text for text in caplog.messages if text.startswith("extract: ")]
    caplog.clear()
    out, second = tmp_path / "cluster", add_node(cluster)

    def kill_in_mid_run() -> None:
        while not list(out.glob("*.tar")):
            time.sleep(0.01)
        (raylet,) = second.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_in_mid_run)
    killer.start()
    shards = extracted(manifest, out, on(cluster))
    killer.join()
    assert shards == expected
    assert len(list((out / FOLDER).glob("*.json"))) == len(list(out.glob("*.tar"))) == 13
    messages = [text for text in caplog.messages if text.startswith("extract: ")]
    assert messages == local_messages  # the table of reasons is the same
    again = extracted(manifest, out, MACHINE)
    assert again == expected
    assert any("reused 13 of 13 shards from an earlier run" in t for t in caplog.messages)
