"""Embeddings kept in Parquet under an identity: what they were made of and by which code. While it
is the same nothing is embedded again, so that protocols, weights and measures are a switch.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trimodal.core.files import read_table, write_table
from trimodal.core.progress import log
from trimodal.core.records import DataError

_IDENTITY, _FACTS = "identity", "facts"


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A table, and what else was known when it was written, as JSON."""

    table: pa.Table
    facts: dict[str, Any]


def write_cached(path: Path, table: pa.Table, identity: str, facts: dict[str, Any]) -> None:
    """Writes a table for :func:`read_cached`."""
    metadata = {_IDENTITY: identity, _FACTS: json.dumps(facts, sort_keys=True)}
    write_table(path, table.replace_schema_metadata(metadata))


def read_cached(path: Path, identity: str, *, nullable: Collection[str] = ()) -> Cached | None:
    """What :func:`write_cached` wrote under this ``identity``; None for nothing, for another one
    and, with a line in the log, for a damaged file.
    """
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        if metadata.get(_IDENTITY.encode()) != identity.encode():
            return None
        table = read_table(path, nullable=nullable)
    except (DataError, pa.ArrowException) as error:
        log.info(f"evaluate: embedding again: {error}")
        return None
    return Cached(table=table, facts=json.loads(metadata[_FACTS.encode()]))


def vector_column(
    rows: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """(rows, dim) as a column of vectors, null where not ``valid``, (rows,)."""
    values = pa.array(np.ascontiguousarray(rows).ravel(), pa.float32())
    is_null = None if valid is None else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=is_null)


def matrix_of(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """(rows, dim) of a column of vectors; a null row is zero."""
    array = column.combine_chunks()
    matrix = np.zeros((len(array), array.type.list_size), np.float32)
    present = np.array(array.is_valid())
    matrix[present] = array.drop_null().flatten().to_numpy().reshape(-1, matrix.shape[1])
    return matrix
