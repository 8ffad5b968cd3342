"""The moments of videos with their embeddings: LanceDB tables, in a folder or at the URL
of an object store.

A moment's vector, (512,), is its frame's embedding followed by its audio's; a silent moment has its
frame's twice. A query q at audio weight w becomes [(1 - w) q, w q]: its dot product with the vector
is (1 - w) (q . frame) + w (q . audio), so one table, and one index over it, serves every weight
(docs/method.md, Evaluation).
"""

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.extras import imports_of

with imports_of("search"):
    import lancedb
    from lancedb.table import AsyncTable, Table

from trimodal.search.graph import CurrentGraph, graph_name, remove_graphs, update_graph
from trimodal.search.nearest import READ_INTERVAL, build_index, nearest, open_for_queries
from trimodal.search.seal import broken_file, remove_seal, write_seal
from trimodal.search.store_errors import StoreError, damaged, local_folder, store_errors
from trimodal.search.tables import (
    CREATING,
    FILES,
    About,
    IndexedVideo,
    MomentHit,
    Record,
    about_row,
    moment_id,
    moments_schema,
    read_about,
    scored,
)

_MIN_ROWS_FOR_INDEX = 50_000  # moments from which on an approximate index is built
_OLD_VERSIONS = timedelta(hours=1)  # after this, no reader uses a replaced version any more


class MomentStore:
    """Reads and changes a store. Each write is atomic. All methods raise StoreError for a store
    that is damaged, and OSError where the machine cannot read or write it.
    """

    def __init__(self, location: str, about: About, record: Record, database: Any) -> None:
        self.location, self.about, self._record = location, about, record
        self._about_table: Table = database.open_table("about")
        self._files: Table = database.open_table("files")
        self.table: Table = database.open_table("moments")
        self._graph = CurrentGraph(local_folder(location), record.identity, self.table)
        self._current_state: tuple[int, ...] | None = None  # when it was last seen to be current

    @classmethod
    def open(cls, location: str) -> Self:
        """Raises NoStoreError if there is none, StoreError if it cannot be read or is damaged."""
        folder = local_folder(location)
        if folder is not None and (broken := broken_file(folder, every_byte=False)):
            raise damaged(location, broken)
        with store_errors(location):
            database = lancedb.connect(location, read_consistency_interval=READ_INTERVAL)
            store = cls(location, *read_about(location, database), database)
            store._check_tables()
            return store

    @classmethod
    def create(cls, location: str, about: About, dim: int) -> Self:
        """Creates an empty store for vectors of 2 x ``dim`` numbers, replacing an existing one."""
        folder = local_folder(location)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CREATING).touch()
            remove_seal(folder)
        record = Record(identity=secrets.token_hex(8))
        with store_errors(location):
            database = lancedb.connect(location)
            existing = database.list_tables().tables
            for name in ("about", "files", "moments"):  # the first marks a complete store
                if name in existing:
                    database.drop_table(name)
            database.create_table("files", schema=FILES)
            database.create_table("moments", schema=moments_schema(dim))
            database.create_table("about", about_row(about, record))
            store = cls(location, about, record, database)
        if folder is not None:
            remove_graphs(folder)
            (folder / CREATING).unlink()
        return store

    @property
    def identity(self) -> str:
        """Identifies what :meth:`create` made: a name for what its numbers mean."""
        return self._record.identity

    @property
    def next_file(self) -> int:
        """The least number that no video of this store has had."""
        return self._record.next_file

    def is_current(self) -> bool:
        """Whether the location still holds this store, not one that was created since."""
        state = self._state()
        if state is not None and state == self._current_state:
            return True
        is_current = self._is_same()
        self._current_state = state if is_current else None
        return is_current

    def _state(self) -> tuple[int, ...] | None:
        """What changes with every version of the table ``about``, and when a store is created: of a
        store on this machine, faster to look at than the table. None for another one.
        """
        folder = local_folder(self.location)
        if folder is None or (folder / CREATING).exists():
            return None
        try:
            states = [(folder / "about.lance" / name).stat() for name in (".", "_versions")]
        except OSError:
            return None
        return tuple(n for s in states for n in (s.st_ino, s.st_mtime_ns, s.st_ctime_ns))

    def _is_same(self) -> bool:
        try:
            database = lancedb.connect(self.location)
            return read_about(self.location, database)[1].identity == self.identity
        except (StoreError, RuntimeError, ValueError, OSError):
            return False

    def _check_tables(self) -> None:
        """Compares the tables with what was recorded. A run in progress, or one that was killed,
        has newer versions of them.
        """
        dim = self.table.schema.field("point").type.list_size // 2
        if self._files.schema != FILES or self.table.schema != moments_schema(dim):
            raise damaged(self.location, "tables of another form")
        record = self._record
        for name, table, version, rows in (
            ("files", self._files, record.files_version, record.files),
            ("moments", self.table, record.moments_version, record.moments),
        ):
            found, counted = int(table.version), int(table.count_rows())
            if found < version or (found == version and counted != rows):
                raise damaged(self.location, f"{counted} {name}, version {found}; recorded were "
                              f"{rows}, version {version}")  # fmt: skip

    def check_every_byte(self) -> None:
        """Raises StoreError if any file has changed since :meth:`seal`. Reads the whole store."""
        folder = local_folder(self.location)
        if folder is not None and (broken := broken_file(folder, every_byte=True)):
            raise damaged(self.location, broken)

    def seal(self) -> None:
        """Notes checksums of all files, for :meth:`open` and :meth:`check_every_byte`; none at a
        URL. The next change removes them.
        """
        folder = local_folder(self.location)
        if folder is not None:
            write_seal(folder)

    def _before_change(self) -> None:
        folder = local_folder(self.location)
        if folder is not None:
            remove_seal(folder)

    def _after_change(self, next_file: int = 0) -> None:
        """Records the change, and makes it visible to this store's own queries at once."""
        self._record = replace(
            self._record,
            next_file=max(next_file, self.next_file),
            files=int(self._files.count_rows()), files_version=int(self._files.version),
            moments=int(self.table.count_rows()), moments_version=int(self.table.version),
        )  # fmt: skip
        self._about_table.add(about_row(self.about, self._record), mode="overwrite")
        for cached in ("_query_table", "folders"):
            self.__dict__.pop(cached, None)
        self._graph.forget()

    def files(self) -> list[IndexedVideo]:
        """All videos, ordered by folder and path."""
        with store_errors(self.location):
            rows = self._files.to_arrow().to_pylist()
        return sorted(map(self._video, rows), key=lambda video: (video.folder, video.path))

    @cached_property
    def folders(self) -> list[str]:
        """The indexed folders in which there are videos."""
        with store_errors(self.location):
            return sorted(self._files.to_arrow()["folder"].unique().to_pylist())

    def file(self, number: int) -> IndexedVideo:
        """The video with this number; raises KeyError if there is none."""
        return self.videos([number])[number]

    def videos(self, numbers: Iterable[int]) -> dict[int, IndexedVideo]:
        """Those of the videos with these numbers that there are, by number."""
        wanted = set(map(int, numbers))
        if not wanted:
            return {}
        listed = ", ".join(map(str, sorted(wanted)))
        with store_errors(self.location):
            rows = self._files.search().where(f"file IN ({listed})").to_list()
        return {row["file"]: self._video(row) for row in rows}

    def _video(self, row: dict[str, Any]) -> IndexedVideo:
        if None in row.values() or not math.isfinite(row["aspect"]):
            raise damaged(self.location, "a video with missing values")
        return IndexedVideo(**row)

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
        self._before_change()
        with store_errors(self.location):
            if moments:
                self.table.add(self._moment_rows(moments, embeddings))
            if files:
                self._files.add(pa.Table.from_pylist([asdict(file) for file in files], FILES))
            self._after_change(max((file.file for file in files), default=-1) + 1)

    def _moment_rows(
        self,
        moments: Sequence[tuple[int, int, bytes, bytes]],
        embeddings: npt.NDArray[np.float32],
    ) -> pa.Table:
        files_of, frames, *jpegs = zip(*moments, strict=True)
        ids = list(map(moment_id, files_of, frames))
        columns: list[Any] = [ids, list(files_of), *map(list, jpegs)]
        dim = embeddings.shape[1]
        flat = pa.array(np.ascontiguousarray(embeddings).ravel(), pa.float32())
        columns.insert(2, pa.FixedSizeListArray.from_arrays(flat, dim))
        return pa.Table.from_arrays(
            [pa.array(c, field.type) if isinstance(c, list) else c
             for c, field in zip(columns, self.table.schema, strict=True)],
            schema=self.table.schema,
        )  # fmt: skip

    def drop(self, files: Iterable[int]) -> None:
        """Removes videos and their moments, those last: if the run is killed before, the next one
        does it.
        """
        numbers = sorted(map(int, files))
        if numbers:
            self._before_change()
            listed = ", ".join(map(str, numbers))
            with store_errors(self.location):
                self._files.delete(f"file IN ({listed})")
                self.table.delete(f"file IN ({listed})")
                self._after_change()

    def drop_unfinished(self) -> None:
        """Removes moments that a killed run left without a video. Raises StoreError if a video's
        moments are not all there.
        """
        with store_errors(self.location):
            column = self.table.search().select(["file"]).limit(max(1, self.moments)).to_arrow()
        counts = Counter(column["file"].to_pylist())
        listed = {video.file: video.moments for video in self.files()}
        for number, moments in listed.items():
            if counts[number] != moments:
                raise damaged(self.location, f"{counts[number]} of a video's {moments} moments")
        last = max(listed, default=-1)
        self._record = replace(self._record, next_file=max(self.next_file, last + 1))
        self.drop(counts.keys() - listed.keys())

    def compact(self) -> None:
        """Merges small fragments into large ones, and builds or extends the graph over the moments
        if there are enough, at a URL LanceDB's approximate index. Without them, search is exact.
        """
        self._before_change()
        folder = local_folder(self.location)
        with store_errors(self.location):
            for table in (self.table, self._files, self._about_table):
                table.optimize(cleanup_older_than=_OLD_VERSIONS)
            many = self.table.count_rows() >= _MIN_ROWS_FOR_INDEX
            indices = self.table.list_indices()
            if folder is None and many and not indices:
                build_index(self.table)
            for index in indices if folder is not None else ():  # of an earlier version
                self.table.drop_index(index.name)
            self._after_change()
            if folder is not None and many:
                name = graph_name(self.identity, self._record.moments_version)
                update_graph(folder, name, self.table)
            elif folder is not None:
                remove_graphs(folder)
            self._graph.forget()

    def search(
        self,
        query: npt.NDArray[np.float32],
        audio_weight: float,
        limit: int,
        *,
        exact: bool = False,
    ) -> list[MomentHit]:
        """The ``limit`` moments most similar to ``query``, best first: a unit vector, (dim,), or
        two, (2, dim), one for frames and one for audio. ``exact`` compares with every moment.
        """
        image, audio = np.broadcast_to(query, (2, query.shape[-1]))
        weighted = np.concatenate([(1 - audio_weight) * image, audio_weight * audio])
        weighted = weighted.astype(np.float32)
        with store_errors(self.location):
            if graph := self._graph.find():
                moments, vectors = graph.nearest(weighted, limit, exact=exact)
            else:
                moments, vectors = nearest(self._query_table, weighted, limit, exact=exact)
            return scored(moments, vectors, weighted)

    @cached_property
    def _query_table(self) -> AsyncTable:
        return open_for_queries(self.location)

    @property
    def searchable_videos(self) -> int:
        """The number of videos that have moments."""
        with store_errors(self.location):
            return int(self._files.count_rows("moments > 0"))

    def images(self, file: int, second: float) -> tuple[bytes, bytes] | None:
        """A moment's thumbnail and mel, both JPEGs; None if there is no such moment."""
        moment = moment_id(file, round(second + 0.5))
        with store_errors(self.location):
            query = self.table.search().where(f"moment = {moment:d}")
            rows = query.select(["thumbnail", "mel"]).limit(1).to_list()
        return (rows[0]["thumbnail"], rows[0]["mel"]) if rows else None

    def embeddings(self, file: int, second: float) -> npt.NDArray[np.float32] | None:
        """A moment's embeddings, (2, dim): its frame's and its audio's, of a silent one the frame's
        twice. None if there is no such moment.
        """
        moment = moment_id(file, round(second + 0.5))
        with store_errors(self.location):
            query = self.table.search().where(f"moment = {moment:d}")
            rows = query.select(["point"]).limit(1).to_list()
        return np.array(rows[0]["point"], np.float32).reshape(2, -1) if rows else None

    def sound(self, file: int, second: float) -> npt.NDArray[np.float32] | None:
        """The audio embedding of a moment, (dim,); None if it is silent or there is none."""
        found = self.embeddings(file, second)
        return None if found is None or np.array_equal(*found) else found[1]

    def sample(self, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Up to ``count`` moments, evenly spread: their videos, (found,), and vectors,
        (found, 512). There must be one.
        """
        offsets = np.linspace(0, self.moments, min(count, self.moments), endpoint=False)
        with store_errors(self.location):
            rows = self.table.take_offsets(offsets.astype(int).tolist())
            table = rows.select(["file", "point"]).to_arrow()
        points = table["point"].combine_chunks().flatten().to_numpy()
        return table["file"].to_numpy(), points.reshape(len(table), -1)

    @property
    def moments(self) -> int:
        """The number of moments."""
        with store_errors(self.location):
            return int(self.table.count_rows())
