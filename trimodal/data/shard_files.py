"""Shards as the files that their index describes: on this machine, or at URLs by way of a cache."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from trimodal.core.files import atomic_path, read_table
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine import ShardCacheConfig
from trimodal.core.records import DataError, check_file_name
from trimodal.core.schemas import IMAGE_SCHEMA
from trimodal.core.shards import read_extents
from trimodal.core.storage import download, is_remote, is_store_error, storage_path

ReadShard = Callable[[Path, Iterable[tuple[int, int]]], list[bytes]]
_GB = 10**9
_WAITS_SECONDS = (1.0, 4.0)  # before another try, beyond those of the store's library


def open_shards(
    shards: Mapping[Path, str],
    cache: ShardCacheConfig,
    *,
    local_rank: int = 0,
    local_size: int = 1,
) -> ReadShard:
    """What reads ``(offset, size)`` extents of these shards, given their fingerprints: directly
    from local files, which are all hashed first, or through a :class:`ShardCache`, which hashes
    each as it is fetched. Of ``local_size`` processes of a machine that call this, each hashes its
    share. Raises DataError, naming the file, if one is missing or another.
    """
    own = list(shards)[local_rank::local_size]
    threads = max(1, (os.cpu_count() or 1) // local_size)
    if any(is_remote(path) for path in shards):
        fetched = ShardCache(cache, {str(path): expected for path, expected in shards.items()})
        fetched.remove_damaged((str(path) for path in own), threads)
        return fetched.read
    check_fingerprints({path: shards[path] for path in own}, threads)
    return read_extents


def shard_fingerprints(folder: Path, rows: pa.Table) -> dict[Path, str]:
    """The shards in ``folder`` that an index's rows name, and the fingerprints of their content."""
    names, fingerprints = (rows[name].to_pylist() for name in ("shard", "shard_fingerprint"))
    named = dict(zip(names, fingerprints, strict=True))
    for name in named:
        check_file_name(name, str(folder / "index.parquet"))
    return {folder / name: fingerprint for name, fingerprint in named.items()}


def image_fingerprints(images_dir: Path) -> dict[Path, str]:
    """The shards of all splits of images, and the fingerprints of their content."""
    rows = read_table(
        images_dir / "index.parquet", IMAGE_SCHEMA, columns=["shard", "shard_fingerprint"]
    )
    return shard_fingerprints(images_dir, rows)


def check_fingerprints(shards: Mapping[Path, str], threads: int) -> None:
    """Hashes files in some threads; raises DataError for the first that has another fingerprint or
    is missing. Reads every byte: about 1 s per GB and core from a local disk.
    """
    with ThreadPoolExecutor(threads) as pool:
        for path, expected, found in zip(
            shards, shards.values(), pool.map(_fingerprint, shards), strict=True
        ):
            check_fingerprint(path, expected, found)


def check_fingerprint(path: Path, expected: str, found: str) -> None:
    """Raises DataError if a shard's content is not the one that its index was made for."""
    if found != expected:
        state = f"its fingerprint is {found}, not {expected}" if found else "it is missing"
        raise DataError(
            f"{path}: not the file that index.parquet describes: {state}; delete it and run "
            "dvc repro, which makes it again"
        )


def _fingerprint(path: Path) -> str:
    try:
        return file_fingerprint(path)
    except FileNotFoundError:
        return ""


class ShardCache:
    """Shards at URLs, fetched whole when first read and kept in a local folder of bounded size,
    least recently used first to go. Several processes may share the folder: a shard is fetched by
    one of them while the others wait; those that fetch different shards at the same moment may
    exceed the size by these.
    """

    def __init__(self, config: ShardCacheConfig, fingerprints: Mapping[str, str]) -> None:
        """``fingerprints`` has the fingerprint of each shard's content by URL."""
        self._folder = Path(config.folder)
        self._max_bytes = round(config.max_gb * _GB)
        self._fingerprints = fingerprints

    def remove_damaged(self, urls: Iterable[str], threads: int) -> None:
        """Hashes, in some threads, what an earlier run has fetched of these shards; removes those
        that have another fingerprint, so that they are fetched again.
        """
        kept = [local for url in urls if (local := self._local(url)).exists()]
        with ThreadPoolExecutor(threads) as pool:
            for local, found in zip(kept, pool.map(_fingerprint, kept), strict=True):
                if found != local.stem:
                    local.unlink(missing_ok=True)

    def _local(self, url: str) -> Path:
        return self._folder / f"{self._fingerprints[url]}.tar"

    def read(self, shard: Path, extents: Iterable[tuple[int, int]]) -> list[bytes]:
        """Reads ``(offset, size)`` extents of the shard at a URL. Raises DataError if it cannot be
        fetched, has another fingerprint or is larger than the cache.
        """
        url, wanted = str(shard), list(extents)
        local = self._local(url)
        while True:
            try:
                contents = read_extents(local, wanted)
                os.utime(local)  # recently used
                return contents
            except FileNotFoundError:  # not fetched, or removed by a process that needed the room
                self._fetch(url, local)

    def _fetch(self, url: str, local: Path) -> None:
        """Fetches a shard unless another process has done so meanwhile."""
        locks = self._folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{local.stem}.lock"):
            if local.exists():
                return
            for wait_seconds in (*_WAITS_SECONDS, None):
                try:
                    self._fetch_once(url, local, locks)
                except Exception as error:
                    if not (isinstance(error, OSError) or is_store_error(error)):
                        raise
                    if wait_seconds is None:
                        raise DataError(f"{url}: cannot be fetched: {error!r}") from error
                    time.sleep(wait_seconds)
                else:
                    return

    def _fetch_once(self, url: str, local: Path, locks: Path) -> None:
        remote = storage_path(url)  # of this process: a store's connections do not survive a fork
        self._make_room(remote.stat().st_size, url, locks)
        with atomic_path(local) as temporary:
            download(remote, temporary)
            check_fingerprint(remote, self._fingerprints[url], file_fingerprint(temporary))

    def _make_room(self, size: int, url: str, locks: Path) -> None:
        """Removes the least recently used shards until ``size`` more bytes fit."""
        if size > self._max_bytes:
            raise DataError(
                f"{url}: {size / _GB:.3f} GB do not fit into machine.shard_cache.max_gb, "
                f"{self._max_bytes / _GB:g}"
            )
        with FileLock(locks / "room.lock"):
            states = [(path, path.stat()) for path in self._folder.glob("*.tar")]
            states.sort(key=lambda pair: pair[1].st_mtime_ns)
            excess = sum(state.st_size for _, state in states) + size - self._max_bytes
            for path, state in states:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= state.st_size
