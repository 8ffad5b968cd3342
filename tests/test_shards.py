"""Shards: deterministic bytes, readable by any WebDataset reader and through their extents."""

import gc
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import webdataset as wds
from data_fixtures import contents

from trimodal.core.records import DataError
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.core.shards import read_extent, read_extents

SAMPLES = [
    Sample(key="b_000010", members={"mel.npy": b"\x93NUMPY...", "01.jpg": b"first", "json": b"{}"}),
    Sample(key="-a_000000", members={"json": b'{"label": "dog, barking"}', "01.jpg": b"x" * 5000}),
    Sample(key="c", members={"02.jpg": b"", "01.jpg": b"picture"}),
]


def test_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    """Independent of the order of members, of time and of user."""
    write_shard(tmp_path / "one.tar", SAMPLES)
    reordered = [
        Sample(key=sample.key, members=dict(reversed(sample.members.items()))) for sample in SAMPLES
    ]
    write_shard(tmp_path / "two.tar", iter(reordered))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    for owner in (b"root", b"%d" % tmp_path.stat().st_uid):
        assert b"\0" + owner + b"\0" not in (tmp_path / "one.tar").read_bytes()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_them(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard.tar", SAMPLES)
    read = list(wds.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False))
    gc.collect()  # webdataset leaves its file open
    assert [sample["__key__"] for sample in read] == ["b_000010", "-a_000000", "c"]
    for sample, written in zip(read, SAMPLES, strict=True):
        members = {k: v for k, v in sample.items() if not k.startswith("__")}
        assert members == written.members
    assert json.loads(read[1]["json"]) == {"label": "dog, barking"}


def test_members_are_those_of_a_standard_tar(tmp_path: Path) -> None:
    """Names beyond a tar header's 100 characters and all sizes around its blocks included, read by
    the standard library.
    """
    members = {
        f"{size:05d}.bin": bytes([size % 251]) * size for size in (0, 1, 511, 512, 513, 9999)
    }
    samples = [*SAMPLES, Sample(key="k" * 128, members=members)]
    write_shard(tmp_path / "shard.tar", samples)
    with tarfile.open(tmp_path / "shard.tar", "r:") as tar:
        read = {m.name: (m.mtime, m.mode, tar.extractfile(m).read()) for m in tar}  # type: ignore[union-attr]
    assert read == {
        f"{sample.key}.{suffix}": (0, 0o444, content)
        for sample in samples
        for suffix, content in sample.members.items()
    }


def test_extents_point_at_the_exact_bytes(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    long = Sample(key="k" * 128, members={"01.jpg": b"a name that needs an extended header"})
    samples = [*SAMPLES, long, Sample(key="d", members={"jpg": b"x" * 512})]
    extents = write_shard(path, samples)
    assert list(extents) == [sample.key for sample in samples]
    for sample in samples:
        assert extents[sample.key].keys() == sample.members.keys()
        for suffix, content in sample.members.items():
            extent = extents[sample.key][suffix]
            assert extent.size == len(content)
            assert read_extent(path, extent.offset, extent.size) == content


def test_members_are_sorted(tmp_path: Path) -> None:
    extents = write_shard(tmp_path / "shard.tar", SAMPLES)["b_000010"]
    assert sorted(extents, key=lambda suffix: extents[suffix].offset) == [
        "01.jpg", "json", "mel.npy",
    ]  # fmt: skip


def test_key_that_occurs_twice_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shard\.tar: key c occurs twice"):
        write_shard(tmp_path / "shard.tar", [*SAMPLES, SAMPLES[2]])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a/b", "a b", "ä", "x" * 129])
def test_unsafe_keys_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard\.tar"):
        write_shard(tmp_path / "shard.tar", [Sample(key=key, members={"json": b"{}"})])
    assert contents(tmp_path) == {}


def failing_samples() -> Iterator[Sample]:
    yield SAMPLES[0]
    raise RuntimeError("the source broke")


def test_failing_source_keeps_the_previous_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the source broke"):
        write_shard(tmp_path / "new.tar", failing_samples())
    assert contents(tmp_path) == {}
    (tmp_path / "old.tar").write_bytes(b"before")
    with pytest.raises(RuntimeError, match="the source broke"):
        write_shard(tmp_path / "old.tar", failing_samples())
    assert contents(tmp_path) == {"old.tar": b"before"}


def test_shard_without_samples_is_an_empty_tar(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "shard.tar", []) == {}
    assert (tmp_path / "shard.tar").is_file()


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (9, 2), (10, 1), (500, 3)])
def test_reading_beyond_the_end_raises(offset: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "ten.bytes"
    path.write_bytes(b"0123456789")
    assert read_extent(path, 7, 3) == b"789"
    assert read_extents(path, [(7, 3), (0, 1), (10, 0)]) == [b"789", b"0", b""]
    with pytest.raises(OSError, match=r"ten\.bytes"):
        read_extent(path, offset, size)
