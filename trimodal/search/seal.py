"""Checksums of a store's files, so that damage is found: LanceDB keeps none, and takes the version
before a lost or damaged manifest for the newest.

A run that changes the store removes the list of checksums first and writes it last.
"""

import zlib
from pathlib import Path

from trimodal.core.files import read_json, write_json
from trimodal.core.records import DataError

_NAME = "checksums.json"
_QUICK_BYTES = 256 * 2**20  # read whenever a store is opened
_PART_BYTES = 2**20


def write_seal(store: Path) -> None:
    """Lists the store's files with their sizes and checksums."""
    write_json(store / _NAME, {
        name: [path.stat().st_size, checksum(path)] for name, path in _files(store).items()
    })  # fmt: skip


def remove_seal(store: Path) -> None:
    """Removes the list: the files are about to change."""
    (store / _NAME).unlink(missing_ok=True)


def broken_file(store: Path, *, every_byte: bool) -> str:
    """The first file that is missing or not as it was listed; empty if there is none, or no list.
    All sizes are compared, and the content of all files or, unless ``every_byte``, of the smallest
    ones up to 256 MiB together.
    """
    try:
        listed = _read(store)
        broken = _first_broken(store, listed, every_byte=every_byte)
        # The list is removed before the files are changed.
        return broken if broken and _read(store) == listed else ""
    except DataError:
        return _NAME


def _files(store: Path) -> dict[str, Path]:
    folders = (*store.glob("*.lance"), *store.glob("graph-*"))
    paths = (path for folder in folders for path in folder.rglob("*"))
    return {path.relative_to(store).as_posix(): path for path in sorted(paths) if path.is_file()}


def _read(store: Path) -> dict[str, list[int]]:
    try:
        listed = read_json(store / _NAME)
    except FileNotFoundError:
        return {}
    rows = listed.values() if isinstance(listed, dict) else [None]
    if not all(isinstance(row, list) and list(map(type, row)) == [int, int] for row in rows):
        raise DataError(f"{store / _NAME}: not a list of checksums")
    content: dict[str, list[int]] = listed
    return content


def _first_broken(store: Path, listed: dict[str, list[int]], *, every_byte: bool) -> str:
    read_bytes, files = 0, _files(store)
    for name, (size, crc) in sorted(listed.items(), key=lambda item: item[1][0]):
        path = files.get(name)
        try:
            if path is None or path.stat().st_size != size:
                return name
            read_bytes += size
            if (every_byte or read_bytes <= _QUICK_BYTES) and checksum(path) != crc:
                return name
        except FileNotFoundError:
            return name
    return ""


def checksum(path: Path) -> int:
    """A file's CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            crc = zlib.crc32(part, crc)
    return crc
