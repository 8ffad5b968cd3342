"""Bad archives of clips, each with the expected outcome of the requested clip."""

import gzip
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archive_fixtures import add_file, cut, overwrite, pack

from trimodal.core.records import ClipStatus


@dataclass(frozen=True, kw_only=True)
class BadArchive:
    """An archive whose name ends in ``kind``, made from a clip's file name and bytes; it contains
    that clip or claims to. ``logged``: the log names the archive as broken.
    """

    name: str
    kind: str
    make: Callable[[Path, str, bytes], object]
    status: ClipStatus = "ok"
    reason: str = ""
    logged: bool = False

    def outcome(self) -> str:
        """The expected outcome, as text."""
        logged = "; the log names the archive" if self.logged else ""
        return f"{self.status}{f' ({self.reason})' if self.reason else ''}{logged}"


_FILLER = bytes(range(256)) * 200


def _bytes(content: bytes) -> Callable[[Path, str, bytes], object]:
    return lambda path, _, __: path.write_bytes(content)


def _at(inside: str) -> Callable[[Path, str, bytes], object]:
    """The clip under a path that points outside the folder."""
    return lambda path, name, clip: pack(path, {f"{inside}{name}": clip})


def _cut(path: Path, name: str, clip: bytes) -> None:
    """Truncated in the middle of the clip, which is the first member."""
    pack(path, {name: clip, "z.txt": _FILLER})
    cut(path, 512 + len(clip) // 2)


def _cut_gzip(path: Path, name: str, clip: bytes) -> None:
    pack(path, {name: clip})
    cut(path, path.stat().st_size // 2)


def _broken_header(path: Path, name: str, clip: bytes) -> None:
    """The header before the clip is broken."""
    pack(path, {"first.txt": b"1", "second.txt": b"2", name: clip})
    overwrite(path, b"second.txt", b"broken.txt")


def _link(path: Path, name: str, _: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        add_file(tar, name, kind=tarfile.SYMTYPE)


def _zip_link(path: Path, name: str, _: bytes) -> None:
    link = zipfile.ZipInfo(name)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")


def _wrong_checksum(path: Path, name: str, clip: bytes) -> None:
    pack(path, {name: clip})
    crc = struct.pack("<I", zlib.crc32(clip))
    overwrite(path, crc, bytes([crc[0] ^ 1]) + crc[1:])


def _declares(size: int) -> Callable[[Path, str, bytes], object]:
    """A zip of 16 MB of zeros, in 16 kB, that declares another size."""

    def make(path: Path, name: str, _: bytes) -> None:
        pack(path, {name: bytes(2**24)})
        overwrite(path, struct.pack("<I", 2**24), struct.pack("<I", size))

    return make


def _encrypted(path: Path, name: str, clip: bytes) -> None:
    pack(path, {name: clip})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def _twice(path: Path, name: str, clip: bytes) -> None:
    with (
        zipfile.ZipFile(path, "w") as archive,
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        archive.writestr(name, b"broken")
        archive.writestr(name, clip)


ARCHIVES = [
    BadArchive(name="empty zip", kind=".zip", make=_bytes(b""), status="unavailable", logged=True),
    BadArchive(name="empty tar", kind=".tar", make=_bytes(b""), status="unavailable", logged=True),
    BadArchive(name="HTML called .zip", kind=".zip", make=_bytes(b"<html>404"), logged=True,
               status="unavailable"),
    BadArchive(name="text called .tar.gz", kind=".tar.gz", make=_bytes(b"text\n" * 300),
               logged=True,
               status="unavailable"),
    BadArchive(name="zip called .tar", kind=".tar", logged=True, status="unavailable",
               make=lambda path, name, clip: pack(path.with_suffix(".zip"), {name: clip}).rename(
                   path)),
    BadArchive(name="truncated tar", kind=".tar", make=_cut, status="corrupt", logged=True,
               reason="the archive ends before"),
    BadArchive(name="truncated zip", kind=".zip", make=_cut, status="unavailable", logged=True),
    BadArchive(name="truncated tar.gz", kind=".tar.gz", make=_cut_gzip, status="corrupt",
               logged=True,
               reason="Compressed file ended"),
    BadArchive(name="tar with a broken header before the clip", kind=".tar", make=_broken_header,
               status="unavailable", logged=True),
    BadArchive(name="gzip of noise in a tar.gz", kind=".tgz", logged=True, status="unavailable",
               make=_bytes(gzip.compress(_FILLER))),
    BadArchive(name="zip with a path upwards", kind=".zip", make=_at("../../../../")),
    BadArchive(name="tar with a path upwards", kind=".tar", make=_at("../../../../")),
    BadArchive(name="tar with an absolute path", kind=".tar", make=_at("/tmp/trimodal/")),  # noqa: S108
    BadArchive(name="zip with a path of a drive", kind=".zip", make=_at("C:/clips/")),
    BadArchive(name="zip with unicode and quotes in a path", kind=".zip", make=_at("é '犬' \"/")),
    BadArchive(name="tar with a path of 3,000 characters", kind=".tar", make=_at("long/" * 600)),
    BadArchive(name="tar with a link to a file of the host", kind=".tar", make=_link,
               status="unavailable"),
    BadArchive(name="zip with a link to a file of the host", kind=".zip", make=_zip_link,
               status="unavailable"),
    BadArchive(name="zip bomb that declares 2 GB", kind=".zip", make=_declares(2**31),
               status="unavailable"),
    BadArchive(name="zip bomb that declares 100 bytes", kind=".zip", make=_declares(100),
               status="corrupt",
               reason="Bad CRC-32"),
    BadArchive(name="zip with a wrong checksum", kind=".zip", make=_wrong_checksum,
               status="corrupt", reason="Bad CRC-32"),
    BadArchive(name="encrypted zip", kind=".zip", make=_encrypted, status="corrupt",
               reason="encrypted"),
    BadArchive(name="zip with an unbounded compression method", kind=".zip", status="corrupt",
               reason="neither stored nor deflated",
               make=lambda path, name, clip: pack(path, {name: clip}, method=zipfile.ZIP_LZMA)),
    BadArchive(name="clip twice, the last one counts", kind=".zip",
               make=_twice),
]  # fmt: skip
