"""The videos in a folder and its subfolders, through links too."""

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from trimodal.core.display import printable

SUFFIXES = frozenset(
    {
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
        ".ogv", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
# Folders that systems make: macOS in archives, Windows, Synology, ext4. Others begin with a dot.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "$recycle.bin", "system volume information", "recycler", "@eadir", "#recycle",
     "lost+found"}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VideoState:
    """A video as it is now: ``path`` is relative to the folder, ``real`` is where a link leads,
    empty for a file that lies where its path says.
    """

    path: str
    bytes: int
    modified_ns: int
    real: str = ""


@dataclass(kw_only=True)
class Listing:
    """A folder's videos by path; what was left out, with the reason, by path; the paths that could
    not be looked at, whose videos may still be there; the number of hidden videos and folders;
    the endings of what is listed.
    """

    present: dict[str, VideoState] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    hidden: int = 0
    suffixes: Set[str] = SUFFIXES

    def may_contain(self, path: str) -> bool:
        """Whether this path, or a folder it is in, could not be looked at."""
        return any(path == other or Path(path).is_relative_to(other) for other in self.unreadable)


def list_videos(root: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """The videos, or the files with these endings, under ``root``, an absolute path without links.
    Links are followed; a folder is visited once, by its own path if it has one below ``root``.
    Hidden files and folders, and those that systems make, are passed over.
    """
    listing, visited = Listing(suffixes=suffixes), {_identity(root.stat())}
    folders, links = [root], list[Path]()  # links wait until all real folders are visited
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if folder != root and not _may_enter(folder, root, visited, listing):
            continue
        for entry in _entries(folder, root, listing):
            path = Path(entry.path)
            if not _is_folder(entry):
                _add_file(path, root, listing)
            elif _is_hidden(entry.name) or entry.name.lower() in _SYSTEM_FOLDERS:
                listing.hidden += 1
            else:
                (links if entry.is_symlink() else folders).append(path)
    return listing


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".")  # macOS's ._files too


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # it cannot be looked at, or the link leads to itself
        return False


def _entries(folder: Path, root: Path, listing: Listing) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        _note_unreadable(folder, root, error, listing)


def _may_enter(folder: Path, root: Path, visited: set[tuple[int, int]], listing: Listing) -> bool:
    try:
        real, identity = folder.resolve(strict=True), _identity(folder.stat())
    except (OSError, RuntimeError) as error:
        _note_unreadable(folder, root, error, listing)
        return False
    if root.is_relative_to(real):
        listing.problems[_shown(folder, root)] = "a link to a folder that contains it; not followed"
    elif identity in visited:
        listing.problems[_shown(folder, root)] = "a folder that is indexed under another path"
    else:
        visited.add(identity)
        return True
    return False


def _add_file(file: Path, root: Path, listing: Listing) -> None:
    if file.suffix.lower() not in listing.suffixes:
        return
    if _is_hidden(file.name):
        listing.hidden += 1
        return
    path, name = file.relative_to(root).as_posix(), _shown(file, root)
    if not path.isprintable():  # also refuses names that are not UTF-8
        listing.problems[name] = "its name is not printable"
        return
    try:
        state, real = file.stat(), file.resolve(strict=True)
    except FileNotFoundError:
        listing.problems[name] = "a link to a file that does not exist"
    except (OSError, RuntimeError) as error:
        _note_unreadable(file, root, error, listing)
    else:
        if not real.is_file():
            listing.problems[name] = "not a regular file"
            return
        listing.present[path] = VideoState(
            path=path, bytes=state.st_size, modified_ns=state.st_mtime_ns,
            real="" if real == file else str(real),
        )  # fmt: skip


def _note_unreadable(path: Path, root: Path, error: Exception, listing: Listing) -> None:
    reason = getattr(error, "strerror", None) or str(error)
    listing.problems[_shown(path, root)] = f"cannot be read now: {reason}"
    listing.unreadable.add(path.relative_to(root).as_posix())


def _shown(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())
