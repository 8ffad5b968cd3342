"""A graph over the moments of a store on this machine, so that a query meets few of them: faiss's
HNSW (Malkov & Yashunin, 2018) over vectors of 8 bits, whose candidates are compared again in full.
It is a folder beside LanceDB's tables, named after the version of the moments it is of; its files
are memory-mapped.

A row of it keeps its moment for ever: new moments are added, and those that are gone are marked.
"""

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lancedb.table import Table

from trimodal.core.extras import imports_of
from trimodal.core.files import atomic_path, read_json, remove, remove_leftovers, write_json
from trimodal.core.records import DataError
from trimodal.search.nearest import READ_INTERVAL
from trimodal.search.seal import checksum
from trimodal.search.store_errors import damaged
from trimodal.search.tables import MAX_SCORE

_MOMENTS, _VECTORS, _HNSW, _SUMS = "moments.npy", "vectors.npy", "hnsw.faiss", "checksums.json"
_LINKS, _BUILD_WIDTH, _WIDTH = 20, 150, 160  # faiss: M, efConstruction, the least efSearch
_CANDIDATES = 2  # compared in full, for each moment that is asked for ...
_MIN_CANDIDATES = 40  # ... and at least
_EXACT_SHARE = 0.05  # of all moments as candidates: then exact search is faster
_MAX_GONE = 0.25  # of the rows, until the graph is built anew
_ROWS_AT_ONCE = 50_000
_TRAINING_ROWS = 50_000  # of which the range of each number is taken
_GONE = -1

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def graph_name(identity: str, version: int) -> str:
    """The folder of the graph over this version of the moments of this store."""
    return f"graph-{identity}-{version}"


class Graph:
    """A graph on disk. Raises StoreError if it is damaged, FileNotFoundError if it is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.moments = _mapped(folder / _MOMENTS)
            self.vectors = _mapped(folder / _VECTORS)
        except (ValueError, EOFError) as error:
            raise self._damaged(str(error)) from error
        if self.moments.shape != self.vectors.shape[:1] or self.vectors.ndim != 2:
            raise self._damaged(f"{_VECTORS} is not of {_MOMENTS}")
        if not (self.moments.dtype == np.int64 and self.vectors.dtype == np.float32):
            raise self._damaged("numbers of another type")
        self.here: npt.NDArray[np.bool_] = self.moments != _GONE
        self._count = int(self.here.sum())

    def _damaged(self, detail: str) -> Exception:
        return damaged(str(self.folder.parent), f"{self.folder.name}: {detail}")

    def nearest(self, query: Vectors, limit: int, *, exact: bool = False) -> tuple[Ids, Vectors]:
        """The ids of the nearest moments, (found,), and their vectors, best first."""
        wanted = min(limit, self._count)
        candidates = max(_CANDIDATES * wanted, _MIN_CANDIDATES)
        rows = np.empty(0, np.int64)
        if not exact and candidates <= _EXACT_SHARE * len(self.moments):
            try:
                rows = self._candidates(query, candidates)
            except FileNotFoundError:
                if self.folder.exists():
                    raise
                # Replaced before the links were read; all else is open.
        if len(rows) >= wanted:
            scores = self.vectors[rows] @ query
        else:
            rows, scores = np.arange(len(self.moments)), self._scores(query)
        best = np.argpartition(-scores, wanted - 1)[:wanted] if wanted else np.empty(0, np.int64)
        rows = rows[best[np.argsort(-scores[best], kind="stable")]]
        return self.moments[rows], self.vectors[rows]

    def _scores(self, query: Vectors) -> Vectors:
        parts = [part @ query for part in _parts(self.vectors)]
        return np.where(self.here, np.concatenate(parts), -np.inf)

    def _candidates(self, query: Vectors, count: int) -> Ids:
        options = {"sel": self._selector} if self._count < len(self.moments) else {}
        parameters = _faiss().SearchParametersHNSW(efSearch=max(_WIDTH, count), **options)
        rows: Ids = self._index.search(query[None], count, params=parameters)[1][0]
        return rows[rows >= 0]

    @cached_property
    def _selector(self) -> Any:
        return _faiss().IDSelectorBitmap(np.packbits(self.here, bitorder="little"))

    @cached_property
    def _index(self) -> Any:
        return self.read(_faiss().IO_FLAG_MMAP_IFC)

    def read(self, flags: int = 0) -> Any:
        """The HNSW index, checked."""
        path = self.folder / _HNSW
        try:
            if read_json(self.folder / _SUMS) != {_HNSW: checksum(path)}:
                raise self._damaged(f"{_HNSW} has changed")
            index = _faiss().read_index(str(path), flags)
        except (DataError, RuntimeError) as error:
            raise self._damaged(str(error)) from error
        if problem := _problem(index, *self.vectors.shape):
            raise self._damaged(f"{_HNSW}: {problem}")
        return index


def _faiss() -> Any:
    """The library, which takes a while to import; its stubs lack half of it."""
    with imports_of("search"):
        import faiss

    return faiss


def _problem(index: Any, rows: int, dim: int) -> str:
    """What is wrong with an index that may be a stranger's; empty if nothing is. faiss itself
    checks that links, levels and places are within range.
    """
    faiss = _faiss()
    if not isinstance(index, faiss.IndexHNSWSQ):
        return "another kind of index"
    codes, graph = faiss.downcast_index(index.storage), index.hnsw
    if not isinstance(codes, faiss.IndexScalarQuantizer):
        return "another kind of vectors"
    sizes = (index.ntotal, index.d, codes.ntotal, codes.d, codes.codes.size(), codes.code_size)
    quantiser = (codes.sq.qtype, codes.sq.d, codes.sq.code_size, codes.sq.trained.size())
    if (
        sizes != (rows, dim, rows, dim, rows * dim, dim)
        or quantiser != (faiss.ScalarQuantizer.QT_8bit, dim, dim, 2 * dim)
        or {index.metric_type, codes.metric_type} != {faiss.METRIC_INNER_PRODUCT}
    ):
        return "of other vectors"
    links, levels = faiss.vector_to_array(graph.neighbors), faiss.vector_to_array(graph.levels)
    starts = faiss.vector_to_array(graph.offsets).astype(np.int64)
    ends = faiss.vector_to_array(graph.cum_nneighbor_per_level).astype(np.int64)
    top = int(levels.max())
    if graph.max_level != top - 1 or levels[graph.entry_point] != top:
        return "no entry at the top"
    for level in range(1, top):
        upper = starts[:-1][levels > level, None] + np.arange(ends[level], ends[level + 1])
        to = links[upper]
        if (levels[to[to >= 0]] <= level).any():
            return "links to a row below"
    return ""


class CurrentGraph:
    """The graph over the moments as they are now, if there is one."""

    def __init__(self, store: Path | None, identity: str, moments: Table) -> None:
        self._store, self._identity, self._table = store, identity, moments
        self.forget()

    def forget(self) -> None:
        """The moments have changed."""
        self._graph: Graph | None = None
        self._looked = -np.inf

    def find(self) -> Graph | None:
        """The graph; a change by another run is seen after some seconds. None at a URL."""
        now = time.monotonic()
        if self._store is not None and now - self._looked >= READ_INTERVAL.total_seconds():
            folder = self._store / graph_name(self._identity, int(self._table.version))
            if self._graph is None or self._graph.folder != folder:
                self._graph = _opened(folder)
            self._looked = now
        return self._graph


def _opened(folder: Path) -> Graph | None:
    """The graph in a folder; None if it is not built, or replaced at this moment."""
    try:
        return Graph(folder)
    except FileNotFoundError:
        if folder.exists():
            raise
        return None


def update_graph(store: Path, name: str, table: Table) -> None:
    """Makes the graph ``name`` of a table of moments, by adding to the store's last one if most of
    its moments are still there, and removes all others.
    """
    if not (store / name).exists():
        before = _last(store, name.split("-")[1])
        ids = _ids(table)
        if before is not None and np.array_equal(np.sort(before.moments[before.here]), ids):
            before.folder.replace(store / name)
        else:
            with atomic_path(store / name) as folder:
                folder.mkdir()
                _write(folder, before, ids, table)
    remove_graphs(store, but=name)


def remove_graphs(store: Path, but: str = "") -> None:
    """Removes a store's graphs, except one, and what a killed run left of others."""
    remove_leftovers(store)
    for folder in store.glob("graph-*"):
        if folder.name != but:
            remove(folder.replace(folder.with_name(f".{folder.name}.tmp")))  # whole or gone


def _last(store: Path, identity: str) -> Graph | None:
    """The graph to add to: that of the newest version."""
    found = store.glob(f"graph-{identity}-*")
    folders = sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
    return Graph(folders[-1]) if folders else None


def _write(folder: Path, before: Graph | None, ids: Ids, table: Table) -> None:
    old: Ids = np.empty(0, np.int64)
    index = None
    if before is not None:
        old = np.where(np.isin(before.moments, ids), before.moments, _GONE)
        if (old == _GONE).mean() > _MAX_GONE:
            old = np.empty(0, np.int64)
        else:
            index = before.read()
    new = np.setdiff1d(ids, old)
    count, dim = len(old) + len(new), table.schema.field("point").type.list_size
    moments = np.lib.format.open_memmap(folder / _MOMENTS, "w+", np.int64, (count,))
    vectors = np.lib.format.open_memmap(folder / _VECTORS, "w+", np.float32, (count, dim))
    moments[: len(old)] = old
    if before is not None and len(old):
        for start in range(0, len(old), _ROWS_AT_ONCE):
            part = before.vectors[start : start + _ROWS_AT_ONCE]
            vectors[start : start + len(part)] = part
    end = len(old)
    for part_ids, part in _read(table, dim):
        chosen = np.isin(part_ids, new)
        start, end = end, end + int(chosen.sum())
        moments[start:end], vectors[start:end] = part_ids[chosen], part[chosen]
    if index is None:
        index = _new_index(dim)
        index.train(np.array(vectors[:: 1 + count // _TRAINING_ROWS]))
    for part in _parts(vectors[len(old) :]):
        index.add(np.ascontiguousarray(part))
    _faiss().write_index(index, str(folder / _HNSW))
    moments.flush()
    vectors.flush()
    write_json(folder / _SUMS, {_HNSW: checksum(folder / _HNSW)})


def _new_index(dim: int) -> Any:
    faiss = _faiss()
    index = faiss.index_factory(dim, f"HNSW{_LINKS}_SQ8", faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_WIDTH
    return index


def _ids(table: Table) -> Ids:
    """The ids of all moments, sorted."""
    rows = table.search().select(["moment"]).limit(max(1, table.count_rows())).to_arrow()
    return np.sort(rows["moment"].to_numpy())


def _read(table: Table, dim: int) -> Iterator[tuple[Ids, Vectors]]:
    """The ids of all moments and their vectors, in parts. Raises ValueError for vectors that are
    none.
    """
    query = table.search().select(["moment", "point"]).limit(max(1, table.count_rows()))
    for batch in query.to_batches(_ROWS_AT_ONCE):
        vectors = batch["point"].flatten().to_numpy().reshape(-1, dim)
        if not (abs(vectors) <= MAX_SCORE).all():  # also refuses NaN
            raise ValueError("embeddings that are no unit vectors")
        yield batch["moment"].to_numpy(), vectors


def _parts(rows: Vectors) -> Iterator[Vectors]:
    return (rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE))


def _mapped(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
