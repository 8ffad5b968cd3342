"""WebDataset shards with an index, read by seeking (written by trimodal.core.shard_writer).

Any WebDataset reader can stream them; the index (member offsets in Parquet) lets our loaders read
one frame and three seconds of a clip without touching the rest.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trimodal.core.records import DataError

_SHORT_NAME = 100


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


@contextmanager
def members_from(path: Path, name: str, extent: Extent) -> Iterator[tarfile.TarFile]:
    """Checks that a shard has the member ``name`` where its index says, and yields the shard opened
    at the member that follows it.

    Raises DataError, naming the shard, if it is missing, damaged or a different one, also for what
    the block finds (OSError, ValueError, tarfile.TarError). Costs one read of a few hundred bytes.
    """
    try:
        with path.open("rb") as file:
            file.seek(extent.offset - tarfile.BLOCKSIZE)
            header = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "replace")
            # A name of over 100 characters is in full in an extra header before this one.
            if header.name != name[:_SHORT_NAME] or header.size != extent.size:
                raise tarfile.ReadError(f"{header.name}, {header.size} bytes, found instead")
            file.seek(extent.offset + -(-extent.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
            with tarfile.open(fileobj=file, mode="r:") as rest:
                yield rest
    except (OSError, ValueError, tarfile.TarError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not the shard that the index describes: no {name} of {extent.size} bytes at "
            f"{extent.offset}: {error}"
        ) from error


def next_member(rest: tarfile.TarFile, name: str) -> IO[bytes]:
    """The content of the next member; raises tarfile.ReadError if it is not called ``name``."""
    member = rest.next()
    if member is None or member.name != name:
        raise tarfile.ReadError(f"no {name} after it")
    content = rest.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{name} is not a file")
    return content


def read_extent(path: Path, offset: int, size: int) -> bytes:
    """Reads ``size`` bytes at ``offset`` of a shard; raises OSError when the shard is shorter."""
    return read_extents(path, [(offset, size)])[0]


def read_extents(path: Path, extents: Iterable[tuple[int, int]]) -> list[bytes]:
    """Reads several (offset, size) of a shard; raises OSError when the shard is shorter."""
    shard = os.open(path, os.O_RDONLY)
    try:
        contents = []
        for offset, size in extents:
            contents.append(os.pread(shard, size, offset))
            if len(contents[-1]) != size:
                raise OSError(f"{path}: expected {size} bytes at {offset}, the file is shorter")
        return contents
    finally:
        os.close(shard)
