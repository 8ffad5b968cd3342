"""WebDataset shards with an index, read by seeking (written by trimodal.core.shard_writer).

Any WebDataset reader can stream them; the index (member offsets in Parquet) lets our loaders read
one frame and three seconds of a clip without touching the rest.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
