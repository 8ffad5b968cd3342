"""Damaged and malicious archives raise an error that names them, and do no harm."""

import gzip
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from archive_fixtures import (
    FILES,
    KINDS,
    NOISE,
    cut,
    listed,
    names,
    overwrite,
    pack,
    store,
)

from trimodal.core import archives as module
from trimodal.core.archives import ArchiveError, StoredFile, files_by_name, members_of
from trimodal.core.archives import read_file as read
from trimodal.core.machine_errors import UnreadableError

# Limits


@pytest.mark.parametrize("kind", KINDS)
def test_member_over_the_size_limit_is_skipped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 1000)
    archive = pack(
        tmp_path / f"a{kind}", {"small": b"s", "large": bytes(1001), "limit": bytes(1000)}
    )
    assert names(archive) == ["small", "limit"]
    assert module.MAX_MEMBER_BYTES == 1000


def test_bomb_that_declares_its_size_is_skipped(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.jpg": b"a"})
    bomb = pack(tmp_path / "bomb.zip", {"bomb.jpg": bytes(2**20)})
    overwrite(bomb, struct.pack("<I", 2**20), struct.pack("<I", 2**30 + 1))
    assert names(archive) == ["a.jpg"]
    assert names(bomb) == []


def test_bomb_that_hides_its_size_is_not_unzipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = pack(tmp_path / "bomb.zip", {"bomb.jpg": bytes(2**24)})
    overwrite(bomb, struct.pack("<I", 2**24), struct.pack("<I", 100))
    (file,) = members_of(bomb)
    assert file.size == 100
    unzipped = []
    real = zipfile._get_decompressor  # type: ignore[attr-defined]

    class Counting:
        def __init__(self, kind: int) -> None:
            self.real = real(kind)

        def decompress(self, *arguments: object) -> bytes:
            unzipped.append(len(content := self.real.decompress(*arguments)))
            return content

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    monkeypatch.setattr(zipfile, "_get_decompressor", Counting)
    with pytest.raises(ArchiveError, match=r"bomb\.zip: bomb\.jpg: "):
        read(file)
    assert 100 <= sum(unzipped) <= 2**16


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded_are_refused(method: int, tmp_path: Path) -> None:
    (file,) = members_of(pack(tmp_path / "a.zip", {"a.jpg": bytes(2**20)}, method=method))
    with pytest.raises(ArchiveError, match=r"a\.zip: a\.jpg: neither stored nor deflated"):
        read(file)


def forge(path: Path, kind: bytes, size: int, name: bytes = b"b.jpg") -> Path:
    """A tar: a.jpg, then a header of a kind that claims a size (which may be negative)."""
    pack(path, {"a.jpg": b"a"})
    header = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    header[156:157] = kind
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    content = path.read_bytes()[:1024] + bytes(header) + bytes(4096)
    path.write_bytes(gzip.compress(content) if path.suffix == ".tgz" else content)
    return path


@pytest.mark.parametrize("size", [-512, -1024, -1])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_negative_size_does_not_loop_endlessly(size: int, kind: bytes, tmp_path: Path) -> None:
    files, problem = listed(forge(tmp_path / "a.tar", kind, size))
    assert [file.name for file in files] == ["a.jpg"]
    assert problem.startswith(f"{tmp_path / 'a.tar'}: a broken archive: ")


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE],
)
def test_endless_name_is_not_read_into_memory(kind: bytes, tmp_path: Path) -> None:
    files, problem = listed(forge(tmp_path / "a.tar", kind, 2**21))
    assert [file.name for file in files] == ["a.jpg"]
    assert f"a name of {2**21} bytes" in problem


def test_endlessly_nested_headers_break_only_their_archive(tmp_path: Path) -> None:
    pack(path := tmp_path / "a.tar", {"a.jpg": b"a"})
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2
    block = header.tobuf(tarfile.GNU_FORMAT) + b"x\0".ljust(512, b"\0")
    path.write_bytes(path.read_bytes()[:1024] + block * 2000)
    files, problem = listed(path)
    assert [file.name for file in files] == ["a.jpg"]
    assert "a.tar: a broken archive: " in problem


# Damage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"not an archive", b"text\n" * 999, bytes(300)])
def test_other_file_with_an_archives_name_is_a_broken_archive(
    content: bytes, kind: str, tmp_path: Path
) -> None:
    folder = store(tmp_path / "folder", "", {f"a{kind}": content, "b.jpg": b"b"})
    files, warnings = files_by_name(folder, [".jpg"])
    assert {name: read(file) for name, file in files.items()} == {"b.jpg": b"b"}
    (warning,) = warnings
    assert warning.startswith(f"{folder / f'a{kind}'}: a broken archive: ")


def test_archive_of_another_kind_than_its_name_is_broken(tmp_path: Path) -> None:
    for wrong, right in ((".tar", ".zip"), (".zip", ".tar"), (".tar", ".tgz"), (".tgz", ".tar")):
        archive = pack(tmp_path / f"a{right}", FILES).rename(tmp_path / f"wrong{wrong}")
        assert listed(archive)[0] == []
        assert str(archive) in listed(archive)[1]


# Each file takes a block of header and ten of content.
@pytest.mark.parametrize(
    ("length", "complete", "started"),
    [
        (1, 0, 0), (511, 0, 0), (512, 0, 1), (513, 0, 1), (512 + 5000, 1, 1), (11 * 512 - 1, 1, 1),
        (11 * 512, 1, 1), (11 * 512 + 100, 1, 1), (3 * 11 * 512 + 600, 3, 4), (6 * 11 * 512, 6, 6),
        (6 * 11 * 512 + 200, 6, 6),
    ],
)  # fmt: skip
def test_members_before_the_end_of_a_truncated_tar_are_read(
    length: int, complete: int, started: int, tmp_path: Path
) -> None:
    cut(archive := pack(tmp_path / "a.tar", NOISE), length)
    files, problem = listed(archive)
    assert problem.startswith(f"{archive}: a broken archive: ")
    assert [file.name for file in files] == list(NOISE)[:started]
    assert [read(file) for file in files[:complete]] == list(NOISE.values())[:complete]
    for file in files[complete:]:
        with pytest.raises(ArchiveError, match=rf"a\.tar: {file.member}: the archive ends before"):
            read(file)


@pytest.mark.parametrize("kind", [".tar.gz", ".tgz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
def test_members_before_the_end_of_a_truncated_gzipped_tar_are_read(
    share: float, kind: str, tmp_path: Path
) -> None:
    archive = pack(tmp_path / f"a{kind}", NOISE)
    cut(archive, int(share * archive.stat().st_size))
    files, problem = listed(archive)
    assert problem.startswith(f"{archive}: a broken archive: ") or share == 0.999
    assert len(files) == pytest.approx(6 * share, abs=1)
    for file in files[:-1]:
        assert read(file) == NOISE[file.name]
    if share == 0.5:
        with pytest.raises(ArchiveError, match=f"a{kind}: {files[-1].member}: "):
            read(files[-1])
        assert read(files[0]) == NOISE["0.jpg"]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_truncated_zip_is_broken_as_a_whole(share: float, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", NOISE)
    cut(archive, int(share * archive.stat().st_size))
    assert listed(archive) == ([], f"{archive}: a broken archive: File is not a zip file")


@pytest.mark.parametrize("kind", [".tar", ".tgz"])
def test_broken_header_within_a_tar_is_not_taken_for_its_end(kind: str, tmp_path: Path) -> None:
    pack(archive := tmp_path / "a.tar", NOISE)
    overwrite(archive, b"3.jpg", b"x.jpg")
    if kind == ".tgz":
        (tmp_path / "a.tgz").write_bytes(gzip.compress(archive.read_bytes()))
        archive = tmp_path / "a.tgz"
    files, problem = listed(archive)
    assert [file.name for file in files] == ["0.jpg", "1.jpg", "2.jpg"]
    assert problem == f"{archive}: a broken archive: bad checksum"


@pytest.mark.parametrize("kind", [".zip", ".tgz"])
def test_damaged_member_is_named_and_the_others_are_read(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{kind}", NOISE)
    files = list(members_of(archive))
    middle = archive.stat().st_size // 2
    content = bytearray(archive.read_bytes())
    content[middle : middle + 40] = bytes(40)
    archive.write_bytes(content)
    good, bad = {}, []
    for file in files:
        try:
            good[file.name] = read(file)
        except ArchiveError as error:
            bad.append(str(error))
    assert {"0.jpg", "1.jpg"} <= good.keys() < NOISE.keys()
    assert all(good[name] == NOISE[name] for name in ("0.jpg", "1.jpg"))
    if kind == ".zip":  # zips have a checksum for each member, gzipped tars a single one
        assert good.items() <= NOISE.items()
        assert len(good) == 5
    assert all(message.startswith(f"{archive}: ") for message in bad)
    assert {message.split(": ")[1] for message in bad} == NOISE.keys() - good.keys()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_member_with_another_checksum_is_damaged(method: int, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.jpg": b"a" * 99, "b.jpg": b"b"}, method=method)
    crc = struct.pack("<I", module.zlib.crc32(b"a" * 99))
    overwrite(archive, crc, bytes([crc[0] ^ 1]) + crc[1:])
    first, second = members_of(archive)
    with pytest.raises(ArchiveError, match=r"a\.zip: a\.jpg: Bad CRC-32"):
        read(first)
    assert read(second) == b"b"


def test_encrypted_zip_member_is_damaged(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a.jpg": b"a"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    (file,) = members_of(archive)
    with pytest.raises(ArchiveError, match=r"a\.zip: a\.jpg: .*encrypted"):
        read(file)


def test_zip_with_names_that_are_not_text_is_broken(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"é.jpg": b"a"})
    overwrite(archive, "é".encode(), b"\xff\xff")
    assert listed(archive)[0] == []
    assert str(archive) in listed(archive)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_archive_is_named(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{kind}", FILES)
    files = list(members_of(archive))
    read(files[0])
    archive.unlink()
    with pytest.raises(UnreadableError, match=rf"a{kind}: missing: .*No such file"):
        read(files[1])
    with pytest.raises(UnreadableError, match=rf"a{kind}: missing: .*No such file"):
        list(members_of(archive))


def test_deleted_plain_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="gone"):
        read(StoredFile(path=tmp_path / "gone.jpg"))


@pytest.mark.parametrize("kind", KINDS)
def test_member_that_no_longer_exists_is_named(kind: str, tmp_path: Path) -> None:
    (file,) = members_of(pack(tmp_path / f"a{kind}", {"a.jpg": b"a"}))
    lost = replace(file, member="lost.jpg", offset=2**20)
    with pytest.raises(ArchiveError, match=rf"a{kind}: lost\.jpg: "):
        read(lost)
