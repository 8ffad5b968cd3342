"""The nearest moments to a query: LanceDB's exact search, and its approximate index."""

import asyncio
import threading
from collections.abc import Coroutine
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import lancedb
import numpy as np
import numpy.typing as npt
from lancedb.index import HnswFlat
from lancedb.table import AsyncTable, Table

Result = TypeVar("Result")

READ_INTERVAL = timedelta(seconds=5)  # by then a change by another run is seen
_MIN_CANDIDATES = 80  # that the approximate index considers in a query


def build_index(moments: Table) -> None:
    """Builds an approximate index over the vectors: HNSW, without quantisation."""
    config = HnswFlat(distance_type="dot", m=20, ef_construction=150)
    moments.create_index("point", config=config, replace=True)


def open_for_queries(location: str) -> AsyncTable:
    """The table of moments through LanceDB's asynchronous interface, which is faster than the
    synchronous one by a millisecond per query.
    """

    async def open_table() -> AsyncTable:
        database = await lancedb.connect_async(location, read_consistency_interval=READ_INTERVAL)
        return await database.open_table("moments")

    return _wait_for(open_table())


def nearest(
    moments: AsyncTable, query: npt.NDArray[np.float32], limit: int, *, exact: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The ids of the nearest moments, (found,), and their vectors, (found, 512), best first; exact
    without an index.
    """
    search = moments.query().nearest_to(query).column("point").distance_type("dot")
    search = search.ef(max(_MIN_CANDIDATES, limit))
    if exact:
        search = search.bypass_vector_index()
    # Of rows that are read anyway, and of the same version of the table.
    rows = _wait_for(search.select(["moment", "point", "_distance"]).limit(limit).to_arrow())
    points = rows["point"].combine_chunks().flatten().to_numpy()
    return rows["moment"].to_numpy(), points.reshape(len(rows), len(query))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _wait_for(coroutine: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()
