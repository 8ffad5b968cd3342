"""The graph over a store's moments: what it finds, when it is made, what it refuses."""

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from store_fixtures import ABOUT, Vectors, unit, video

from trimodal.core.files import write_json
from trimodal.search import graph
from trimodal.search.graph import Graph
from trimodal.search.nearest import build_index
from trimodal.search.seal import checksum
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError
from trimodal.search.tables import FRAME_BITS

VIDEOS, MOMENTS = 8, 200
ADVICE = r"^[^\n]*: damaged \([^\n]*\); delete it and index again \(`trimodal [^\n]* --rebuild`\)$"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimodal.search.store._MIN_ROWS_FOR_INDEX", 1000)


def between(count: int, seed: int) -> Vectors:
    """Vectors between a few others, as the moments of videos are, (count, 512)."""
    ends = np.random.default_rng(3).standard_normal((40, 512))
    rng = np.random.default_rng(seed)
    share, pairs = rng.random((count, 1)), rng.integers(0, 40, (2, count))
    mixed = ends[pairs[0]] * share + ends[pairs[1]] * (1 - share)
    mixed += 0.3 * rng.standard_normal((count, 512))
    return unit(mixed.reshape(count, 2, 256)).reshape(count, 512)


def add(store: MomentStore, number: int, rows: Vectors) -> None:
    moments = [(number, frame + 1, b"", b"") for frame in range(len(rows))]
    store.add([video(number, moments=len(rows))], moments, rows)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    store = MomentStore.create(str(folder), ABOUT, 256)
    for number in range(VIDEOS):
        add(store, number, between(MOMENTS, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.search.store._MIN_ROWS_FOR_INDEX", 1000)
        store.compact()
    return folder


@pytest.fixture
def store(built: Path, tmp_path: Path) -> MomentStore:
    return MomentStore.open(str(shutil.copytree(built, tmp_path / "store")))


def graph_of(store: MomentStore) -> Graph:
    found = store._graph.find()
    assert found is not None
    return found


def query(seed: int) -> Vectors:
    return between(1, 1000 + seed)[0, :256]


@pytest.fixture
def approximate(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of candidates that graphs were asked for."""
    asked: list[int] = []
    candidates = Graph._candidates

    def counted(self: Graph, query: Vectors, count: int) -> Any:
        asked.append(count)
        return candidates(self, query, count)

    monkeypatch.setattr(Graph, "_candidates", counted)
    return asked


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_nearly_all_of_the_nearest_are_found(
    store: MomentStore, approximate: list[int], weight: float
) -> None:
    graph_of(store)
    shares = []
    for seed in range(30):
        exact = store.search(query(seed), weight, 10, exact=True)
        assert len(approximate) == seed
        near = {(hit.file, hit.second): hit for hit in store.search(query(seed), weight, 10)}
        same = [hit for hit in exact if (hit.file, hit.second) in near]
        assert all(near[hit.file, hit.second] == hit for hit in same)  # scores are exact
        shares.append(len(same) / 10)
    assert len(approximate) == 30
    assert np.mean(shares) >= 0.95


def test_exact_search_is_lancedbs(store: MomentStore) -> None:
    for limit in (1, 10, 2000):
        by_graph = store.search(query(1), 0.2, limit, exact=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._graph, "find", lambda: None)
            by_table = store.search(query(1), 0.2, limit, exact=True)
        assert len(by_graph) == min(limit, VIDEOS * MOMENTS)
        assert [(hit.file, hit.second) for hit in by_graph] == [
            (hit.file, hit.second) for hit in by_table
        ]
        np.testing.assert_allclose(
            [hit.score for hit in by_graph], [hit.score for hit in by_table], atol=1e-6
        )


def test_many_moments_are_searched_exactly(store: MomentStore, approximate: list[int]) -> None:
    assert len(store.search(query(1), 0.2, 1000)) == 1000
    assert approximate == []


def test_new_moments_are_found_at_once_and_added_to_the_graph(
    store: MomentStore, approximate: list[int]
) -> None:
    before = graph_of(store)
    new = between(MOMENTS, 99)
    add(store, VIDEOS, new)
    assert store._graph.find() is None
    assert store.search(new[0, :256], 0.0, 1)[0].file == VIDEOS
    assert approximate == []
    store.compact()
    after = graph_of(store)
    assert after.folder.name != before.folder.name
    np.testing.assert_array_equal(after.moments[: len(before.moments)], before.moments)
    assert store.search(new[0, :256], 0.0, 1)[0].file == VIDEOS
    assert approximate == [40]
    assert [path.name for path in Path(store.location).glob("graph-*")] == [after.folder.name]


def test_deleted_moments_are_not_found(store: MomentStore, approximate: list[int]) -> None:
    """Even if they are nearer than all others."""
    nearest = between(MOMENTS, 2)[5, :256]
    assert store.search(nearest, 0.0, 1)[0].file == 2
    store.drop([2])
    store.compact()
    here = graph_of(store)
    assert (len(here.moments), here.here.sum()) == (VIDEOS * MOMENTS, (VIDEOS - 1) * MOMENTS)
    approximate.clear()
    for exact in (True, False):
        files = [hit.file for hit in store.search(nearest, 0.0, 30, exact=exact)]
        assert len(files) == 30
        assert set(files) <= {*range(VIDEOS)} - {2}
    assert approximate == [60]


def test_a_graph_of_which_much_is_gone_is_made_anew(store: MomentStore) -> None:
    store.drop([0, 1, 2])
    store.compact()
    assert len(graph_of(store).moments) == (VIDEOS - 3) * MOMENTS
    store.drop([3])
    store.compact()
    assert store._graph.find() is None
    assert list(Path(store.location).glob("graph-*")) == []


def test_a_new_version_of_the_same_moments_keeps_its_graph(
    store: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graph_of(store)
    store.drop([12345])
    assert store._graph.find() is None
    monkeypatch.setattr(graph, "_write", lambda *_: 1 / 0)
    store.compact()
    np.testing.assert_array_equal(graph_of(store).moments, before.moments)


def test_a_change_by_another_run_is_seen(
    store: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "READ_INTERVAL", timedelta(0))
    monkeypatch.setattr("trimodal.search.store.READ_INTERVAL", timedelta(0))
    reader = MomentStore.open(store.location)
    before = graph_of(reader)
    new = between(MOMENTS, 99)
    add(store, VIDEOS, new)
    assert reader.search(new[0, :256], 0.0, 1)[0].file == VIDEOS
    store.compact()
    assert graph_of(reader).folder.name != before.folder.name
    assert reader.search(new[0, :256], 0.0, 1)[0].file == VIDEOS
    assert before.nearest(np.tile(query(0), 2), 10)[0].shape == (10,)  # its files are still open


def test_a_killed_build_costs_nothing_but_itself(
    store: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, folder = between(MOMENTS, 99), Path(store.location)
    add(store, VIDEOS, new)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "write_json", lambda *_: 1 / 0)
        patch.setattr("trimodal.core.files.remove", lambda _: None)  # as a kill leaves it
        with pytest.raises(ZeroDivisionError):
            store.compact()
    assert list(folder.glob(".graph-*.tmp"))
    again = MomentStore.open(store.location)
    assert again.search(new[0, :256], 0.0, 1)[0].file == VIDEOS
    again.drop([0])  # another version
    again.compact()
    assert len(graph_of(again).moments) == (VIDEOS + 1) * MOMENTS
    assert graph_of(again).here.sum() == VIDEOS * MOMENTS
    assert list(folder.glob(".graph-*.tmp")) == []


def test_a_store_made_anew_has_no_graph(store: MomentStore) -> None:
    MomentStore.create(store.location, ABOUT, 256)
    assert list(Path(store.location).glob("graph-*")) == []


def test_the_index_of_an_earlier_version_is_dropped(store: MomentStore) -> None:
    build_index(store.table)
    store.compact()
    assert list(store.table.list_indices()) == []


@pytest.mark.parametrize("name", ["hnsw.faiss", "moments.npy", "vectors.npy", "checksums.json"])
@pytest.mark.parametrize("damage", ["half", "empty", "gone"])
def test_a_damaged_graph_without_the_stores_checksums_is_refused(
    store: MomentStore, name: str, damage: str
) -> None:
    path = graph_of(store).folder / name
    content = path.read_bytes()
    path.unlink()  # a mapped file would change under its reader
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    with pytest.raises(StoreError, match=ADVICE):
        MomentStore.open(store.location).search(query(1), 0.2, 10)


def links(index: Any) -> Any:
    return faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())


def levels(index: Any) -> Any:
    return faiss.rev_swig_ptr(index.hnsw.levels.data(), index.hnsw.levels.size())


def start(index: Any, level: int) -> int:
    """Where the links of the entry's level begin."""
    first = index.hnsw.offsets.at(index.hnsw.entry_point)
    return int(first + index.hnsw.cum_nneighbor_per_level.at(level))


HOSTILE: dict[str, Callable[[Any], object]] = {
    "a link beyond the rows": lambda index: links(index).put(7, VIDEOS * MOMENTS),
    "a negative link": lambda index: links(index).put(7, -2),
    "a link to a row below": lambda index: links(index).put(
        start(index, 1), int(levels(index).argmin())
    ),
    "a level too many": lambda index: levels(index).put(3, 60),
    "a level too few": lambda index: levels(index).put(int(levels(index).argmax()), 1),
    "another entry": lambda index: setattr(index.hnsw, "entry_point", 10**6),
    "a low entry": lambda index: setattr(index.hnsw, "entry_point", int(levels(index).argmin())),
    "another height": lambda index: setattr(index.hnsw, "max_level", 30),
    "another metric": lambda index: setattr(index, "metric_type", faiss.METRIC_L2),
}


@pytest.mark.parametrize("kind", [*HOSTILE, "another kind", "fewer rows"])
def test_a_strangers_graph_is_checked(store: MomentStore, kind: str) -> None:
    found = graph_of(store)
    index, path = found.read(), found.folder / "hnsw.faiss"
    path.unlink()
    if kind == "another kind":
        index = faiss.IndexFlatIP(512)
        index.add(np.array(found.vectors))
    elif kind == "fewer rows":
        index = faiss.index_factory(512, "HNSW20_SQ8", faiss.METRIC_INNER_PRODUCT)
        index.train(np.array(found.vectors))
        index.add(np.array(found.vectors[:100]))
    else:
        HOSTILE[kind](index)
    faiss.write_index(index, str(path))
    write_json(found.folder / "checksums.json", {path.name: checksum(path)})
    with pytest.raises(StoreError, match=ADVICE):
        MomentStore.open(store.location).search(query(1), 0.2, 10)


def test_vectors_that_are_none_are_refused_when_the_graph_is_made(tmp_path: Path) -> None:
    store = MomentStore.create(str(tmp_path), ABOUT, 256)
    rows = between(1000, 1)
    rows[700, 3] = 1e30
    add(store, 0, rows)
    with pytest.raises(StoreError, match="no unit vectors"):
        store.compact()


def test_ids_are_those_of_the_moments(store: MomentStore) -> None:
    moments, vectors = graph_of(store).nearest(np.tile(query(3), 2), 5)
    for moment, vector in zip(moments, vectors, strict=True):
        rows = between(MOMENTS, int(moment) >> FRAME_BITS)
        np.testing.assert_array_equal(rows[(int(moment) & (1 << FRAME_BITS) - 1) - 1], vector)
