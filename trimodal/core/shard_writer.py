"""Writes WebDataset shards: the same samples give the same bytes, and a file appears when complete.

Apart from :mod:`trimodal.core.shards`, since importing webdataset imports PyTorch.
"""

import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from webdataset import TarWriter

from trimodal.core.files import atomic_path
from trimodal.core.records import check_name
from trimodal.core.shards import Extent


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The members of one key: their suffixes ('01.jpg', 'mel.npy', 'json') and their bytes."""

    key: str
    members: Mapping[str, bytes]


def write_shard(path: Path, samples: Iterable[Sample]) -> dict[str, dict[str, Extent]]:
    """Writes samples to one tar, same input same bytes, and returns key -> suffix -> extent.

    Members are sorted, times are zero and owners fixed. The file appears under its name only when
    it is complete. Raises ValueError for a key that occurs twice.
    """
    extents: dict[str, dict[str, Extent]] = {}
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        TarWriter(
            file, user="trimodal", group="trimodal", mtime=0, encoder=False, keep_meta=True
        ) as writer,
    ):
        for sample in samples:
            if sample.key in extents:
                raise ValueError(f"{path}: key {sample.key} occurs twice")
            check_name(sample.key, str(path))
            extents[sample.key] = {
                suffix: _write_member(writer, sample.key, suffix, content)
                for suffix, content in sorted(sample.members.items())
            }
    return extents


def _write_member(writer: TarWriter, key: str, suffix: str, content: bytes) -> Extent:
    writer.write({"__key__": key, suffix: content})
    blocks = -(-len(content) // tarfile.BLOCKSIZE)
    end = writer.tarstream.offset
    return Extent(offset=end - blocks * tarfile.BLOCKSIZE, size=len(content))
