"""The tables of a store: ``files`` has a row for each video, ``moments`` one for each second of
them, ``about`` a single one.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.timing import frame_centre_seconds
from trimodal.search.store_errors import StoreError, damaged, local_folder, no_store

FORMAT = 3
FRAME_BITS = 20  # of a moment's id: enough for a video of twelve days
MAX_SCORE = 1.01  # of unit vectors, rounding included
CREATING = ".creating"  # a file beside the tables of a store that is not complete


@dataclass(frozen=True, kw_only=True)
class About:
    """What a store holds: embeddings by the model of this fingerprint."""

    model: str
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was true after the last change: ``identity``, which no other store has; the number of
    the next video; rows and versions of the tables.
    """

    identity: str
    next_file: int = 0
    files: int = 0
    moments: int = 0
    files_version: int = 1
    moments_version: int = 1


@dataclass(frozen=True, kw_only=True)
class IndexedVideo:
    """A video as it was when it was indexed; a row of the table ``files``. ``file`` is its number,
    which no other video of the store ever has; ``path`` is relative to ``folder``, the indexed
    folder's absolute path; ``real`` is where it leads if there is a link on the way. If it has no
    ``moments``, ``problem`` says why.
    """

    file: int
    folder: str
    path: str
    bytes: int
    modified_ns: int
    moments: int
    has_audio: bool
    aspect: float
    problem: str
    real: str = ""


@dataclass(frozen=True, kw_only=True)
class MomentHit:
    """A moment (the video's number, the second) and its similarity to the query, in [-1, 1]: the
    sum of what its frame and its audio gave, ``from_audio`` being None for a silent moment.
    """

    file: int
    second: float
    score: float
    from_image: float
    from_audio: float | None


def moment_id(file: int, frame: int) -> int:
    """A moment's id in one number: returning one column is faster than two."""
    return file << FRAME_BITS | frame


def scored(
    moments: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    weighted: npt.NDArray[np.float32],
) -> list[MomentHit]:
    """Moments, (found,), best first, from their vectors, (found, 512), and a query's, (512,).
    Raises ValueError for vectors that are not of two unit vectors.
    """
    dim = len(weighted) // 2
    parts = (vectors * weighted).reshape(-1, 2, dim).sum(axis=2, dtype=np.float64)
    scores = parts.sum(axis=1)
    if not (abs(scores) <= MAX_SCORE).all():  # also refuses NaN
        raise ValueError("embeddings that are no unit vectors")
    silent = (vectors[:, :dim] == vectors[:, dim:]).all(axis=1)
    hits = []
    for row in np.argsort(-scores, kind="stable"):
        image, audio = parts[row].tolist()
        hits.append(
            MomentHit(
                file=int(moments[row] >> FRAME_BITS),
                second=frame_centre_seconds(int(moments[row] & (1 << FRAME_BITS) - 1)),
                score=image + audio,
                from_image=image + audio if silent[row] else image,
                from_audio=None if silent[row] else audio,
            )
        )
    return hits


FILES = pa.schema(
    {
        "file": pa.int32(), "folder": pa.string(), "path": pa.string(), "bytes": pa.int64(),
        "modified_ns": pa.int64(), "moments": pa.int32(), "has_audio": pa.bool_(),
        "aspect": pa.float32(), "problem": pa.string(), "real": pa.string(),
    }
)  # fmt: skip
ABOUT = pa.schema(
    {
        "model": pa.string(), "format": pa.int32(), "identity": pa.string(),
        "next_file": pa.int32(), "files": pa.int64(), "moments": pa.int64(),
        "files_version": pa.int64(), "moments_version": pa.int64(),
    }
)  # fmt: skip


def moments_schema(dim: int) -> pa.Schema:
    """The table ``moments`` for embeddings of ``dim`` numbers."""
    return pa.schema(
        {
            "moment": pa.int64(), "file": pa.int32(), "point": pa.list_(pa.float32(), 2 * dim),
            "thumbnail": pa.binary(), "mel": pa.binary(),
        }
    )  # fmt: skip


def read_about(location: str, database: Any) -> tuple[About, Record]:
    """The row of the table ``about``; raises NoStoreError if there is no complete store."""
    folder = local_folder(location)
    incomplete = folder is not None and (folder / CREATING).exists()
    if incomplete or "about" not in database.list_tables().tables:
        raise no_store(location)
    rows = database.open_table("about").to_arrow().to_pylist()
    if len(rows) != 1 or rows[0].get("format") != FORMAT:
        raise StoreError(
            f"{location}: an index of another format; delete it and index again "
            "(`trimodal index FOLDER --rebuild`)"
        )
    if rows[0].keys() != set(ABOUT.names) or None in rows[0].values():
        raise damaged(location, "the table about lacks values")
    about = {field.name: rows[0].pop(field.name) for field in fields(About)}
    return About(**about), Record(**rows[0])


def about_row(about: About, record: Record) -> pa.Table:
    """The table ``about``, a row."""
    return pa.Table.from_pylist([asdict(about) | asdict(record)], ABOUT)
