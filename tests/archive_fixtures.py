"""Archives to test with: valid and damaged ones."""

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from trimodal.core.archives import ArchiveError, StoredFile, members_of

KINDS = (".zip", ".tar", ".tar.gz", ".tgz")
FILES = {f"{name}.jpg": name.encode() * 999 for name in ("c", "a", "-b", "_d")}
NOISE = {f"{i}.jpg": random.Random(i).randbytes(5000) for i in range(6)}  # noqa: S311


def pack(
    path: Path,
    files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
    *,
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    """An archive of the kind that its name implies, with the files in the given order."""
    pairs = list(files.items() if isinstance(files, Mapping) else files)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in pairs:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz") as tar:
            for name, content in pairs:
                add_file(tar, name, content)
    return path


def add_file(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = b"0") -> None:
    """Adds a member of any tar type; links point to the host's password file."""
    header = tarfile.TarInfo(name)
    header.type, header.size, header.linkname = kind, len(content), "/etc/passwd"
    tar.addfile(header, io.BytesIO(content))


def store(folder: Path, kind: str, files: Mapping[str, bytes]) -> Path:
    """Writes the files to a folder (kind '') or to an archive of a kind in KINDS; returns its
    path.
    """
    if kind:
        return pack(folder / f"pack{kind}", files)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def overwrite(path: Path, before: bytes, after: bytes, *, keep_time: bool = False) -> None:
    """Replaces all occurrences of some bytes in a file and keeps its length."""
    content, state = path.read_bytes(), path.stat()
    assert before in content
    assert len(before) == len(after)
    path.write_bytes(content.replace(before, after))
    if keep_time:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def cut(path: Path, length: int) -> None:
    """Truncates a file to ``length`` bytes (by so many from the end if negative)."""
    path.write_bytes(path.read_bytes()[:length])


def listed(archive: Path) -> tuple[list[StoredFile], str]:
    """The files listed before the archive breaks, and the error message."""
    files: list[StoredFile] = []
    try:
        for file in members_of(archive):
            files.append(file)
    except ArchiveError as error:
        return files, str(error)
    return files, ""


def names(archive: Path) -> list[str]:
    files, problem = listed(archive)
    assert not problem
    return [file.name for file in files]
