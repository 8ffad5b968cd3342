"""What an earlier run of the stage left."""

from pathlib import Path

from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.core.progress import log
from trimodal.core.records import DataError


def read_earlier_manifest(path: Path) -> list[ClipOutcome]:
    """The rows that an earlier run left. A manifest that is missing, damaged or of another version
    has none; the log says so.
    """
    if not path.exists():
        return []
    try:
        return read_manifest(path)
    except DataError as error:
        log.info(f"download: {error}; it is made anew")
        return []
