"""Files are written atomically, and fingerprints identify content."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimodal.core.files import atomic_path, read_table, write_json, write_table, write_text
from trimodal.core.fingerprint import file_fingerprint, fingerprint, sha256_of
from trimodal.core.records import DataError


class Halfway(Exception):  # noqa: N818 - an interruption, not an error
    """Any exception in the middle of writing."""


def test_file_appears_under_its_name_with_its_folders(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_interrupted_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise Halfway

    with pytest.raises(Halfway):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_interrupted_folder_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / "file").write_text("half")
            raise Halfway

    with pytest.raises(Halfway):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_interrupted_before_the_first_byte_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Halfway), atomic_path(tmp_path / "file"):
        raise Halfway
    assert list(tmp_path.iterdir()) == []


def test_folder_replaces_an_older_one(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "two"]


def test_leftovers_of_a_killed_run_are_replaced(tmp_path: Path) -> None:
    with pytest.raises(Halfway), atomic_path(tmp_path / "folder") as temporary:
        raise Halfway
    temporary.mkdir()
    (temporary / "half").write_text("of a run that was killed")
    with atomic_path(tmp_path / "folder") as again:
        again.mkdir()
        (again / "whole").write_text("whole")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_numbers_that_are_not_finite_and_keeps_the_old_file(
    number: float, tmp_path: Path
) -> None:
    target = tmp_path / "metrics.json"
    write_json(target, {"R@1": 5.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"R@1": [number]})
    assert json.loads(target.read_text()) == {"R@1": 5.0}
    assert list(tmp_path.iterdir()) == [target]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "± é\n")
    assert (tmp_path / "text").read_bytes() == "± é\n".encode()


def test_table_has_the_same_bytes_twice(tmp_path: Path) -> None:
    table = pa.table({"word": ["a", "b"], "n": [1, 2]})
    write_table(tmp_path / "one.parquet", table)
    write_table(tmp_path / "two.parquet", table)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert pq.read_table(tmp_path / "one.parquet").equals(table)


def test_sha_depends_on_the_boundaries_of_its_parts() -> None:
    assert sha256_of(b"ab", b"c") != sha256_of(b"a", b"bc") != sha256_of(b"abc")


def test_fingerprints_stay_what_they_are(tmp_path: Path) -> None:
    """They are stored in shards and checkpoints: another value would invalidate all of them."""
    (tmp_path / "file").write_bytes(b"trimodal")
    assert fingerprint({"b": [1, 2.5], "a": None}) == "3dd6756f3a9fce42"
    assert file_fingerprint(tmp_path / "file") == "916f9023981ab656"


def test_fingerprint_ignores_key_order_and_sees_values() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_file_fingerprint_sees_one_byte(tmp_path: Path) -> None:
    for name, content in (("one", b"ab"), ("same", b"ab"), ("other", b"ac")):
        (tmp_path / name).write_bytes(content)
    one, same, other = (file_fingerprint(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other


def test_pages_have_checksums_for_other_programs(tmp_path: Path) -> None:
    """They are all that is compared where the digest of the whole file is missing."""
    numbers = np.random.default_rng(0).integers(0, 2**62, 1000)
    write_table(path := tmp_path / "a.parquet", pa.table({"a": numbers}))
    content = bytearray(path.read_bytes().replace(b"sha256", b"sha257"))
    path.write_bytes(content)
    assert read_table(path)["a"].to_pylist() == numbers.tolist()
    content[content.index(numbers[500].tobytes()) + 4] ^= 1
    path.write_bytes(content)
    assert pq.read_table(path)["a"].to_pylist() != numbers.tolist()
    with pytest.raises(DataError, match=r"a\.parquet: .*CRC"):
        read_table(path)
