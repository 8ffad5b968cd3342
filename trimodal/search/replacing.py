"""A folder that is replaced as a whole: it never holds files of two models."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from trimodal.core.errors import UserError
from trimodal.core.files import remove


class ExportError(UserError, RuntimeError):
    """A model that cannot be written: the folder is in use for something else, an exported encoder
    disagrees with PyTorch's, or a package is not installed.
    """


@contextmanager
def replacing(folder: Path, files: Set[str]) -> Iterator[Path]:
    """Yields an empty folder that replaces ``folder`` if the block succeeds. A kill leaves the old
    one, the new one or none. Raises ExportError if ``folder`` has others than these files in it.
    """
    folder = folder.absolute().resolve()
    if folder == Path.cwd() or (folder.exists() and not folder.is_dir()):
        raise ExportError(f"{folder}: cannot be replaced; name a new folder")
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - files)):
        raise ExportError(f"{folder}: has other files in it, {others[0]!r}; name a new folder")
    new, old = (folder.with_name(f".{folder.name}.{which}.tmp") for which in ("new", "old"))
    try:
        for leftover in (new, old):
            remove(leftover)
        new.mkdir(parents=True)
        yield new
        if folder.is_dir():
            folder.rename(old)
        new.rename(folder)
    finally:
        for leftover in (new, old):
            remove(leftover)
