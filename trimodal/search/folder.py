"""The videos in folders and their subfolders, through links too."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from trimodal.core.display import printable
from trimodal.core.errors import UserError

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
_MAX_LISTED = 5  # files, or kinds of them, in a message


@dataclass(frozen=True, kw_only=True)
class VideoState:
    """A video as it is now: ``path`` is relative to ``folder``, an absolute path; ``real`` is where
    a link leads, empty for a file that lies where its path says.
    """

    folder: str
    path: str
    bytes: int
    modified_ns: int
    real: str = ""


@dataclass(kw_only=True)
class Listing:
    """A folder's videos by path; what was left out, with the reason, by path; the paths that could
    not be looked at, whose videos may still be there; the number of hidden videos and folders, and
    of ``others``, files with other endings than the listed ``suffixes``, by suffix.
    """

    present: dict[str, VideoState] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    suffixes: Set[str] = SUFFIXES

    def may_contain(self, path: str) -> bool:
        """Whether this path, or a folder it is in, could not be looked at."""
        return any(path == other or Path(path).is_relative_to(other) for other in self.unreadable)


class FolderError(UserError, ValueError):
    """A folder that cannot be indexed: missing, without a video, or inside another."""


def real_folders(folders: Sequence[str | Path]) -> list[Path]:
    """The folders' absolute paths without links, each once. Raises FolderError for one that there
    is not.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise FolderError(f"{printable(str(folder))}: no such folder")
    return list(dict.fromkeys(Path(folder).resolve() for folder in folders))


def check_apart(roots: Sequence[Path]) -> None:
    """Raises FolderError for a folder inside another: its videos would be indexed twice."""
    for root in roots:
        for other in roots:
            if root != other and root.is_relative_to(other):
                raise FolderError(
                    f"{printable(str(root))}: inside {printable(str(other))}, which is indexed "
                    "with all its subfolders"
                )


def check_videos(roots: Sequence[Path]) -> None:
    """Raises FolderError, with what is there instead, for a folder without a video. Stops looking
    at the first one.
    """
    for root in roots:
        listing = Listing()
        for _ in _visit(root, listing):
            if listing.present:
                break
        if not (listing.present or listing.unreadable):
            problems = [f"{path} ({problem})" for path, problem in listing.problems.items()]
            others = left_out(listing.others, listing.hidden)
            found = ", ".join([*problems[:_MAX_LISTED], *([others] if others else [])])
            raise FolderError(
                f"{printable(str(root))}: no video here{f'; left out: {found}' if found else ''}"
            )


def left_out(others: Mapping[str, int], hidden: int) -> str:
    """'2 hidden, 12 .jpg, 3 of other types': files that are not looked into; '' without any."""
    counts = Counter(others)
    listed = counts.most_common(_MAX_LISTED)
    parts = [f"{hidden} hidden"] if hidden else []
    parts += [f"{count} {suffix or 'without a suffix'}" for suffix, count in listed]
    if rest := counts.total() - sum(count for _, count in listed):
        parts.append(f"{rest} of other types")
    return ", ".join(parts)


def folder_names(folders: Iterable[str]) -> dict[str, str]:
    """A short name for each folder: its last part, with as many before it as tell them apart."""
    parts = {folder: Path(folder).parts for folder in folders}
    names = {folder: of[-1] for folder, of in parts.items()}
    length = 1
    while len(set(names.values())) < len(names):
        length += 1
        names = {folder: str(Path(*of[-length:])) for folder, of in parts.items()}
    return names


def list_videos(root: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """The videos, or the files with these endings, under ``root``, an absolute path without links.
    Links are followed; a folder is visited once, by its own path if it has one below ``root``.
    Hidden files and folders, and those that systems make, are passed over.
    """
    listing = Listing(suffixes=suffixes)
    for _ in _visit(root, listing):
        pass
    return listing


def _visit(root: Path, listing: Listing) -> Iterator[None]:
    """Fills the listing; yields after each file and folder."""
    visited = {_identity(root.stat())}
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
            yield


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
    is_listed, hidden = file.suffix.lower() in listing.suffixes, _is_hidden(file.name)
    if not is_listed or hidden:
        listing.hidden += is_listed
        if not hidden:
            listing.others[printable(file.suffix.lower())] += 1
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
            folder=str(root), path=path, bytes=state.st_size, modified_ns=state.st_mtime_ns,
            real="" if real == file else str(real),
        )  # fmt: skip


def _note_unreadable(path: Path, root: Path, error: Exception, listing: Listing) -> None:
    reason = getattr(error, "strerror", None) or str(error)
    listing.problems[_shown(path, root)] = f"cannot be read now: {reason}"
    listing.unreadable.add(path.relative_to(root).as_posix())


def _shown(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())
