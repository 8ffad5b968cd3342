"""One interface to files in folders, zips and tars: listed once, then read one at a time.

Nothing is unpacked to disk: a member is only ever looked up by its bare name, so that no path in an
archive can point outside, and is read into memory up to a size limit.
"""

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Self

from trimodal.core.errors import UserError
from trimodal.core.files import temporary_folder
from trimodal.core.machine_errors import is_machine_error, reading, retried
from trimodal.core.records import DataError
from trimodal.core.storage import download, files_in, is_remote

MAX_MEMBER_BYTES = 2**30
_GZIPPED = (".tar.gz", ".tgz")
_ENDINGS = (".zip", ".tar", *_GZIPPED)
_MAX_NAME_BYTES = 2**20
_LONG_NAMES = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
# What the standard library raises for damaged (and encrypted) archives: ValueError for names that
# are not text, RuntimeError for endlessly nested headers.
_ARCHIVE_ERRORS = (
    OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error, tarfile.TarError,
    zipfile.BadZipFile,
)  # fmt: skip


class ArchiveError(UserError, OSError):
    """An archive, or a member of it, cannot be read; the message names both."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """The file ``path``, or the ``member`` of the archive ``path``; ``size`` in bytes. ``offset``
    is where a tar member starts in the (decompressed) tar; zip members are found by name.
    """

    path: Path
    member: str = ""
    offset: int = 0
    size: int = 0

    @classmethod
    def plain(cls, path: Path) -> Self:
        """A file outside any archive, with its current size; 0 if that cannot be read."""
        try:
            return cls(path=path, size=path.stat().st_size)
        except OSError:  # reading the file tells why
            return cls(path=path)

    @property
    def name(self) -> str:
        """The bare file name, without any folder."""
        return PurePosixPath(self.member).name if self.member else self.path.name


def is_archive(path: Path) -> bool:
    """Whether a file name ends like a supported archive: .zip, .tar, .tar.gz, .tgz."""
    return path.name.endswith(_ENDINGS)


def files_and_archives_in(path: Path) -> list[Path]:
    """The archive ``path`` itself, or a folder's files and archives sorted by name, without hidden
    ones. Raises DataError if ``path`` is neither.
    """
    if path.is_dir():
        return sorted(p for p in files_in(path) if not p.name.startswith("."))
    if path.is_file() and is_archive(path):
        return [path]
    raise DataError(f"{path} is neither a folder nor a .zip, .tar, .tar.gz or .tgz")


def members_of(archive: Path) -> Iterator[StoredFile]:
    """The regular files of an archive in storage order; links, folders, hidden files and members
    over 1 GiB are skipped. Raises ArchiveError at the first broken header, UnreadableError if this
    machine cannot read it; members yielded before are valid.
    """
    with reading(archive):
        try:
            listing = _zip_members(archive) if archive.suffix == ".zip" else _tar_members(archive)
            for file in listing:
                if file.member and file.size <= MAX_MEMBER_BYTES and not file.name.startswith("."):
                    yield file
        except _ARCHIVE_ERRORS as error:
            raise ArchiveError(f"{archive}: a broken archive: {error}") from error


def files_by_name(
    folder_or_archive: Path, suffixes: Sequence[str]
) -> tuple[dict[str, StoredFile], list[str]]:
    """All files of a folder (and of the archives in it) or of an archive that have one of the
    suffixes, by bare name, the first of each name; and warnings for the user: broken archives and
    duplicate names. Raises UnreadableError for an archive that this machine cannot read.
    """
    by_name: dict[str, StoredFile] = {}
    warnings: list[str] = []
    duplicates = 0
    for path in files_and_archives_in(folder_or_archive):
        files, problem = retried(partial(_listed, path, tuple(suffixes)))
        for file in files:
            duplicates += by_name.setdefault(file.name, file) is not file
        if problem:
            warnings.append(problem)
    if duplicates:
        warnings.append(f"{folder_or_archive}: ignored {duplicates} files with a duplicate name")
    return by_name, warnings


def _listed(path: Path, suffixes: tuple[str, ...]) -> tuple[list[StoredFile], str]:
    """A file, or an archive's files, with one of the suffixes; and the archive's problem."""
    files: list[StoredFile] = []
    try:
        for file in members_of(path) if is_archive(path) else [StoredFile.plain(path)]:
            if file.name.lower().endswith(suffixes):
                files.append(file)
    except ArchiveError as error:
        return files, str(error)
    return files, ""


def reading_order(file: StoredFile | None) -> tuple[str, int]:
    """Sort key: members of gzipped tars in storage order, since these are read forwards; everything
    else keeps its order.
    """
    if file is None or not file.member or not file.path.name.endswith(_GZIPPED):
        return "", 0
    return file.path.as_posix(), file.offset


def read_file(file: StoredFile) -> bytes:
    """A file's bytes. Raises UnreadableError if it no longer exists or this machine cannot read it,
    ArchiveError for a damaged member.

    Reading members of a ``.tar.gz`` is cheap in storage order only: the stream moves forwards.
    """
    with reading(file.path):
        if not file.member:
            return file.path.read_bytes()
        try:
            content = _read_member(file)
        except (*_ARCHIVE_ERRORS, KeyError) as error:
            if is_machine_error(error):
                _open_gzip.cache_clear()  # a stream is not used again after such an error
                _open_zip.cache_clear()
            raise ArchiveError(f"{file.path}: {file.member}: {error}") from error
    if len(content) != file.size:
        raise ArchiveError(f"{file.path}: {file.member}: the archive ends before")
    return content


def _read_member(file: StoredFile) -> bytes:
    if file.path.suffix == ".zip":
        return _unzip(file)
    if file.path.name.endswith(_GZIPPED):
        stream = _open_gzip(file.path, _state(file.path))
        stream.seek(file.offset)
        return stream.read(file.size)
    with file.path.open("rb") as tar:
        tar.seek(file.offset)
        return tar.read(file.size)


@contextmanager
def as_path(file: StoredFile) -> Iterator[Path]:
    """A path that ffmpeg can open: the file's own, or that of a temporary copy (of an archive
    member or a file on an object store), which is deleted after the block. Raises what
    :func:`read_file` does, UnreadableError also if there is no room for the copy.
    """
    if not file.member and not is_remote(file.path):
        yield file.path
        return
    with ExitStack() as stack:
        with reading(file.path):
            path = stack.enter_context(temporary_folder()) / "member"
            if file.member:
                path.write_bytes(read_file(file))
            else:
                download(file.path, path)
        yield path


def _zip_members(archive: Path) -> Iterator[StoredFile]:
    opened = _open_zip(archive, _state(archive))
    for info in opened.infolist():
        # Of a path that occurs twice the last one counts, as with unzip.
        if opened.NameToInfo.get(info.filename) is info and _is_zipped_file(info):
            yield StoredFile(path=archive, member=info.filename, size=info.file_size)


def _unzip(file: StoredFile) -> bytes:
    opened = _open_zip(file.path, _state(file.path))
    if opened.getinfo(file.member).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError("neither stored nor deflated")
    with opened.open(file.member) as unzipped:
        return unzipped.read(file.size)  # never more, even of a zip bomb


def _is_zipped_file(info: zipfile.ZipInfo) -> bool:
    return not info.filename.endswith("/") and not stat.S_ISLNK(info.external_attr >> 16)


def _tar_members(archive: Path) -> Iterator[StoredFile]:
    kind = "r:gz" if archive.name.endswith(_GZIPPED) else "r:"
    with (
        archive.open("rb") as stored,
        tarfile.open(  # type: ignore[call-overload]
            None, kind, stored, errors="replace", tarinfo=_TarHeader
        ) as tar,
    ):
        for member in tar:
            tar.members = []  # do not accumulate the headers of a million files
            if member.size < 0:
                raise tarfile.ReadError("a size below zero")  # would be read endlessly
            if member.isreg() and not member.issparse():
                yield StoredFile(
                    path=archive, member=member.name, offset=member.offset_data, size=member.size
                )


class _TarHeader(tarfile.TarInfo):
    """Makes a broken header an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_NAMES and not 0 <= header.size <= _MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a name of {header.size} bytes")
        return header


def _state(path: Path) -> tuple[int, ...]:
    """Changes when the file is replaced, so that a cached handle is not used for another file."""
    state = path.stat()
    return state.st_ino, state.st_size, int(state.st_mtime * 1e9)


@lru_cache(maxsize=4)
def _open_zip(path: Path, _version: tuple[int, ...]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path.open("rb") if is_remote(path) else path)


@lru_cache(maxsize=1)
def _open_gzip(path: Path, _version: tuple[int, ...]) -> gzip.GzipFile:
    return gzip.open(path.open("rb") if is_remote(path) else path)
