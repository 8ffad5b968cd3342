"""Files and folders on this machine, or at URLs of an object store (s3://bucket/folder).

A path on a store behaves like a Path (universal_pathlib), but every access costs a request: files
are read and written whole, through a temporary file. Credentials come from the environment
variables and files of the store's own library.
"""

from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from trimodal.core.records import DataError


def storage_path(text: str) -> Path:
    """The file or folder that a path or a URL names; a file:// URL is a path on this machine.
    Raises DataError for other protocols, and if the store's library is not installed.
    """
    protocol, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if protocol == "file":
        return Path(unquote(urlsplit(text).path))
    if protocol != "s3" or not rest.strip("/"):
        raise DataError(f"{text!r} is neither a path nor a URL that begins with s3:// or file://")
    try:
        from upath import UPath

        # Not cached: other machines write here too.
        path = UPath(text, use_listings_cache=False, skip_instance_cache=False)
        _ = path.fs
    except ImportError as error:
        raise DataError(f"{text}: {error}; pip install 'trimodal[s3]'") from error
    return cast(Path, path)


def is_remote(path: Path) -> bool:
    """Whether a path is on an object store."""
    return not isinstance(path, Path)


def is_store_error(error: BaseException) -> bool:
    """Whether the store's library raised this: the store cannot be reached or denies access."""
    return type(error).__module__.partition(".")[0] in ("aiobotocore", "botocore")


def _remote_state(path: Path) -> list[Any]:
    """Size and entity tag of a file on a store, which change with its content. Raises OSError."""
    remote = cast(Any, path)
    info = remote.fs.info(remote.path)
    return [info["size"], info["ETag"]]


def file_state(path: Path) -> list[Any] | None:
    """Size and modification time of a file (on an object store its entity tag), which show whether
    it has changed; None if it does not exist.
    """
    try:
        if is_remote(path):
            return _remote_state(path)
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def download(path: Path, local: Path) -> None:
    """Copies a file from a store to this machine. Raises OSError."""
    remote = cast(Any, path)
    remote.fs.get_file(remote.path, str(local))


def upload(local: Path, path: Path) -> None:
    """Copies a file to a store, where it appears when it is complete. Raises OSError."""
    remote = cast(Any, path)
    remote.fs.put_file(str(local), remote.path)


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, in any order. Raises OSError; a folder that does not exist on a store
    has none.
    """
    if not is_remote(folder):
        return [path for path in folder.iterdir() if _is_file(path)]
    remote = cast(Any, folder)
    if not remote.fs.isdir(remote.path):
        return []
    rows = remote.fs.ls(remote.path, detail=True)
    names = (row["name"].rpartition("/")[2] for row in rows if row["type"] == "file")
    return [folder / name for name in names if name]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its state cannot be read; reading it will tell why
        return True
