"""One's own videos: every video of a folder, whatever its name, as a training clip."""

import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from trimodal.core.archives import StoredFile
from trimodal.core.fingerprint import bytes_fingerprint
from trimodal.core.machine_errors import ReadFailures, UnreadableError, reading, retried
from trimodal.core.manifest import ClipOutcome
from trimodal.core.progress import bar
from trimodal.core.records import RETRYABLE, Clip, ClipStatus, DataError
from trimodal.download.local import VIDEO_ENDINGS
from trimodal.download.probe import inspect

_MAX_NAME_LETTERS = 60


def find_own_videos(
    folder: Path, left_out: Collection[str], earlier: Sequence[ClipOutcome]
) -> list[ClipOutcome]:
    """The outcome of every video of a folder and its subfolders, sorted by path, as training clips;
    without those whose stem is in ``left_out`` (test videos). A clip's id is its file's stem, if
    that is a plain name and no other file's, else made from the path.

    ``earlier`` outcomes are reused for files that have not changed since, unless a retry may help.
    Raises DataError for a folder without videos, TooManyUnreadableError if this machine cannot read
    many files in a row.
    """
    videos = [path for path in videos_in(folder) if path.stem not in left_out]
    if not videos:
        raise DataError(f"download.vggsound_media: {folder}: no videos ({' '.join(VIDEO_ENDINGS)})")
    known = {outcome.path: outcome for outcome in earlier}
    failures = ReadFailures()
    outcomes: list[ClipOutcome] = []
    for path, clip_id in bar(
        zip(videos, clip_ids(folder, videos), strict=True),
        task=f"scanning {folder}", unit="files", total=len(videos),
    ):  # fmt: skip
        clip = Clip(clip_id=clip_id, source="own", split="train", label="")
        outcome = _outcome(clip, path, known.get(path.as_posix()))
        failures.record(outcome.reason if outcome.status == "unreadable" else "")
        outcomes.append(outcome)
    return outcomes


def videos_in(folder: Path) -> list[Path]:
    """Videos of a folder and its subfolders, sorted by path, without hidden ones."""
    if not folder.is_dir():
        raise DataError(f"download.vggsound_media: {folder} is not a folder")
    depth = len(folder.parts)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_ENDINGS
        and not any(part.startswith(".") for part in path.parts[depth:])
        and path.is_file()
    )


def clip_ids(folder: Path, videos: Sequence[Path]) -> list[str]:
    """The clip ids of videos, no two the same: plain stems stay, others become plain and get a
    fingerprint of the path within the folder.
    """
    ids: list[str] = []
    stems = [path.stem for path in videos]
    for path, stem in zip(videos, stems, strict=True):
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:_MAX_NAME_LETTERS]
        if plain != stem or stems.count(stem) > 1:
            within = PurePosixPath(path.as_posix()).relative_to(folder.as_posix())
            plain = f"{plain or 'video'}-{bytes_fingerprint(within.as_posix().encode())[:8]}"
        ids.append(plain)
    return ids


def _outcome(clip: Clip, path: Path, earlier: ClipOutcome | None) -> ClipOutcome:
    try:
        updated_at, size = retried(partial(_state, path))
        file = StoredFile.plain(path)
    except UnreadableError as error:
        status: ClipStatus = "unavailable" if error.reason == "missing" else "unreadable"
        return ClipOutcome(clip=clip, path=path.as_posix(), status=status, reason=str(error))
    if (
        earlier is not None
        and (earlier.clip, earlier.updated_at, earlier.bytes) == (clip, updated_at, size)
        and earlier.status not in RETRYABLE
    ):
        return earlier
    return inspect(clip, file, updated_at)


def _state(path: Path) -> tuple[int, int]:
    with reading(path):
        state = path.stat()
    return int(state.st_mtime), state.st_size
