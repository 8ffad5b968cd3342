"""Shards at URLs: training and evaluation read them by way of a cache, from an S3 server on
loopback.
"""

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from configs import MACHINE
from s3_server import new_bucket, put, s3_server
from trainer_fixtures import model_files, run_training
from training_fixtures import TinyData

from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import MachineConfig, ShardCacheConfig
from trimodal.core.records import DataError
from trimodal.core.storage import storage_path
from trimodal.data import shard_files
from trimodal.data.shard_files import ShardCache, open_shards

pytest.importorskip("s3fs")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SIZE = 1000


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing; without waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard_files, "_WAITS_SECONDS", (0.0, 0.0))


class Shards:
    """Shards of 1000 bytes, each of one letter, on a store; counts how often each is fetched."""

    def __init__(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fetched: list[str] = []
        self.failures: list[Exception] = []
        (local := tmp_path / "local").mkdir()
        for letter in "abcd":
            (local / f"{letter}.tar").write_bytes(letter.encode() * SIZE)
        put(local, url)
        self.url = url
        self.fingerprints = {
            f"{url}/{path.name}": file_fingerprint(path) for path in local.iterdir()
        }
        download = shard_files.download

        def counted(remote: Path, target: Path) -> None:
            self.fetched.append(remote.stem)
            if self.failures:
                raise self.failures.pop()
            download(remote, target)

        monkeypatch.setattr(shard_files, "download", counted)

    def cache(self, max_gb: float = 1.0, folder: str = "cache") -> ShardCache:
        return ShardCache(ShardCacheConfig(folder=folder, max_gb=max_gb), self.fingerprints)

    def path(self, letter: str) -> Path:
        return storage_path(f"{self.url}/{letter}.tar")


@pytest.fixture
def shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Shards:
    request.getfixturevalue("server")
    return Shards(new_bucket(request.node.name), tmp_path, monkeypatch)


def cached(folder: str = "cache") -> list[str]:
    return sorted(path.read_bytes()[:1].decode() for path in Path(folder).glob("*.tar"))


def test_a_shard_is_fetched_once_and_read_by_its_extents(shards: Shards) -> None:
    cache = shards.cache()
    assert cache.read(shards.path("a"), [(0, 3), (SIZE - 1, 1)]) == [b"aaa", b"a"]
    assert cache.read(shards.path("a"), [(5, 0)]) == [b""]
    assert shards.cache().read(shards.path("a"), [(1, 2)]) == [b"aa"]  # a later run
    assert shards.fetched == ["a"]


def test_the_least_recently_used_shards_make_room(shards: Shards) -> None:
    cache = shards.cache(max_gb=2.5 * SIZE / 10**9)
    for letter in "abac":
        cache.read(shards.path(letter), [(0, 1)])
    assert cached() == ["a", "c"]
    cache.read(shards.path("b"), [(0, 1)])
    assert cached() == ["b", "c"]
    assert shards.fetched == ["a", "b", "c", "b"]


def test_several_readers_fetch_a_shard_once(shards: Shards) -> None:
    with ThreadPoolExecutor(8) as pool:
        caches = [shards.cache() for _ in range(8)]
        paths = [shards.path("abcd"[k % 4]) for k in range(8)]
        contents = list(pool.map(lambda c, p: c.read(p, [(0, 1)])[0], caches, paths))
    assert contents == [b"a", b"b", b"c", b"d"] * 2
    assert sorted(shards.fetched) == ["a", "b", "c", "d"]


def test_a_shard_removed_by_another_process_is_fetched_again(shards: Shards) -> None:
    cache = shards.cache()
    cache.read(shards.path("a"), [(0, 1)])
    for path in Path("cache").glob("*.tar"):
        path.unlink()
    assert cache.read(shards.path("a"), [(0, 1)]) == [b"a"]
    assert shards.fetched == ["a", "a"]


def test_a_server_that_fails_now_and_then_is_asked_again(shards: Shards) -> None:
    shards.failures = [ConnectionResetError("reset"), OSError(errno.EIO, "slow down")]
    assert shards.cache().read(shards.path("a"), [(0, 1)]) == [b"a"]
    assert shards.fetched == ["a"] * 3


def test_a_server_that_keeps_failing_is_named(shards: Shards) -> None:
    shards.failures = [ConnectionResetError("reset by peer") for _ in range(9)]
    with pytest.raises(DataError, match=r"s3://.*/a\.tar: cannot be fetched: .*reset by peer"):
        shards.cache().read(shards.path("a"), [(0, 1)])
    assert shards.fetched == ["a"] * 3
    assert cached() == []


def test_a_shard_with_another_content_is_refused(shards: Shards) -> None:
    shards.path("a").write_bytes(b"b" * SIZE)
    with pytest.raises(DataError, match=r"/a\.tar: not the file that index\.parquet describes"):
        shards.cache().read(shards.path("a"), [(0, 1)])
    assert cached() == []


def test_a_missing_shard_is_named(shards: Shards) -> None:
    path = shards.path("a")
    path.unlink()
    with pytest.raises(DataError, match=r"/a\.tar: cannot be fetched: FileNotFoundError"):
        shards.cache().read(path, [(0, 1)])


def test_a_shard_that_does_not_fit_names_the_parameter(shards: Shards) -> None:
    with pytest.raises(DataError, match=r"machine\.shard_cache\.max_gb, 5e-07"):
        shards.cache(max_gb=5e-7).read(shards.path("a"), [(0, 1)])


def test_local_shards_are_read_where_they_are(tmp_path: Path) -> None:
    (path := tmp_path / "a.tar").write_bytes(b"abc")
    read = open_shards({path: file_fingerprint(path)}, MACHINE.shard_cache)
    assert read(path, [(1, 2)]) == [b"bc"]
    expected = {path: file_fingerprint(path)}
    path.write_bytes(b"abd")
    with pytest.raises(DataError, match=r"a\.tar: not the file .*: its fingerprint is"):
        open_shards(expected, MACHINE.shard_cache)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.tar: not the file .*: it is missing; delete it"):
        open_shards(expected, MACHINE.shard_cache)


def test_a_shard_damaged_in_the_cache_is_fetched_again(shards: Shards) -> None:
    """By the next stage, which hashes what an earlier one has fetched."""
    config = replace(MACHINE.shard_cache, folder="cache", max_gb=1.0)
    expected = {storage_path(url): known for url, known in shards.fingerprints.items()}
    for path in (shards.path("a"), shards.path("b")):
        open_shards(expected, config)(path, [(0, 1)])
    kept = Path("cache") / f"{shards.fingerprints[str(shards.path('a'))]}.tar"
    kept.write_bytes(b"b" + kept.read_bytes()[1:])
    shards.fetched.clear()
    read = open_shards(expected, config)
    assert read(shards.path("a"), [(0, 1)]) == [b"a"]
    assert read(shards.path("b"), [(0, 1)]) == [b"b"]
    assert shards.fetched == ["a"]


def on_store(data: TinyData, bucket: str) -> TinyData:
    """The tiny data with its clips and images at URLs."""
    for name in ("av_dir", "images_dir"):
        folder = getattr(data, name)
        put_files(folder, f"{bucket}/{folder.name}")
    urls = {n: storage_path(f"{bucket}/{getattr(data, n).name}") for n in ("av_dir", "images_dir")}
    return replace(data, **urls)


def put_files(folder: Path, url: str) -> None:
    for path in folder.glob("*.*"):
        (storage_path(url) / path.name).write_bytes(path.read_bytes())


def caching(folder: str = "cache", max_gb: float = 1.0, **changes: Any) -> MachineConfig:
    cache = ShardCacheConfig(folder=folder, max_gb=max_gb)
    return replace(MACHINE, shard_cache=cache, **changes)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_training_from_urls_gives_the_bytes_of_training_from_a_folder(
    reader: str, tiny_data: TinyData, tmp_path: Path
) -> None:
    """With a loader process of its own; streaming through a cache of half the shards, too."""
    remote = on_store(tiny_data, new_bucket(f"training-{reader}"))
    local = run_training(tiny_data, tmp_path / "local", reader=reader)
    streamed = run_training(
        remote, tmp_path / "urls", machine=caching(loader_workers=1), reader=reader
    )
    assert model_files(streamed) == model_files(local)
    total = sum(path.stat().st_size for path in Path("cache").glob("*.tar"))
    again = run_training(
        remote, tmp_path / "small", machine=caching("half", total / 2 / 10**9), reader=reader
    )
    assert model_files(again) == model_files(local)
    assert sum(path.stat().st_size for path in Path("half").glob("*.tar")) <= total / 2
