"""Damaged stores: every file, every kind of damage, one line that says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lancedb
import pytest
from store_fixtures import ABOUT, filled, vectors, video

from trimodal.search.store import MomentStore
from trimodal.search.store_errors import NoStoreError, StoreError


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a finished run leaves it, with a graph."""
    folder = tmp_path_factory.mktemp("sealed")
    store, _ = filled(str(folder), 20)
    store.drop([3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.search.store._MIN_ROWS_FOR_INDEX", 1)
        store.compact()
    store.seal()
    assert list(folder.glob("graph-*/*.faiss"))
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip_a_bit,
}
ADVICE = r"^[^\n]*: damaged \([^\n]*\); delete it and index again \(`trimodal [^\n]* --rebuild`\)$"


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_of_any_file_is_found(sealed: Path, tmp_path: Path, damage: str) -> None:
    files = [path.relative_to(sealed) for path in sealed.rglob("*") if path.is_file()]
    assert len(files) > 20
    store = Path(shutil.copytree(sealed, tmp_path / "store"))
    MomentStore.open(str(store)).check_every_byte()
    for name in files:
        if name.name == "checksums.json" and damage == "gone":
            continue  # damages nothing that is searched
        DAMAGE[damage](store / name)
        with pytest.raises(StoreError, match=ADVICE):
            MomentStore.open(str(store)).check_every_byte()
        shutil.copy2(sealed / name, store / name)


def test_large_files_are_compared_in_full_on_request(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("trimodal.search.seal._QUICK_BYTES", 20_000)
    store = Path(shutil.copytree(sealed, tmp_path / "store"))
    largest = max(store.rglob("*.lance/data/*.lance"), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size > 20_000
    flip_a_bit(largest)
    opened = MomentStore.open(str(store))
    with pytest.raises(StoreError, match=ADVICE):
        opened.check_every_byte()
    largest.write_bytes(b"")  # its size is compared in any case
    with pytest.raises(StoreError, match=ADVICE):
        MomentStore.open(str(store))


@pytest.mark.parametrize("table", ["files", "moments"])
def test_a_lost_newest_manifest_is_found_without_checksums(tmp_path: Path, table: str) -> None:
    """LanceDB takes the one before it for the newest; a killed run leaves no checksums."""
    filled(str(tmp_path), 3)
    versions = tmp_path / f"{table}.lance" / "_versions"
    min(versions.glob("*.manifest")).unlink()  # they are numbered backwards
    with pytest.raises(StoreError, match=ADVICE):
        MomentStore.open(str(tmp_path))


def test_rows_that_are_missing_are_found(tmp_path: Path) -> None:
    filled(str(tmp_path), 3)
    moments = lancedb.connect(str(tmp_path)).open_table("moments")
    moments.delete("file = 1 AND moment % 2 = 0")  # newer than what was recorded
    store = MomentStore.open(str(tmp_path))
    with pytest.raises(StoreError, match=r"damaged \(2 of a video's 4 moments\)"):
        store.drop_unfinished()


def test_what_lancedb_finds_damaged_is_one_line(tmp_path: Path) -> None:
    store, rows = filled(str(tmp_path), 3)
    for file in (tmp_path / "moments.lance" / "data").iterdir():
        file.write_bytes(b"")
    store = MomentStore.open(str(tmp_path))
    uses: list[Callable[[], object]] = [
        lambda: store.search(rows[0, :256], 0.2, 5), lambda: store.images(0, 0.5),
        store.drop_unfinished, lambda: store.drop([1]) or store.compact(),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(StoreError, match=ADVICE):
            use()


def test_an_error_of_the_machine_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = filled(str(tmp_path), 1)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("lance error: IO: No space left on device (os error 28), /lance.rs")

    monkeypatch.setattr(type(store.table), "add", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.add([video(1)], [(1, 1, b"", b"")], vectors(1))
    assert caught.value.filename == str(tmp_path)


def test_embeddings_that_are_none_are_refused(tmp_path: Path) -> None:
    store = MomentStore.create(str(tmp_path), ABOUT, 256)
    rows = vectors(4)
    rows[2] = 1e30
    store.add([video(0)], [(0, frame + 1, b"", b"") for frame in range(4)], rows)
    with pytest.raises(StoreError, match="no unit vectors"):
        store.search(vectors(1)[0, :256], 0.2, 5)


def test_a_stranger_s_tables_are_checked(tmp_path: Path) -> None:
    filled(str(tmp_path), 1)
    database = lancedb.connect(str(tmp_path))
    row = database.open_table("files").to_arrow().to_pylist()[0]
    database.open_table("files").add([row | {"file": 1, "path": None}])
    with pytest.raises(StoreError, match="missing values"):
        MomentStore.open(str(tmp_path)).files()
    database.create_table("files", [{"file": 1}], mode="overwrite")
    with pytest.raises(StoreError, match="tables of another form"):
        MomentStore.open(str(tmp_path))


def test_a_store_whose_creation_was_killed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(str(tmp_path), 1)
    with monkeypatch.context() as patch:
        patch.setattr("trimodal.search.store.about_row", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            MomentStore.create(str(tmp_path), ABOUT, 256)
    with pytest.raises(NoStoreError):
        MomentStore.open(str(tmp_path))
    MomentStore.create(str(tmp_path), ABOUT, 256)
    assert MomentStore.open(str(tmp_path)).moments == 0
