"""WebDataset shards with an index: deterministic tar files that are written whole and read by seek.

Any WebDataset reader can stream them; the index (member offsets in Parquet) lets the loaders here
read one frame and three seconds of a clip without touching the rest.
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
    """What belongs under one key: member endings ('01.jpg', 'mel.npy', 'json') and their bytes."""

    key: str
    members: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where a member's bytes lie in its shard."""

    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Index rows of what a shard holds; what it lacks: how many by reason, and an example of each;
    its size; whether an earlier run had made it.
    """

    rows: list[dict[str, Any]]
    left_out: Counter[str]
    examples: dict[str, str]
    bytes: int
    found: bool = False


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, dict[str, Extent]]:
    """Writes samples to one tar, same input same bytes, and returns key -> ending -> extent.

    Members are sorted, times are zero and owners fixed. The file appears under its name when it
    is complete. Raises ValueError for a key that occurs twice.
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
                ending: _write_member(tar, f"{sample.key}.{ending}", content)
                for ending, content in sorted(sample.members.items())
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


def check_member(path: Path, name: str, extent: Extent, then: str = "") -> bytes:
    """Looks whether a shard has the member ``name`` where its index says; returns the bytes of the
    member ``then`` behind it, if there is to be one.

    Raises DataError, naming the shard, if it is missing, damaged or another one. Costs one or two
    reads of a few hundred bytes.
    """
    try:
        with path.open("rb") as file:
            file.seek(extent.offset - tarfile.BLOCKSIZE)
            header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "replace")
            # A name of over 100 letters stands in full in a header of its own before.
            if header.name != name[:_SHORT_NAME] or header.size != extent.size:
                raise tarfile.ReadError(f"{header.name}, {header.size} bytes, is there instead")
            if not then:
                return b""
            file.seek(extent.offset + -(-extent.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                behind = tar.next()
                content = tar.extractfile(behind) if behind and behind.name == then else None
                if content is None:
                    raise tarfile.ReadError(f"no {then} behind it")
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
        raise OSError(f"{path}: wanted {size} bytes at {offset}, the file ends before")
    return content
