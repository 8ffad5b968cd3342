"""Files are written atomically, and fingerprints identify content."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from repository import ROOT

from trimodal.core import files as module
from trimodal.core.files import (
    atomic_path,
    read_table,
    remove_stale_temporary_folders,
    temporary_folder,
    write_json,
    write_table,
    write_text,
)
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


WRITERS = """
import os, stat, tempfile, torch
from pathlib import Path
import pyarrow as pa
from safetensors.torch import save_file
from trimodal.core.files import atomic_path, write_bytes, write_json, write_table, write_text
write_bytes(Path("made/bytes"), b"x")
write_json(Path("made/json"), {})
write_table(Path("made/table"), pa.table({"a": [1]}))
with atomic_path(Path("made/private")) as path:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
with atomic_path(Path("made/open")) as path:
    path.touch(); path.chmod(0o777)
with atomic_path(Path("made/tensors")) as path:
    save_file({"a": torch.zeros(1)}, path)
with atomic_path(Path("made/folder")) as path:
    os.rename(tempfile.mkdtemp(dir="."), path)
    os.close(os.open(path / "inside", os.O_CREAT | os.O_WRONLY, 0o600))
for path in sorted([Path("made"), *Path("made").rglob("*")]):
    print(path.name, oct(stat.S_IMODE(path.stat().st_mode) & 0o666))
"""


@pytest.mark.parametrize(("umask", "mode"), [(0o077, "0o600"), (0o002, "0o664")])
def test_files_and_folders_of_every_writer_have_the_modes_that_the_umask_says(
    umask: int, mode: str, tmp_path: Path
) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", WRITERS], cwd=tmp_path, umask=umask, check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    names = ["made", "bytes", "folder", "inside", "json", "open", "private", "table", "tensors"]
    assert printed.splitlines() == [f"{name} {mode}" for name in names]


def test_a_file_system_without_modes_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with atomic_path(tmp_path / "file", mode=0o600) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole"


# Temporary folders of others

HOLDER = """
import sys, time
from trimodal.core.files import temporary_folder
with temporary_folder() as folder:
    (folder / "work").touch()
    print(folder, flush=True)
    time.sleep(60)
"""
NEW_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*NEW_NAMESPACE, "true"], capture_output=True, timeout=60, check=False)
    return tried.returncode == 0


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, shared with other processes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def holder(temporary: Path, *wrapper: str) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that holds a temporary folder, and the folder."""
    command = [*wrapper, sys.executable, "-c", HOLDER]
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_killed_process_leaves_its_folder_to_the_next_run(temporary: Path) -> None:
    with holder(temporary) as (process, folder):
        remove_stale_temporary_folders()
        assert (folder / "work").exists()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert (folder / "work").exists()
        remove_stale_temporary_folders()
        assert list(temporary.iterdir()) == []


@pytest.mark.skipif(not can_unshare(), reason="no right to make a PID namespace")
def test_a_process_of_another_container_keeps_its_folder(temporary: Path) -> None:
    """Its process number, 1 in its own namespace, is another process's here, or nobody's."""
    with holder(temporary, *NEW_NAMESPACE) as (process, folder):
        remove_stale_temporary_folders()
        assert (folder / "work").exists()
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def test_a_folder_of_another_host_stays(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its lock is not seen here."""
    monkeypatch.setattr(module, "_temporary_prefix", lambda: "trimodal-0123456789ab-")
    with temporary_folder() as folder:
        theirs = shutil.copytree(folder, folder.with_name(f"{folder.name}x"))
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    old_style = temporary / "trimodal-999999-abc"
    old_style.mkdir()
    remove_stale_temporary_folders()
    assert set(temporary.iterdir()) == {theirs, old_style}


def test_a_folder_is_judged_only_once_it_is_locked(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = module.fcntl.flock

    def judged_before(*arguments: object) -> None:
        monkeypatch.setattr(module.fcntl, "flock", lock)
        remove_stale_temporary_folders()
        lock(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.fcntl, "flock", judged_before)
    with temporary_folder() as folder:
        assert folder.exists()
        remove_stale_temporary_folders()
        assert folder.exists()
    assert list(temporary.iterdir()) == []


def test_a_file_system_without_locks_keeps_a_living_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    with temporary_folder() as folder:
        (folder / "work").touch()
        remove_stale_temporary_folders()
        assert (folder / "work").exists()
    assert list(temporary.iterdir()) == []


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
