"""WebDataset shards with an index: deterministic tar files, written atomically, read by seeking.

Any WebDataset reader can stream them; the index (member offsets in Parquet) lets our loaders read
one frame and three seconds of a clip without touching the rest.
"""

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimodal.core.files import atomic_path
from trimodal.core.records import DataError, check_name

_SHORT_NAME = 100


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The members of one key: their suffixes ('01.jpg', 'mel.npy', 'json') and their bytes."""

    key: str
    members: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Offset and size of a member in its shard, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Index rows of a shard's content; how many items were left out by reason, with an example of
    each; its size in bytes; whether it was reused from an earlier run.
    """

    rows: list[dict[str, Any]]
    left_out: Counter[str]
    examples: dict[str, str]
    bytes: int
    reused: bool = False


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, dict[str, Extent]]:
    """Writes samples to one tar, same input same bytes, and returns key -> suffix -> extent.

    Members are sorted, times are zero and owners fixed. The file appears under its name only when
    it is complete. Raises ValueError for a key that occurs twice.
    """
    extents: dict[str, dict[str, Extent]] = {}
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for sample in samples:
            if sample.key in extents:
                raise ValueError(f"{path}: key {sample.key} occurs twice")
            check_name(sample.key, str(path))
            extents[sample.key] = {
                suffix: _write_member(tar, f"{sample.key}.{suffix}", content)
                for suffix, content in sorted(sample.members.items())
            }
    return extents


def _write_member(tar: tarfile.TarFile, name: str, content: bytes) -> Extent:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o444
    member.uname = member.gname = "trimodal"
    tar.addfile(member, io.BytesIO(content))
    blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return Extent(offset=tar.offset - blocks * tarfile.BLOCKSIZE, size=len(content))


def check_member(path: Path, name: str, extent: Extent, next_name: str = "") -> bytes:
    """Checks that a shard has the member ``name`` where its index says; returns the bytes of the
    member ``next_name`` that follows it, if one is named.

    Raises DataError, naming the shard, if it is missing, damaged or a different one. Costs one or
    two reads of a few hundred bytes.
    """
    try:
        with path.open("rb") as file:
            file.seek(extent.offset - tarfile.BLOCKSIZE)
            header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "replace")
            # A name of over 100 characters is in full in an extra header before this one.
            if header.name != name[:_SHORT_NAME] or header.size != extent.size:
                raise tarfile.ReadError(f"{header.name}, {header.size} bytes, found instead")
            if not next_name:
                return b""
            file.seek(extent.offset + -(-extent.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                member = tar.next()
                if member is None or member.name != next_name:
                    raise tarfile.ReadError(f"no {next_name} after it")
                content = tar.extractfile(member)
                if content is None:
                    raise tarfile.ReadError(f"{next_name} is not a file")
                return content.read()
    except (OSError, ValueError, tarfile.TarError) as error:
        raise DataError(
            f"{path}: not the shard that the index describes: no {name} of {extent.size} bytes at "
            f"{extent.offset}: {error}"
        ) from error


def read_extent(path: Path, offset: int, size: int) -> bytes:
    """Reads ``size`` bytes at ``offset`` of a shard; raises OSError when the shard is shorter."""
    shard = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(shard, size, offset)
    finally:
        os.close(shard)
    if len(content) != size:
        raise OSError(f"{path}: expected {size} bytes at {offset}, the file is shorter")
    return content
