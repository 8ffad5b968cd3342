"""Files that are whole or not there: write to a temporary name, rename."""

import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trimodal.core.records import DataError, reading_text
from trimodal.core.storage import is_remote, upload


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of ``path`` that takes its place if the block succeeds; a file's
    bytes are on the disk before they have its name. An OSError names ``path``. On an object store
    a file appears when it is whole.
    """
    if is_remote(path):
        with temporary_folder() as folder:
            yield folder / path.name
            upload(folder / path.name, path)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)  # what a killed run may have left
        yield temporary
        if temporary.is_dir():
            remove(path)
        else:
            _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a full disk does not say where
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        remove(temporary)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that a killed run left in a folder."""
    for path in folder.glob(".*.tmp"):
        remove(path)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that lives as long as the block; that of a killed process goes with the next one
    that :func:`remove_temporary_folders_of_the_dead` sees.
    """
    with TemporaryDirectory(prefix=f"trimodal-{os.getpid()}-") as folder:
        yield Path(folder)


def remove_temporary_folders_of_the_dead() -> None:
    """Removes what :func:`temporary_folder` made for processes that are no more."""
    for path in Path(gettempdir()).glob("trimodal-*"):
        owner = re.fullmatch(r"trimodal-(\d+)-\w+", path.name)
        if owner and not _lives(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; neither need be there."""
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


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(
    path: Path,
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    filters: pc.Expression | None = None,
    nullable: Collection[str] = (),
    memory_map: bool = False,
) -> pa.Table:
    """The rows of a Parquet file of exactly this schema; of them, and of its columns, all or those
    asked for. Raises DataError, naming the file, for another table, damage, and values that are
    missing in columns other than ``nullable``.
    """
    try:
        source = io.BytesIO(path.read_bytes()) if is_remote(path) else path
        found = pq.read_schema(source)
        if not found.equals(schema):
            raise DataError(f"{path}: is another table, of {', '.join(found.names)}")
        table = pq.read_table(source, columns=columns, filters=filters, memory_map=memory_map)
        table.validate(full=True)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole Parquet file: {error}") from error
    for name in table.column_names:
        if name not in nullable and any(map(_has_nulls, table[name].chunks)):
            raise DataError(f"{path}: values of {name} are missing")
    return table


def _has_nulls(array: pa.Array) -> bool:
    lists = isinstance(array, pa.ListArray | pa.FixedSizeListArray)
    return bool(array.null_count) or (lists and _has_nulls(array.flatten()))
