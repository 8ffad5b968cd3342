"""WebDataset shards with an index: deterministic tar files that are written whole and read by seek.

Any WebDataset reader can stream them; the index (member offsets in Parquet) lets the loaders here
read one frame and three seconds of a clip without touching the rest.
"""

import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import webdataset as wds

from trimodal.files import atomic_path
from trimodal.records import check_name


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


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, dict[str, Extent]]:
    """Writes samples to one tar, same input same bytes, and returns key -> ending -> extent.

    Members are sorted, times are zero and owners fixed. The file appears under its name when it
    is complete. Raises ValueError for a key that occurs twice.
    """
    seen: set[str] = set()
    with atomic_path(path) as temporary:
        with wds.TarWriter(
            str(temporary), mtime=0, user="trimodal", group="trimodal", encoder=False
        ) as tar:
            for sample in samples:
                if sample.key in seen:
                    raise ValueError(f"{path}: key {sample.key} occurs twice")
                seen.add(check_name(sample.key, str(path)))
                tar.write({"__key__": sample.key, **dict(sorted(sample.members.items()))})
        return _member_extents(temporary)


def _member_extents(path: Path) -> dict[str, dict[str, Extent]]:
    extents: dict[str, dict[str, Extent]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, ending = member.name.split(".", 1)
            extents.setdefault(key, {})[ending] = Extent(
                offset=member.offset_data, size=member.size
            )
    return extents


def read_extent(path: Path, offset: int, size: int) -> bytes:
    """Reads ``size`` bytes at ``offset`` of a shard; raises OSError when the shard is shorter."""
    with path.open("rb", buffering=0) as shard:
        content = os.pread(shard.fileno(), size, offset)
    if len(content) != size:
        raise OSError(f"{path}: wanted {size} bytes at {offset}, the file ends before")
    return content
