"""The moments of a folder's videos with their points: LanceDB tables, in a folder or at the URL of
an object store.

A moment's point is its picture's and its sound's behind one another, (512,); a silent one has its
picture's twice. A query q at audio weight w asks for [(1 - w) q, w q]: the dot product is then
(1 - w) (q . picture) + w (q . sound), so that one table, and one index over it, serves every weight
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

Answer = TypeVar("Answer")

FORMAT = 1
FRAME_BITS = 20  # of a moment's number: an index of frames for twelve days
_ANN_ROWS = 50_000  # from so many moments on an approximate index is built
_FRESH = timedelta(seconds=5)  # what another run has added is seen by then
_OLD = timedelta(hours=1)  # a version that nobody reads any more
_CANDIDATES = 80  # at least so many the index looks at on the way to its results


class StoreError(UserError, ValueError):
    """No store of moments, one of another folder or of another format."""


class NoStoreError(StoreError):
    """Nothing has been indexed at this place."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a store holds: whose moments, as which model sees and hears them."""

    folder: str
    model: str
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A video as it was when it was looked at, and what came of it. ``path`` is relative to the
    folder; without ``moments`` its ``problem`` says why.
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
class Found:
    """A moment's place, and how well it fits what was asked, in [-1, 1]."""

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
    """Reads and changes a store. What is written in one call is there as a whole or not at all."""

    def __init__(self, place: str, about: About, database: Any) -> None:
        self.place, self.about = place, about
        self._files: Table = database.open_table("files")
        self.table: Table = database.open_table("moments")

    @classmethod
    def open(cls, place: str) -> Self:
        """Raises NoStoreError if there is none, StoreError if it cannot be read."""
        database = lancedb.connect(place, read_consistency_interval=_FRESH)
        if "about" not in database.list_tables().tables:
            raise NoStoreError(f"{place}: no index; make one with `trimodal index FOLDER`")
        try:
            about = database.open_table("about").to_arrow().to_pylist()
            if len(about) != 1 or about[0].get("format") != FORMAT:
                raise StoreError(f"{place}: an index of another format; delete it and index again")
            return cls(place, About(**about[0]), database)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{place}: damaged ({error}); delete it and index again") from error

    @classmethod
    def create(cls, place: str, about: About, dim: int) -> Self:
        """An empty store for points of 2 x ``dim`` numbers, in place of the one that is there."""
        database = lancedb.connect(place)
        there = database.list_tables().tables
        for name in ("about", "files", "moments"):  # the first is the mark of a whole store
            if name in there:
                database.drop_table(name)
        database.create_table("files", schema=_FILES)
        database.create_table("moments", schema=_moments_schema(dim))
        database.create_table("about", pa.Table.from_pylist([asdict(about)], _ABOUT))
        return cls(place, about, database)

    def files(self) -> list[StoredFile]:
        """All videos, in the order of their paths."""
        rows = self._files.to_arrow().to_pylist()
        return sorted((StoredFile(**row) for row in rows), key=lambda stored: stored.path)

    def file(self, number: int) -> StoredFile:
        """The video with a number; KeyError if there is none."""
        for row in self._files.search().where(f"file = {number:d}").to_list():
            return StoredFile(**row)
        raise KeyError(number)

    def add(
        self,
        files: Sequence[StoredFile],
        moments: Sequence[tuple[int, int, bytes, bytes]],
        points: npt.NDArray[np.float32],
    ) -> None:
        """Adds videos and all their moments (file, frame, thumbnail and mel as JPEG) with their
        points, (moments, 512). The videos come last: a killed run has not yet looked at them.
        """
        if moments:
            files_of, frames, *pictures = zip(*moments, strict=True)
            names = list(map(_moment, files_of, frames))
            columns: list[Any] = [names, list(files_of), *map(list, pictures)]
            dim = points.shape[1]
            flat = pa.array(np.ascontiguousarray(points).ravel(), pa.float32())
            columns.insert(2, pa.FixedSizeListArray.from_arrays(flat, dim))
            self.table.add(pa.Table.from_arrays(
                [pa.array(c, field.type) if isinstance(c, list) else c
                 for c, field in zip(columns, self.table.schema, strict=True)],
                schema=self.table.schema,
            ))  # fmt: skip
        if files:
            self._files.add(pa.Table.from_pylist([asdict(file) for file in files], _FILES))
        self._changed()

    def drop(self, files: Iterable[int]) -> None:
        """Removes videos and their moments."""
        if listed := ", ".join(str(int(number)) for number in files):
            self.table.delete(f"file IN ({listed})")
            self._files.delete(f"file IN ({listed})")
        self._changed()

    def drop_unfinished(self) -> None:
        """Removes the moments that a killed run has left without their videos."""
        known = max((stored.file for stored in self.files()), default=-1)
        self.table.delete(f"file > {known}")
        self._changed()

    def settle(self) -> None:
        """Folds small pieces into large ones, and builds or extends the approximate index where
        there are enough moments for one. Without it exact search takes its place.
        """
        for table in (self.table, self._files):
            table.optimize(cleanup_older_than=_OLD)
        rows = self.table.count_rows()
        indexed = bool(self.table.list_indices())
        if rows >= _ANN_ROWS and not indexed:
            build_index(self.table)
        self._changed()

    def search(
        self,
        query: npt.NDArray[np.float32],
        audio_weight: float,
        most: int,
        *,
        exact: bool = False,
    ) -> list[Found]:
        """The moments that fit a unit vector (256,) best, at most ``most``, best first. ``exact``
        does without the index, which takes seconds to load where there are a million moments.
        """
        asked = np.concatenate([(1 - audio_weight) * query, audio_weight * query])
        moments, scores = nearest(self._asked, asked, most, exact=exact)
        return [
            Found(
                file=moment >> FRAME_BITS,
                second=frame_centre_seconds(moment & (1 << FRAME_BITS) - 1),
                score=score,
            )
            for moment, score in zip(moments, scores, strict=True)
        ]

    @cached_property
    def _asked(self) -> AsyncTable:
        return open_for_questions(self.place)

    def _changed(self) -> None:
        """What this store has written itself is found at once."""
        self.__dict__.pop("_asked", None)

    def pictures(self, file: int, second: float) -> tuple[bytes, bytes] | None:
        """A moment's thumbnail and mel, both JPEG; None if there is no such moment."""
        moment = _moment(file, round(second + 0.5))
        found = self.table.search().where(f"moment = {moment:d}")
        rows = found.select(["thumbnail", "mel"]).limit(1).to_list()
        return (rows[0]["thumbnail"], rows[0]["mel"]) if rows else None

    @property
    def moments(self) -> int:
        """How many there are."""
        return int(self.table.count_rows())


def build_index(moments: Table) -> None:
    """An approximate index over the points: a graph of neighbours (HNSW), the points in full."""
    config = HnswFlat(distance_type="dot", m=20, ef_construction=150)
    moments.create_index("point", config=config, replace=True)


def open_for_questions(place: str) -> AsyncTable:
    """The table of moments through LanceDB's asynchronous interface, which answers a millisecond
    sooner than the one that waits.
    """

    async def opened() -> AsyncTable:
        database = await lancedb.connect_async(place, read_consistency_interval=_FRESH)
        return await database.open_table("moments")

    return _wait_for(opened())


def nearest(
    moments: AsyncTable, query: npt.NDArray[np.float32], most: int, *, exact: bool = False
) -> tuple[list[int], list[float]]:
    """The nearest moments and their dot products, best first; exact without an index."""
    found = moments.query().nearest_to(query).column("point").distance_type("dot")
    found = found.ef(max(_CANDIDATES, most))
    if exact:
        found = found.bypass_vector_index()
    rows = _wait_for(found.select(["moment", "_distance"]).limit(most).to_arrow())
    return rows["moment"].to_pylist(), (1 - rows["_distance"].to_numpy()).tolist()


def _moment(file: int, frame: int) -> int:
    """A moment in one number: an index answers sooner for one column than for two."""
    return file << FRAME_BITS | frame


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _wait_for(answer: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run_coroutine_threadsafe(answer, _loop()).result()
