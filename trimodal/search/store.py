"""The moments of a folder's videos with their embeddings: LanceDB tables, in a folder or at the URL
of an object store.

A moment's vector, (512,), is its frame's embedding followed by its audio's; a silent moment has its
frame's twice. A query q at audio weight w becomes [(1 - w) q, w q]: its dot product with the vector
is (1 - w) (q . frame) + w (q . audio), so one table, and one index over it, serves every weight
(docs/method.md, Evaluation).
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache, cached_property
from typing import Any, Self, TypeVar

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.index import HnswFlat
from lancedb.table import AsyncTable, Table

from trimodal.core.errors import UserError
from trimodal.core.timing import frame_centre_seconds

Result = TypeVar("Result")

FORMAT = 1
FRAME_BITS = 20  # of a moment's number: enough for a video of twelve days
_MIN_ROWS_FOR_INDEX = 50_000  # moments from which on an approximate index is built
_READ_INTERVAL = timedelta(seconds=5)  # by then a change by another run is seen
_OLD_VERSIONS = timedelta(hours=1)  # after this, no reader uses a replaced version any more
_MIN_CANDIDATES = 80  # that the approximate index considers in a query


class StoreError(UserError, ValueError):
    """A store that is missing, damaged, of another folder or of another format."""


class NoStoreError(StoreError):
    """There is no store at this location."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a store holds: the indexed folder and the fingerprint of the model."""

    folder: str
    model: str
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class IndexedVideo:
    """A video as it was when it was indexed; a row of the table ``files``. ``file`` is its number,
    ``path`` is relative to the folder; if it has no ``moments``, ``problem`` says why.
    """

    file: int
    path: str
    bytes: int
    modified_ns: int
    moments: int
    has_audio: bool
    aspect: float
    problem: str


@dataclass(frozen=True, kw_only=True)
class MomentHit:
    """A moment (the video's number, the second) and its similarity to the query, in [-1, 1]."""

    file: int
    second: float
    score: float


_FILES = pa.schema(
    {
        "file": pa.int32(), "path": pa.string(), "bytes": pa.int64(), "modified_ns": pa.int64(),
        "moments": pa.int32(), "has_audio": pa.bool_(), "aspect": pa.float32(),
        "problem": pa.string(),
    }
)  # fmt: skip
_ABOUT = pa.schema({"folder": pa.string(), "model": pa.string(), "format": pa.int32()})


def _moments_schema(dim: int) -> pa.Schema:
    return pa.schema(
        {
            "moment": pa.int64(), "file": pa.int32(), "point": pa.list_(pa.float32(), 2 * dim),
            "thumbnail": pa.binary(), "mel": pa.binary(),
        }
    )  # fmt: skip


class MomentStore:
    """Reads and changes a store. Each write is atomic."""

    def __init__(self, location: str, about: About, database: Any) -> None:
        self.location, self.about = location, about
        self._files: Table = database.open_table("files")
        self.table: Table = database.open_table("moments")

    @classmethod
    def open(cls, location: str) -> Self:
        """Raises NoStoreError if there is none, StoreError if it cannot be read."""
        database = lancedb.connect(location, read_consistency_interval=_READ_INTERVAL)
        if "about" not in database.list_tables().tables:
            raise NoStoreError(f"{location}: no index; create one with `trimodal index FOLDER`")
        try:
            about = database.open_table("about").to_arrow().to_pylist()
            if len(about) != 1 or about[0].get("format") != FORMAT:
                raise StoreError(
                    f"{location}: an index of another format; delete it and index again"
                )
            return cls(location, About(**about[0]), database)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{location}: damaged ({error}); delete it and index again") from error

    @classmethod
    def create(cls, location: str, about: About, dim: int) -> Self:
        """Creates an empty store for vectors of 2 x ``dim`` numbers, replacing an existing one."""
        database = lancedb.connect(location)
        existing = database.list_tables().tables
        for name in ("about", "files", "moments"):  # the first marks a complete store
            if name in existing:
                database.drop_table(name)
        database.create_table("files", schema=_FILES)
        database.create_table("moments", schema=_moments_schema(dim))
        database.create_table("about", pa.Table.from_pylist([asdict(about)], _ABOUT))
        return cls(location, about, database)

    def files(self) -> list[IndexedVideo]:
        """All videos, ordered by path."""
        rows = self._files.to_arrow().to_pylist()
        return sorted((IndexedVideo(**row) for row in rows), key=lambda video: video.path)

    def file(self, number: int) -> IndexedVideo:
        """The video with this number; raises KeyError if there is none."""
        for row in self._files.search().where(f"file = {number:d}").to_list():
            return IndexedVideo(**row)
        raise KeyError(number)

    def add(
        self,
        files: Sequence[IndexedVideo],
        moments: Sequence[tuple[int, int, bytes, bytes]],
        embeddings: npt.NDArray[np.float32],
    ) -> None:
        """Adds videos and all their moments (file, frame, thumbnail and mel as JPEG) with their
        embeddings, (moments, 512). The videos are written last: if the run is killed before, they
        are indexed again.
        """
        if moments:
            files_of, frames, *jpegs = zip(*moments, strict=True)
            ids = list(map(_moment_id, files_of, frames))
            columns: list[Any] = [ids, list(files_of), *map(list, jpegs)]
            dim = embeddings.shape[1]
            flat = pa.array(np.ascontiguousarray(embeddings).ravel(), pa.float32())
            columns.insert(2, pa.FixedSizeListArray.from_arrays(flat, dim))
            self.table.add(pa.Table.from_arrays(
                [pa.array(c, field.type) if isinstance(c, list) else c
                 for c, field in zip(columns, self.table.schema, strict=True)],
                schema=self.table.schema,
            ))  # fmt: skip
        if files:
            self._files.add(pa.Table.from_pylist([asdict(file) for file in files], _FILES))
        self._reopen_for_queries()

    def drop(self, files: Iterable[int]) -> None:
        """Removes videos and their moments."""
        if listed := ", ".join(str(int(number)) for number in files):
            self.table.delete(f"file IN ({listed})")
            self._files.delete(f"file IN ({listed})")
        self._reopen_for_queries()

    def drop_unfinished(self) -> None:
        """Removes moments that a killed run left without a video."""
        last = max((video.file for video in self.files()), default=-1)
        self.table.delete(f"file > {last}")
        self._reopen_for_queries()

    def compact(self) -> None:
        """Merges small fragments into large ones, and builds or extends the approximate index if
        there are enough moments. Without an index, search is exact.
        """
        for table in (self.table, self._files):
            table.optimize(cleanup_older_than=_OLD_VERSIONS)
        rows = self.table.count_rows()
        indexed = bool(self.table.list_indices())
        if rows >= _MIN_ROWS_FOR_INDEX and not indexed:
            build_index(self.table)
        self._reopen_for_queries()

    def search(
        self,
        query: npt.NDArray[np.float32],
        audio_weight: float,
        limit: int,
        *,
        exact: bool = False,
    ) -> list[MomentHit]:
        """The ``limit`` moments most similar to ``query``, a unit vector (256,), best first.
        ``exact`` bypasses the index, which takes seconds to load for a million moments.
        """
        weighted = np.concatenate([(1 - audio_weight) * query, audio_weight * query])
        moments, scores = nearest(self._query_table, weighted, limit, exact=exact)
        return [
            MomentHit(
                file=moment >> FRAME_BITS,
                second=frame_centre_seconds(moment & (1 << FRAME_BITS) - 1),
                score=score,
            )
            for moment, score in zip(moments, scores, strict=True)
        ]

    @cached_property
    def _query_table(self) -> AsyncTable:
        return open_for_queries(self.location)

    def _reopen_for_queries(self) -> None:
        """Makes this store's own changes visible to queries at once."""
        self.__dict__.pop("_query_table", None)

    def images(self, file: int, second: float) -> tuple[bytes, bytes] | None:
        """A moment's thumbnail and mel, both JPEGs; None if there is no such moment."""
        moment = _moment_id(file, round(second + 0.5))
        query = self.table.search().where(f"moment = {moment:d}")
        rows = query.select(["thumbnail", "mel"]).limit(1).to_list()
        return (rows[0]["thumbnail"], rows[0]["mel"]) if rows else None

    @property
    def moments(self) -> int:
        """The number of moments."""
        return int(self.table.count_rows())


def build_index(moments: Table) -> None:
    """Builds an approximate index over the vectors: HNSW, without quantisation."""
    config = HnswFlat(distance_type="dot", m=20, ef_construction=150)
    moments.create_index("point", config=config, replace=True)


def open_for_queries(location: str) -> AsyncTable:
    """The table of moments through LanceDB's asynchronous interface, which is faster than the
    synchronous one by a millisecond per query.
    """

    async def open_table() -> AsyncTable:
        database = await lancedb.connect_async(location, read_consistency_interval=_READ_INTERVAL)
        return await database.open_table("moments")

    return _wait_for(open_table())


def nearest(
    moments: AsyncTable, query: npt.NDArray[np.float32], limit: int, *, exact: bool = False
) -> tuple[list[int], list[float]]:
    """The ids of the nearest moments and their dot products, best first; exact without an index."""
    search = moments.query().nearest_to(query).column("point").distance_type("dot")
    search = search.ef(max(_MIN_CANDIDATES, limit))
    if exact:
        search = search.bypass_vector_index()
    rows = _wait_for(search.select(["moment", "_distance"]).limit(limit).to_arrow())
    return rows["moment"].to_pylist(), (1 - rows["_distance"].to_numpy()).tolist()


def _moment_id(file: int, frame: int) -> int:
    """A moment's id in one number: returning one column is faster than two."""
    return file << FRAME_BITS | frame


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _wait_for(coroutine: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()
