"""Atomic file writes: write to a temporary name, then rename."""

import errno
import fcntl
import hashlib
import io
import json
import mmap
import os
import platform
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trimodal.core.machine_errors import is_machine_error
from trimodal.core.records import DataError, reading_text
from trimodal.core.storage import is_remote, upload

_UMASK = os.umask(0o077)  # asking for it means setting it, which only the start may do
os.umask(_UMASK)
_LOCK_FILE = ".lock"  # in a temporary folder, held as long as its process lives


@contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yields a temporary path next to ``path`` that replaces it if the block succeeds; a file is
    flushed to disk before it is renamed. Files get ``mode`` (by default the umask's),
    whatever the block's writer gave them (tempfile's and safetensors' are 0600), folders the
    umask's. An OSError names ``path``. On an
    object store a file appears only when it is complete.
    """
    if is_remote(path):
        with temporary_folder() as folder:
            yield folder / path.name
            upload(folder / path.name, path)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)  # left by a killed run
        yield temporary
        _set_modes(temporary, 0o666 & ~_UMASK if mode is None else mode)
        if temporary.is_dir():
            remove(path)
        else:
            _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        if (
            error.filename is None and error.errno is not None
        ):  # the error of a full disk has no path
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        remove(temporary)


def check_writable(path: Path) -> None:
    """Raises OSError, naming the path, if a file cannot be written there; makes its folder. For
    results of long work, before it begins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    probe = path.with_name(f".{path.name}.probe.tmp")
    probe.touch()
    probe.unlink()


def _set_modes(path: Path, mode: int) -> None:
    """Sets who may read and write a file, or a folder and all in it."""
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        wanted = 0o777 & ~_UMASK if each.is_dir() else mode
        if not each.is_symlink() and (each.stat().st_mode ^ wanted) & 0o666:
            with suppress(PermissionError):  # a file system without modes, as FAT
                each.chmod(wanted)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that a killed run left in a folder."""
    for path in folder.glob(".*.tmp"):
        remove(path)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder, deleted after the block; after a killed process it is deleted by the next
    call of :func:`remove_stale_temporary_folders` on this machine.

    A lock on a file in it shows that its process lives, also to other containers, whose process
    numbers mean nothing here. It gets its name when the lock is held; where the file system has no
    locks, it gets none that another process would judge.
    """
    created = Path(mkdtemp(prefix=".trimodal-"))
    folder = created
    try:
        with (created / _LOCK_FILE).open("w") as lock:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
                judged = _temporary_prefix() + created.name.rpartition("-")[2]
                folder = created.rename(created.with_name(judged))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_temporary_folders() -> None:
    """Removes the temporary folders of processes that no longer run, where this can be known:
    folders of this kernel whose lock nobody holds. Another host's locks may not be seen here, so
    its folders stay.
    """
    for path in Path(gettempdir()).glob(f"{_temporary_prefix()}*"):
        with suppress(OSError), (path / _LOCK_FILE).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)


@cache
def _temporary_prefix() -> str:
    """``trimodal-<running kernel>-``: containers of one machine share it, two machines do not."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    kernel = boot.read_text() if boot.exists() else f"{platform.node()} {uuid.getnode()}"
    return f"trimodal-{hashlib.sha256(kernel.encode()).hexdigest()[:12]}-"


def remove(path: Path) -> None:
    """Removes a file, or a folder and its contents; it need not exist."""
    if is_remote(path):
        remote = cast(Any, path)
        if remote.fs.exists(remote.path):
            remote.fs.rm(remote.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; raises ValueError for a number that is not finite."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's content; raises DataError, naming the file, for anything else."""
    with reading_text(path):
        text = path.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error


# The key in a Parquet file's footer under which stands the SHA-256 of the whole file, the digest
# itself taken as zeros. The pages' own checksums leave out their headers and the footer.
_DIGEST = "sha256"
_NO_DIGEST = "0" * 64


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Writes a Parquet file atomically, part by part, with checksums that :func:`read_table`
    compares.
    """
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", write_page_checksum=True
        ) as writer:
            yield writer
            writer.add_key_value_metadata({_DIGEST: _NO_DIGEST})
        with temporary.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            start, digest = _digest(content, _NO_DIGEST.encode())
            content[start : start + len(digest)] = digest


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically, with checksums that :func:`read_table` compares."""
    with table_writer(path, table.schema) as writer:
        writer.write_table(table)


def _digest(content: bytes | mmap.mmap, stored: bytes) -> tuple[int, bytes]:
    """Where the digest ``stored`` is in a Parquet file, and what it should be."""
    start = content.rfind(stored)
    digest = hashlib.sha256(memoryview(content)[:start])
    digest.update(_NO_DIGEST.encode())
    digest.update(memoryview(content)[start + len(stored) :])
    return start, digest.hexdigest().encode()


_MAKE_AGAIN = "delete it and run dvc repro, which makes it again"


def read_table(
    path: Path,
    schema: pa.Schema | None = None,
    *,
    columns: Sequence[str] | None = None,
    filters: pc.Expression | None = None,
    nullable: Collection[str] = (),
    memory_map: bool = False,
) -> pa.Table:
    """Reads a Parquet file that has exactly this schema, if one is given: all rows and columns, or
    those selected by ``filters`` and ``columns``. Hashes the file first, about 1 s per GB. Raises
    DataError, naming the file, for another schema, a damaged file, and missing values in columns
    other than ``nullable``.
    """
    try:
        source = io.BytesIO(path.read_bytes()) if is_remote(path) else path
        footer = pq.read_metadata(source)
        _check_digest(path, source, (footer.metadata or {}).get(_DIGEST.encode()))
        stored = footer.schema.to_arrow_schema()
        if schema is not None and not stored.equals(schema):
            missing = [name for name in schema.names if name not in stored.names]
            lacks = f", without {', '.join(missing)}" if missing else ""
            raise DataError(
                f"{path}: a different table{lacks}, with columns {', '.join(stored.names)}; if an "
                "earlier version wrote it, run its stage again"
            )
        table = pq.read_table(
            source, columns=columns, filters=filters, memory_map=memory_map,
            page_checksum_verification=True,
        )  # fmt: skip
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if is_machine_error(error):
            raise
        raise DataError(f"{path}: not a complete Parquet file: {error}; {_MAKE_AGAIN}") from error
    for name in table.column_names:
        if name not in nullable and any(map(_has_nulls, table[name].chunks)):
            raise DataError(f"{path}: values of {name} are missing")
    return table


def _check_digest(path: Path, source: Path | io.BytesIO, stored: bytes | None) -> None:
    """Raises DataError if a file is not as it was written. Those of other programs have no digest;
    one whose key is damaged has what it had.
    """
    if stored is None:
        return
    if isinstance(source, io.BytesIO):
        _, digest = _digest(source.getvalue(), stored)
    else:
        with (
            source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            _, digest = _digest(content, stored)
    if digest != stored:
        raise DataError(f"{path}: damaged: it is not as it was written; {_MAKE_AGAIN}")


def _has_nulls(array: pa.Array) -> bool:
    lists = isinstance(array, pa.ListArray | pa.FixedSizeListArray)
    return bool(array.null_count) or (lists and _has_nulls(array.flatten()))
