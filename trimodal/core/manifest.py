"""The clip manifest ``data/clips/manifest.parquet``: the outcome of every requested clip."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.archives import StoredFile
from trimodal.core.files import read_table, write_table
from trimodal.core.records import Clip, ClipStatus, DataError, Split, check_name
from trimodal.core.storage import storage_path

SCHEMA = pa.schema(
    {
        "clip_id": pa.string(),
        "source": pa.string(),
        "split": pa.string(),
        "label": pa.string(),
        "youtube_id": pa.string(),  # empty if unknown
        "path": pa.string(),
        "member": pa.string(),  # within the archive ``path``; empty for a plain file
        "offset": pa.int64(),
        "status": pa.string(),
        "reason": pa.string(),
        "duration_s": pa.float64(),
        "has_audio": pa.bool_(),
        "bytes": pa.int64(),
        "attempts": pa.int32(),
        "updated_at": pa.timestamp("s", tz="UTC"),
        "fingerprint": pa.string(),  # of what the stage itself made; empty for other files
    }
)
_ROWS_AT_ONCE = 10_000  # held in memory as dictionaries
# Parquet has no unit of seconds.
_TIME = SCHEMA.get_field_index("updated_at")
_STORED = SCHEMA.set(_TIME, pa.field("updated_at", pa.timestamp("ms", tz="UTC")))
_BEFORE_FINGERPRINTS = _STORED.remove(SCHEMA.get_field_index("fingerprint"))
_KNOWN = {
    "status": get_args(ClipStatus),
    "source": ("vggsound", "msrvtt", "own"),
    "split": get_args(Split),
}


@dataclass(frozen=True, kw_only=True)
class ClipOutcome:
    """A row of the manifest. ``path`` is relative to the repository's root where possible; for a
    clip in an archive it is the archive's, and ``member`` and ``offset`` say where in it.

    ``updated_at`` is the modification time of the file or archive (seconds since 1970), so that the
    same files give the same manifest again; None if there is no file or the demo rendered it.
    ``fingerprint`` (:func:`~trimodal.core.fingerprint.file_fingerprint`) is that of a file that the
    stage rendered or fetched, so that it notices one that has been damaged since.
    """

    clip: Clip
    path: str
    member: str = ""
    offset: int = 0
    status: ClipStatus
    reason: str = ""
    duration_s: float = 0.0
    has_audio: bool = False
    bytes: int = 0
    attempts: int = 1
    updated_at: int | None = None
    fingerprint: str = ""

    @property
    def file(self) -> StoredFile:
        """Where the clip's bytes are."""
        return StoredFile(
            path=storage_path(self.path), member=self.member, offset=self.offset, size=self.bytes
        )


def write_manifest(path: Path, outcomes: list[ClipOutcome]) -> None:
    """Writes the rows in the given order."""
    parts = [SCHEMA.empty_table()]
    for first in range(0, len(outcomes), _ROWS_AT_ONCE):
        rows = [asdict(outcome) for outcome in outcomes[first : first + _ROWS_AT_ONCE]]
        parts.append(pa.Table.from_pylist([row | row.pop("clip") for row in rows], SCHEMA))
    write_table(path, pa.concat_tables(parts).combine_chunks())


def read_manifest(path: Path) -> list[ClipOutcome]:
    """Reads the manifest in its order, also one without fingerprints, of an earlier version. Raises
    DataError, naming the file, for another table and for invalid values.
    """
    table = _read(path)
    seconds = pc.divide(table["updated_at"].cast(pa.int64()), 1000)
    table = table.set_column(_TIME, "updated_at", seconds)
    for name, known in _KNOWN.items():
        if unknown := set(table[name].unique().to_pylist()) - set(known):
            raise DataError(f"{path}: {name} {min(unknown)!r} is not one of {', '.join(known)}")
    for name in ("offset", "duration_s", "bytes", "attempts"):
        values = table[name].to_numpy()
        if not ((values >= 0) & (values < np.inf)).all():
            raise DataError(f"{path}: a value of {name} is negative or not finite")
    for name in table["clip_id"].to_pylist():
        check_name(name, str(path))
    clip_fields = ("clip_id", "source", "split", "label", "youtube_id")
    return [
        ClipOutcome(clip=Clip(**{name: row.pop(name) for name in clip_fields}), **row)
        for part in table.to_batches(_ROWS_AT_ONCE)
        for row in part.to_pylist()
    ]


def _read(path: Path) -> pa.Table:
    try:
        return read_table(path, _STORED, nullable=["updated_at"])
    except DataError as error:
        try:
            older = read_table(path, _BEFORE_FINGERPRINTS, nullable=["updated_at"])
        except DataError:
            raise error from None
    empty = pa.array([""] * len(older), pa.string())
    return older.append_column("fingerprint", empty)
