"""The table of moments: exact search at every weight, atomic writes, refused stores."""

import os
import shutil
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_server import new_bucket, s3_server
from store_fixtures import ABOUT, Vectors, filled, unit, vectors, video

from trimodal.search import store as store_module
from trimodal.search.nearest import build_index
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError
from trimodal.search.tables import CREATING, MomentHit, read_about


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> tuple[MomentStore, Vectors]:
    return filled(str(tmp_path_factory.mktemp("store")), 50)


@given(st.floats(0, 1), st.integers(0, 1000), st.integers(1, 200))
def test_results_equal_numpys_at_every_weight(
    some: tuple[MomentStore, Vectors], weight: float, seed: int, limit: int
) -> None:
    store, rows = some
    query = unit(np.random.default_rng(seed).standard_normal(256))
    scores = (1 - weight) * rows[:, :256] @ query + weight * rows[:, 256:] @ query
    best = np.argsort(-scores, kind="stable")[:limit]
    hits = store.search(query, weight, limit)
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)
    moments = {(hit.file, hit.second) for hit in hits}
    assert all(
        (row // 4, row % 4 + 0.5) in moments
        for row in best
        if scores[row] > scores[best[-1]] + 1e-5
    )


def test_images_and_videos_are_read_back(some: tuple[MomentStore, Vectors]) -> None:
    store, _ = some
    assert store.images(7, 2.5) == (b"t7", b"m2")
    assert store.images(7, 4.5) is None
    assert store.file(7) == video(7)
    with pytest.raises(KeyError):
        store.file(50)
    assert len(store.files()) == 50
    assert store.moments == 200


def test_a_store_is_the_same_when_reopened(tmp_path: Path) -> None:
    store, rows = filled(str(tmp_path), 3)
    again = MomentStore.open(str(tmp_path))
    assert again.about == ABOUT
    assert again.files() == store.files()
    assert again.search(rows[0, :256], 0.0, 1)[0].file == 0


def test_dropped_videos_are_gone(tmp_path: Path) -> None:
    store, rows = filled(str(tmp_path), 3)
    store.drop([])
    assert store.moments == 12
    store.drop([0, 2])
    store.compact()
    assert [file.file for file in store.files()] == [1]
    assert {hit.file for hit in store.search(rows[0, :256], 0.2, 100)} == {1}


def test_moments_of_a_killed_run_are_dropped(tmp_path: Path) -> None:
    store, rows = filled(str(tmp_path), 2)
    store.add([], [(2, 1, b"", b"")], rows[:1])
    assert store.moments == 9
    store.drop_unfinished()
    assert store.moments == 8
    store.drop([0, 1])
    store.add([], [(0, 1, b"", b"")], rows[:1])
    store.drop_unfinished()
    assert store.moments == 0


def test_a_video_without_moments_is_kept_for_its_problem(tmp_path: Path) -> None:
    store = MomentStore.create(str(tmp_path), ABOUT, 256)
    store.add([video(0, moments=0)], [], vectors(0))
    store.compact()
    assert store.files() == [video(0, moments=0)]
    assert store.search(vectors(1)[0, :256], 0.2, 5) == []


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index"):
        MomentStore.open(str(tmp_path / "nowhere"))
    filled(str(tmp_path), 1)
    database = lancedb.connect(str(tmp_path))
    database.drop_table("about")
    with pytest.raises(StoreError, match="no index"):
        MomentStore.open(str(tmp_path))
    database.create_table("about", [{"folder": "a", "model": "m", "format": 99}])
    with pytest.raises(StoreError, match="another format"):
        MomentStore.open(str(tmp_path))


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    filled(str(tmp_path), 1)
    for file in (tmp_path / "about.lance" / "_versions").iterdir():
        file.write_bytes(b"rubbish")
    with pytest.raises(StoreError, match=r"damaged.*index again"):
        MomentStore.open(str(tmp_path))


def test_numbers_are_not_given_twice_and_stores_are_told_apart(tmp_path: Path) -> None:
    store, _ = filled(str(tmp_path), 3)
    store.drop([2, 1])
    store.compact()
    again = MomentStore.open(str(tmp_path))
    assert again.next_file == 3
    assert again.is_current()
    new = MomentStore.create(str(tmp_path), ABOUT, 256)
    assert new.identity != again.identity
    assert (new.is_current(), again.is_current()) == (True, False)
    shutil.rmtree(tmp_path)
    assert not new.is_current()


def test_a_store_is_looked_at_again_only_where_it_may_be_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query asks twice, and each look takes milliseconds."""
    store, _ = filled(str(tmp_path), 2)
    looked: list[str] = []

    def counted(location: str, database: Any) -> Any:
        looked.append(location)
        return read_about(location, database)

    monkeypatch.setattr(store_module, "read_about", counted)
    reader = MomentStore.open(str(tmp_path))
    looked.clear()
    assert [reader.is_current() for _ in range(3)] == [True] * 3
    assert len(looked) == 1
    store.drop([1])
    assert [reader.is_current() for _ in range(3)] == [True] * 3
    assert len(looked) == 2
    new = MomentStore.create(str(tmp_path), ABOUT, 256)
    assert [reader.is_current(), new.is_current()] == [False, True]
    (tmp_path / CREATING).touch()
    assert not new.is_current()


def test_several_videos_are_read_at_once(tmp_path: Path) -> None:
    store, _ = filled(str(tmp_path), 30)
    numbers = [*range(29, 3, -1), 4, 99]
    assert store.videos(iter(numbers)) == {n: video(n) for n in range(4, 30)}
    assert store.videos([]) == {}
    assert store.file(7) == video(7)
    with pytest.raises(KeyError):
        store.file(30)
    store.add([video(30, moments=0)], [], np.empty((0, 512), np.float32))
    assert store.searchable_videos == 30


def test_a_number_given_before_a_kill_is_not_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the video is listed and nothing is recorded about it yet."""
    store, rows = filled(str(tmp_path), 1)
    with monkeypatch.context() as patch:
        patch.setattr(MomentStore, "_after_change", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.add([video(1, moments=1)], [(1, 1, b"", b"")], rows[:1])
    again = MomentStore.open(str(tmp_path))
    again.drop_unfinished()
    assert ([file.file for file in again.files()], again.next_file) == ([0, 1], 2)


def test_files_have_the_modes_that_the_umask_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    monkeypatch.setattr("trimodal.core.files._UMASK", 0o027)  # as a process that starts with it
    try:
        store, _ = filled(str(tmp_path / "store"), 3)
        store.drop([1])
        monkeypatch.setattr("trimodal.search.store._MIN_ROWS_FOR_INDEX", 1)
        store.compact()
        store.seal()
        assert list((tmp_path / "store").glob("graph-*/*.faiss"))
    finally:
        os.umask(before)
    modes = {
        (path.is_dir(), path.stat().st_mode & 0o777) for path in (tmp_path / "store").rglob("*")
    }
    assert modes == {(True, 0o750), (False, 0o640)}


def test_the_approximate_index_finds_nearly_all_and_new_rows_too(tmp_path: Path) -> None:
    """Vectors between a few others, as the moments of videos are."""
    store = MomentStore.create(str(tmp_path), ABOUT, 256)
    rng = np.random.default_rng(3)
    ends = rng.standard_normal((40, 512))
    u = rng.random((6000, 1))
    pairs = rng.integers(0, 40, (2, 6000))
    mixed = ends[pairs[0]] * u + ends[pairs[1]] * (1 - u) + 0.3 * rng.standard_normal((6000, 512))
    rows = unit(mixed.reshape(6000, 2, 256)).reshape(6000, 512)
    store.add([video(0)], [(0, row + 1, b"", b"") for row in range(6000)], rows)
    exact = [store.search(query[:256], 0.2, 10) for query in rows[:40]]
    build_index(store.table)
    store = MomentStore.open(str(tmp_path))
    near = [store.search(query[:256], 0.2, 10) for query in rows[:40]]
    assert overlap(exact, near) >= 0.95
    assert [store.search(query[:256], 0.2, 10, exact=True) for query in rows[:40]] == exact
    new = unit(np.ones((2, 256))).reshape(1, 512)
    store.add([video(1)], [(1, 1, b"", b"")], new)
    assert store.search(new[0, :256], 0.2, 1)[0].file == 1
    store.compact()
    assert store.search(new[0, :256], 0.2, 1)[0].file == 1


def overlap(exact: list[list[MomentHit]], near: list[list[MomentHit]]) -> float:
    """The share of the exact results that are among the near ones."""
    seconds = [[{hit.second for hit in hits} for hits in results] for results in (exact, near)]
    return float(np.mean([len(a & b) / len(a) for a, b in zip(*seconds, strict=True)]))


def test_a_store_may_lie_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # the server on loopback has no certificate
    with s3_server():
        location = f"{new_bucket('search')}/store"
        store, rows = filled(location, 2)
        store.drop([0])
        store.compact()
        again = MomentStore.open(location)
        assert again.files() == [video(1)]
        assert {hit.file for hit in again.search(rows[0, :256], 0.2, 9)} == {1}
        assert again.images(1, 2.5) == (b"t1", b"m2")
        with pytest.raises(StoreError, match="no index"):
            MomentStore.open(f"{location}-elsewhere")
