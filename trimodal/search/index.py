"""A folder of videos becomes a store of their moments; a second run looks at what has changed."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from trimodal.core.files import temporary_folder
from trimodal.core.progress import bar
from trimodal.core.timing import frame_centre_seconds
from trimodal.media.container import DecodingLimits
from trimodal.models.networks import EMBEDDING_DIM
from trimodal.search.audio_windows import cut_windows, duration_seconds, moment_centre
from trimodal.search.encoder import Encoder, Points
from trimodal.search.footage import Footage, VideoFile, footage_of
from trimodal.search.store import About, MomentStore, NoStoreError, StoredFile, StoreError

SUFFIXES = frozenset(
    {
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
        ".ogv", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
# What a video may ask of this machine: an hour, 4096 x 2304, ten minutes for its pictures.
LIMITS = DecodingLimits(clip_seconds=3600.0, frame_pixels=9_437_184, timeout_seconds=600.0)
_VIDEOS_AT_ONCE, _MOMENTS_AT_ONCE = 50, 5_000  # after which they go to the store
_NETWORK_ROWS = 64
_THUMBNAIL_QUALITY = 80
# Black to white over violet and orange, evenly spaced: how the page draws a mel.
_COLOURS = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)]
)


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What a run did: videos ``added``, ``changed`` (looked at again), ``kept`` as they were and
    ``dropped`` because they are gone; all the store's ``moments``; ``problems`` by path.
    """

    added: int
    changed: int
    kept: int
    dropped: int
    moments: int
    problems: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _Present:
    """A video of the folder as it is now."""

    path: str
    bytes: int
    modified_ns: int


def index_folder(
    encoder: Encoder, folder: str | Path, place: str, *, workers: int = 2
) -> IndexReport:
    """Brings the store at ``place`` (a folder or a URL) up to the videos in ``folder`` and the
    folders in it. Links are not followed. A killed run loses at most its last 50 videos.

    Raises StoreError if the store is of another folder or another run is at it, OSError for a
    folder that is not there, and WorkerError if a worker is killed.
    """
    root = Path(folder).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{folder}: not a folder")
    with _alone(place):
        store = _store(place, About(folder=str(root), model=encoder.fingerprint))
        store.drop_unfinished()
        stored = {file.path: file for file in store.files()}
        present, unreadable = _videos(root)
        same = {
            path for path, now in present.items()
            if path in stored
            and (now.bytes, now.modified_ns) == (stored[path].bytes, stored[path].modified_ns)
        }  # fmt: skip
        store.drop(file.file for path, file in stored.items() if path not in same)
        wanted = [now for path, now in sorted(present.items()) if path not in same]
        first = max((stored[path].file for path in same), default=-1) + 1
        _add(encoder, store, root, wanted, first, workers)
        store.settle()
        problems = {file.path: file.problem for file in store.files() if file.problem}
        changed = sum(now.path in stored for now in wanted)
        return IndexReport(
            added=len(wanted) - changed,
            changed=changed,
            kept=len(same),
            dropped=len(stored.keys() - present.keys()),
            moments=store.moments,
            problems=problems | unreadable,
        )


@contextmanager
def _alone(place: str) -> Iterator[None]:
    """Keeps a second run away from a store on this machine; at a URL nobody does."""
    if "://" in place:
        yield
        return
    Path(place).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(place) / ".lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(f"{place}: another run is indexing into it") from None


def _store(place: str, about: About) -> MomentStore:
    """The store as it is if it is of this folder and this model; else an empty one."""
    try:
        store = MomentStore.open(place)
    except NoStoreError:
        return MomentStore.create(place, about, EMBEDDING_DIM)
    if store.about.folder != about.folder:
        raise StoreError(
            f"{place}: is an index of {store.about.folder}; name another --store, or delete it"
        )
    if store.about.model != about.model:
        return MomentStore.create(place, about, EMBEDDING_DIM)
    return store


def _videos(root: Path) -> tuple[dict[str, _Present], dict[str, str]]:
    """The videos under a folder by their paths in it, and what cannot be looked at."""
    present: dict[str, _Present] = {}
    problems: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        problems[os.path.relpath(error.filename, root)] = f"cannot be read: {error.strerror}"

    for folder, _, names in os.walk(root, onerror=unreadable):
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() not in SUFFIXES:
                continue
            path = file.relative_to(root).as_posix()
            if not path.isprintable():  # nor is a name that is no UTF-8
                problems[ascii(path)[1:-1]] = "a name that cannot be shown"
            elif file.is_symlink():
                problems[path] = "a link; links are not followed"
            elif file.is_file():
                facts = file.stat()
                present[path] = _Present(
                    path=path, bytes=facts.st_size, modified_ns=facts.st_mtime_ns
                )
    return present, problems


def _add(
    encoder: Encoder,
    store: MomentStore,
    root: Path,
    wanted: list[_Present],
    first: int,
    workers: int,
) -> None:
    side, mel = encoder.checkpoint.frame_px, encoder.checkpoint.mel
    with temporary_folder() as scratch:
        videos = (
            VideoFile(path=root / now.path, frames=scratch / f"{number}.rgb")
            for number, now in enumerate(wanted)
        )
        seen = bar(
            footage_of(videos, side, mel, LIMITS, workers),
            task="indexing", unit="videos", total=len(wanted),
        )  # fmt: skip
        batch = _Batch(store)
        for number, (now, footage) in enumerate(zip(wanted, seen, strict=True), start=first):
            batch.take(now, number, footage, _moments(encoder, footage))
            footage.video.frames.unlink(missing_ok=True)
        batch.write()


class _Batch:
    """Videos on their way to the store: few large writes."""

    def __init__(self, store: MomentStore) -> None:
        self._store = store
        self._clear()

    def _clear(self) -> None:
        self._files: list[StoredFile] = []
        self._moments: list[tuple[int, int, bytes, bytes]] = []
        self._points: list[Points] = []

    def take(
        self, now: _Present, number: int, footage: Footage, parts: Iterable["_Moments"]
    ) -> None:
        """Adds a video, and writes all if it is enough."""
        for part in parts:
            self._moments += [(number, *moment) for moment in part.moments]
            self._points.append(part.points)
        self._files.append(
            StoredFile(
                file=number,
                path=now.path,
                bytes=now.bytes,
                modified_ns=now.modified_ns,
                moments=footage.moments,
                has_audio=footage.sound is not None,
                aspect=footage.aspect,
                problem=footage.problem,
            )
        )
        if len(self._files) >= _VIDEOS_AT_ONCE or len(self._moments) >= _MOMENTS_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Writes what there is."""
        empty = np.empty((0, 2 * EMBEDDING_DIM), np.float32)
        self._store.add(self._files, self._moments, np.concatenate([empty, *self._points]))
        self._clear()


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Moments (frame, thumbnail, mel) and their points, (moments, 512)."""

    moments: list[tuple[int, bytes, bytes]]
    points: Points


def _moments(encoder: Encoder, footage: Footage) -> Iterator[_Moments]:
    """A video's moments, some at a time."""
    if not footage.moments:
        return
    frames, front_end = footage.frames(), encoder.checkpoint.audio_front_end
    sound_seconds = 0.0 if footage.sound is None else duration_seconds(footage.sound, front_end.mel)
    for start in range(0, footage.moments, _NETWORK_ROWS):
        part = np.array(frames[start : start + _NETWORK_ROWS])
        pictures = torch.from_numpy(part).permute(0, 3, 1, 2)
        points = np.repeat(encoder.embed_pictures(list(pictures))[:, None], 2, axis=1)
        numbers = range(start + 1, start + 1 + len(part))
        mels = [b""] * len(part)
        centres = [
            moment_centre(frame_centre_seconds(number), sound_seconds, front_end.window.seconds)
            for number in numbers
        ]
        heard = [row for row, centre in enumerate(centres) if centre is not None]
        if footage.sound is not None and heard:
            inside = [centre for centre in centres if centre is not None]
            windows = cut_windows(footage.sound, inside, front_end)
            points[heard, 1] = encoder.embed_windows(windows)
            for row, window in zip(heard, windows[:, 0], strict=True):
                mels[row] = _mel_picture(window)
        thumbnails = [simplejpeg.encode_jpeg(frame, _THUMBNAIL_QUALITY) for frame in part]
        yield _Moments(
            moments=list(zip(numbers, thumbnails, mels, strict=True)),
            points=points.reshape(len(part), 2 * EMBEDDING_DIM),
        )


def _mel_picture(window: Tensor) -> bytes:
    """A window in [-1, 1], (mels, columns), as a JPEG: time to the right, pitch upwards."""
    places = (window.numpy()[::-1] + 1) / 2 * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(places, stops, colour) for colour in _COLOURS.T]
    pixels: npt.NDArray[np.uint8] = np.stack(channels, axis=-1).astype(np.uint8)
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _THUMBNAIL_QUALITY)
    return jpeg
