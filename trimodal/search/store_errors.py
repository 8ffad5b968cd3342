"""What can be wrong with a store, as errors of one line."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimodal.core.display import printable
from trimodal.core.errors import UserError

_MAX_DETAIL = 200
# Errors of the disk or of this account's rights: the store itself may be whole.
_NOT_THE_STORES = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO,
        errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
        errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip


class StoreError(UserError, ValueError):
    """A store that is missing, damaged, empty or of another format."""


class NoStoreError(StoreError):
    """There is no store at this location."""


def no_store(location: str) -> NoStoreError:
    """The error of a location without a store."""
    return NoStoreError(f"{location}: no index; create one with `trimodal index FOLDER`")


def local_folder(location: str) -> Path | None:
    """The folder of a store on this machine; None for a URL."""
    return None if "://" in location else Path(location)


def damaged(location: str, detail: str) -> StoreError:
    """The error of a store that cannot be trusted."""
    detail = printable(" ".join(detail.split()))[:_MAX_DETAIL]
    if local_folder(location) is None:  # it may as well be unreachable
        return StoreError(
            f"{location}: cannot be read ({detail}); if it is damaged, delete it and index again "
            "(`trimodal index FOLDER --rebuild`)"
        )
    return StoreError(
        f"{location}: damaged ({detail}); delete it and index again "
        "(`trimodal index FOLDER --rebuild`)"
    )


@contextmanager
def store_errors(location: str) -> Iterator[None]:
    """Turns what LanceDB raises into StoreError, or OSError where the machine is the cause."""
    import pyarrow as pa  # here: a command that finds no store does without

    try:
        yield
    except StoreError:
        raise
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"os error (\d+)", str(error))):
            number = int(found[1])
        if number in _NOT_THE_STORES:
            raise OSError(number, os.strerror(number), location) from error
        raise damaged(location, str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of LanceDB's Rust code
            raise
        raise damaged(location, str(error)) from error
