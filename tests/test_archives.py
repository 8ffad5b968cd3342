"""Files are found by bare name in folders and archives and read without unpacking to disk."""

import gc
import gzip
import io
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_fixtures import (
    FILES,
    KINDS,
    NOISE,
    add_file,
    cut,
    listed,
    names,
    overwrite,
    pack,
    store,
)

from trimodal.core import archives as module
from trimodal.core.archives import ArchiveError, StoredFile, as_path, files_by_name, members_of
from trimodal.core.archives import read_file as read
from trimodal.core.records import DataError

needs_open_files = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary copies go here."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def contents_of(path: Path, *suffixes: str) -> dict[str, bytes]:
    """Bare names and contents of the files with the suffixes; asserts that there is no warning."""
    files, warnings = files_by_name(path, suffixes or (".jpg",))
    assert not warnings
    return {name: read(file) for name, file in files.items()}


def make_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar of (name, type); regular files hold their own name."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w:") as tar:
        for name, kind in members:
            add_file(tar, name, name.encode() if kind == tarfile.REGTYPE else b"", kind)
    return path


# Complete archives


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_files_are_read_from_folders_and_every_kind_of_archive(kind: str, tmp_path: Path) -> None:
    assert contents_of(store(tmp_path / "source", kind, FILES)) == FILES


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_members_are_read_stored_and_deflated(method: int, tmp_path: Path) -> None:
    assert contents_of(pack(tmp_path / "a.zip", FILES, method=method)) == FILES


def test_folder_may_mix_files_and_all_kinds_of_archives(tmp_path: Path) -> None:
    source = store(tmp_path / "source", "", {"plain.jpg": b"plain"})
    for number, kind in enumerate(KINDS):
        pack(source / f"part{number}{kind}", {f"in{kind}.jpg": kind.encode()})
    expected = {f"in{kind}.jpg": kind.encode() for kind in KINDS}
    assert contents_of(source) == expected | {"plain.jpg": b"plain"}


@pytest.mark.parametrize("kind", KINDS)
def test_members_in_folders_are_found_by_bare_name(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{kind}", {"./x/y.z/a.jpg": b"a", f"{'long/' * 60}b.jpg": b"b"})
    assert contents_of(archive) == {"a.jpg": b"a", "b.jpg": b"b"}


def test_subfolders_are_not_searched(tmp_path: Path) -> None:
    source = store(tmp_path / "source", "", {"a.jpg": b"a", "deep/b.jpg": b"b", "c.jpg/d": b"d"})
    (source / "folder.tar").mkdir()
    assert contents_of(source) == {"a.jpg": b"a"}


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_only_files_with_a_suffix_are_listed(kind: str, tmp_path: Path) -> None:
    source = store(
        tmp_path / "source", kind, {"a.jpg": b"a", "b.JPG": b"b", "c.txt": b"c", "jpg": b"d"}
    )
    assert contents_of(source, ".jpg") == {"a.jpg": b"a", "b.JPG": b"b"}
    assert contents_of(source, ".jpg", ".txt") == {"a.jpg": b"a", "b.JPG": b"b", "c.txt": b"c"}


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_in_storage_order_with_their_sizes(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{kind}", FILES)
    files = list(members_of(archive))
    assert [(file.name, file.size) for file in files] == [(n, len(c)) for n, c in FILES.items()]
    assert all(file.path == archive for file in files)
    assert [file.offset for file in files] == sorted(file.offset for file in files)


@pytest.mark.parametrize("kind", KINDS)
def test_members_read_out_of_order_are_right(kind: str, tmp_path: Path) -> None:
    files = list(members_of(pack(tmp_path / f"a{kind}", NOISE)))
    for number in (5, 0, 3, 3, 4, 1, 2, 0):
        assert read(files[number]) == NOISE[f"{number}.jpg"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_archives_read_alternately_are_not_mixed_up(kind: str, tmp_path: Path) -> None:
    one = list(members_of(pack(tmp_path / f"one{kind}", {"a": b"1a" * 99, "b": b"1b" * 99})))
    two = list(members_of(pack(tmp_path / f"two{kind}", {"a": b"2a" * 99, "b": b"2b" * 99})))
    contents = [read(file) for pair in zip(one, two, strict=True) for file in pair]
    assert contents == [b"1a" * 99, b"2a" * 99, b"1b" * 99, b"2b" * 99]


@pytest.mark.parametrize("kind", KINDS)
def test_archive_that_was_replaced_is_read_again(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"a{kind}", {"a.jpg": b"old"})
    assert contents_of(archive) == {"a.jpg": b"old"}
    pack(tmp_path / f"b{kind}", {"new.jpg": b"new", "a.jpg": b"newer"}).replace(archive)
    assert contents_of(archive) == {"new.jpg": b"new", "a.jpg": b"newer"}
    pack(archive, {"last.jpg": b"last"})
    assert contents_of(archive) == {"last.jpg": b"last"}


@pytest.mark.parametrize("kind", KINDS)
def test_empty_archive_and_empty_member_are_read(kind: str, tmp_path: Path) -> None:
    assert contents_of(pack(tmp_path / f"none{kind}", {})) == {}
    assert contents_of(pack(tmp_path / f"one{kind}", {"a.jpg": b"", "b.jpg": b"b"})) == {
        "a.jpg": b"",
        "b.jpg": b"b",
    }


@pytest.mark.parametrize("where", ["", ".zip", ".tar", ".txt"])
def test_missing_path_is_named(where: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"nowhere{where} is neither a folder nor"):
        files_by_name(tmp_path / f"nowhere{where}", [".jpg"])


def test_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with pytest.raises(DataError, match=r"a\.jpg is neither"):
        files_by_name(tmp_path / "a.jpg", [".jpg"])


# Names that point outside, and members that are not files


@pytest.mark.parametrize("kind", KINDS)
def test_paths_that_point_outside_become_bare_names(
    kind: str, tmp_path: Path, temporary: Path
) -> None:
    hostile = {"../../up.jpg": b"up", "/etc/root.jpg": b"root", f"{tmp_path}/abs.jpg": b"abs"}
    archive = pack(tmp_path / "in" / "side" / f"a{kind}", hostile)
    before = sorted(tmp_path.rglob("*"))
    files, warnings = files_by_name(archive, [".jpg"])
    assert not warnings
    for name, content in zip(("up.jpg", "root.jpg", "abs.jpg"), hostile.values(), strict=True):
        assert read(files[name]) == content
        with as_path(files[name]) as path:
            assert path.resolve().parent.parent == temporary
            assert path.read_bytes() == content
            new = set(tmp_path.rglob("*")) - set(before)
            assert new == {path, path.parent, path.with_name(".lock")}
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/etc/root.jpg").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_members_without_a_name_are_skipped(kind: str, tmp_path: Path) -> None:
    nameless = "?" if kind == ".zip" else ""
    archive = pack(tmp_path / f"a{kind}", [("x/a.jpg", b"a"), (nameless, b"x"), ("..", b"x")])
    if kind == ".zip":
        overwrite(archive, b"?", b"\0")
    assert names(archive) == ["a.jpg"]


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_links_devices_and_pipes_in_a_tar_are_skipped(ending: str, tmp_path: Path) -> None:
    archive = make_tar(
        tmp_path / f"a{ending}", ("first.jpg", tarfile.REGTYPE), ("soft.jpg", tarfile.SYMTYPE),
        ("hard.jpg", tarfile.LNKTYPE), ("char.jpg", tarfile.CHRTYPE),
        ("block.jpg", tarfile.BLKTYPE), ("pipe.jpg", tarfile.FIFOTYPE),
        ("folder.jpg", tarfile.DIRTYPE), ("last.jpg", tarfile.REGTYPE),
    )  # fmt: skip
    assert contents_of(archive) == {"first.jpg": b"first.jpg", "last.jpg": b"last.jpg"}


def test_links_and_folders_in_a_zip_are_skipped(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder.jpg/", b"")
        archive.writestr(link, b"/etc/passwd")
        archive.writestr("a.jpg", b"a")
    assert contents_of(tmp_path / "a.zip") == {"a.jpg": b"a"}


def test_sparse_file_in_a_tar_is_skipped(tmp_path: Path) -> None:
    """A sparse member's bytes are not contiguous; here 4 bytes at 0 represent 1024."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_file(tar, "holes.jpg", b"data", tarfile.GNUTYPE_SPARSE)
        add_file(tar, "a.jpg", b"a")
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[386:410] = b"%011o\0%011o\0" % (0, 4)
    content[483:495] = b"%011o\0" % 1024
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:512]) + 8 * 32)
    (tmp_path / "a.tar").write_bytes(content)
    assert names(tmp_path / "a.tar") == ["a.jpg"]


@pytest.mark.parametrize("kind", ["", *KINDS])
def test_hidden_files_are_skipped(kind: str, tmp_path: Path) -> None:
    hidden = {"__MACOSX/._a.jpg": b"x", "._b.jpg": b"x", ".DS_Store": b"x", ".c.jpg": b"x"}
    assert contents_of(store(tmp_path / "source", kind, hidden | {"a.jpg": b"a"})) == {
        "a.jpg": b"a"
    }


def test_hidden_archive_next_to_the_real_one_is_skipped(tmp_path: Path) -> None:
    pack(tmp_path / "source" / "a.tar", {"a.jpg": b"a"})
    (tmp_path / "source" / "._a.tar").write_bytes(b"what a Mac leaves there")
    assert contents_of(tmp_path / "source") == {"a.jpg": b"a"}


def test_pipe_in_a_folder_does_not_block(tmp_path: Path) -> None:
    source = store(tmp_path / "source", "", {"a.jpg": b"a"})
    os.mkfifo(source / "pipe.jpg")
    os.mkfifo(source / "pipe.tar")
    (source / "nowhere.jpg").symlink_to(tmp_path / "gone")
    assert contents_of(source) == {"a.jpg": b"a"}


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_folder_name_that_is_not_utf8_becomes_text_that_can_be_written(
    ending: str, tmp_path: Path
) -> None:
    with tarfile.open(
        tmp_path / f"a{ending}", "w:gz" if ending == ".tgz" else "w",
        format=tarfile.GNU_FORMAT, encoding="latin-1",
    ) as tar:  # fmt: skip
        add_file(tar, "été/a.jpg", b"a")
    (file,) = members_of(tmp_path / f"a{ending}")
    assert file.member.encode()
    assert (file.name, read(file)) == ("a.jpg", b"a")


@pytest.mark.parametrize("kind", KINDS)
def test_first_of_duplicate_names_is_used_and_the_others_are_counted(
    kind: str, tmp_path: Path
) -> None:
    source = store(tmp_path / "source", "", {"b.jpg": b"plain b"})
    pack(source / f"a1{kind}", {"a.jpg": b"first a", "x/a.jpg": b"second a"})
    pack(source / f"a2{kind}", {"a.jpg": b"third a", "b.jpg": b"b", "c.jpg": b"c"})
    files, warnings = files_by_name(source, [".jpg"])
    contents = {name: read(file) for name, file in files.items()}
    assert contents.pop("b.jpg") in (b"b", b"plain b")
    assert contents == {"a.jpg": b"first a", "c.jpg": b"c"}
    assert warnings == [f"{source}: ignored 3 files with a duplicate name"]


def test_of_a_path_twice_in_a_zip_the_last_is_read_as_by_unzip(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        pack(tmp_path / "a.zip", [("a.jpg", b"first"), ("b.jpg", b"b"), ("a.jpg", b"the second")])
    assert contents_of(tmp_path / "a.zip") == {"a.jpg": b"the second", "b.jpg": b"b"}


# Paths for ffmpeg, and open files


def test_plain_file_is_its_own_path(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with as_path(StoredFile(path=tmp_path / "a.jpg")) as path:
        assert path == tmp_path / "a.jpg"
        assert not list(temporary.iterdir())
    assert path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_copy_of_a_member_is_deleted_after_the_block(
    kind: str, tmp_path: Path, temporary: Path
) -> None:
    for file in members_of(pack(tmp_path / f"a{kind}", FILES)):
        with as_path(file) as path:
            assert path.read_bytes() == FILES[file.name]
        assert not path.exists()
        assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_copy_of_a_member_is_deleted_after_an_exception(
    kind: str, tmp_path: Path, temporary: Path
) -> None:
    (file,) = members_of(pack(tmp_path / f"a{kind}", {"a.jpg": b"a"}))
    with pytest.raises(NotADirectoryError), as_path(file) as path:
        next(path.iterdir())
    assert not list(temporary.iterdir())


def test_damaged_member_leaves_no_copy(tmp_path: Path, temporary: Path) -> None:
    files = list(members_of(pack(tmp_path / "a.tar", NOISE)))
    cut(tmp_path / "a.tar", 2000)
    with pytest.raises(ArchiveError, match="the archive ends before"), as_path(files[0]):
        pytest.fail("the member is damaged")
    assert not list(temporary.iterdir())


def open_files(folder: Path) -> list[Path]:
    """The files in a folder that this process has open."""
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [link for link in links if link.is_relative_to(folder)]


@needs_open_files
@pytest.mark.parametrize("listing", ["whole", "left early"])
@pytest.mark.parametrize("state", ["good", "broken"])
def test_listing_tars_leaves_no_file_open(listing: str, state: str, tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS[1:]):
        archive = pack(tmp_path / f"{number}{kind}", NOISE)
        if state == "broken":
            cut(archive, 2 * archive.stat().st_size // 3)
        if listing == "whole":
            listed(archive)
        else:
            next(members_of(archive))
    gc.collect()
    assert not open_files(tmp_path)


@needs_open_files
def test_reading_many_archives_keeps_few_files_open(tmp_path: Path) -> None:
    for number in range(20):
        for kind in KINDS:
            for file in members_of(pack(tmp_path / f"{number}{kind}", {"a": b"a", "b": b"b"})):
                read(file)
    gc.collect()
    assert 1 <= len(open_files(tmp_path)) <= 5


def test_listing_a_long_tar_does_not_accumulate_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real: Callable[..., tarfile.TarFile] = tarfile.open
    pack(tmp_path / "a.tar", {f"{i}.jpg": b"" for i in range(50)})
    monkeypatch.setattr(
        module.tarfile, "open", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1]
    )
    header_counts = [len(opened[0].members) for _ in members_of(tmp_path / "a.tar")]
    assert len(header_counts) == 50
    assert max(header_counts) <= 1


def test_reading_in_storage_order_decompresses_a_tar_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(members_of(pack(tmp_path / "a.tgz", NOISE)))
    opened = []
    real = gzip.open
    monkeypatch.setattr(module.gzip, "open", lambda path: opened.append(real(path)) or opened[-1])
    rewound = []
    rewind = gzip._GzipReader._rewind  # type: ignore[attr-defined]
    monkeypatch.setattr(
        gzip._GzipReader,  # type: ignore[attr-defined]
        "_rewind",
        lambda self: rewound.append(1) or rewind(self),
    )
    for file in files:
        assert io.BytesIO(read(file)).read() == NOISE[file.name]
    assert (len(opened), rewound) == (1, [])
    read(files[0])
    assert rewound == [1]
