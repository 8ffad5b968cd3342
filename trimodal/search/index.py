"""Indexes the moments of a folder of videos in a store; a second run updates what changed."""

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
from trimodal.core.machine_errors import UNREADABLE
from trimodal.core.progress import bar
from trimodal.core.timing import frame_centre_seconds
from trimodal.media.container import DecodingLimits
from trimodal.models.networks import EMBEDDING_DIM
from trimodal.search.audio_windows import cut_windows, duration_seconds, moment_centre
from trimodal.search.encoder import EmbeddingMatrix, Encoder
from trimodal.search.footage import Footage, VideoFile, decode_videos
from trimodal.search.store import About, IndexedVideo, MomentStore, NoStoreError, StoreError

SUFFIXES = frozenset(
    {
        ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
        ".ogv", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
# Limits on a video: an hour, 4096 x 2304 pixels, ten minutes to decode its frames or its audio.
LIMITS = DecodingLimits(clip_seconds=3600.0, frame_pixels=9_437_184, timeout_seconds=600.0)
_VIDEOS_PER_WRITE, _MOMENTS_PER_WRITE = 50, 5_000
_BATCH_SIZE = 64
_THUMBNAIL_QUALITY = 80
# The page's colour map for mels: black to white by way of violet and orange, evenly spaced.
_COLOURS = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)]
)


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """The result of a run: the number of videos ``added``, ``changed`` (indexed again), ``kept``
    (unchanged) and ``dropped`` (gone); the store's total ``moments``; ``problems`` by path.
    """

    added: int
    changed: int
    kept: int
    dropped: int
    moments: int
    problems: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class _VideoState:
    """A video in the folder as it is now."""

    path: str
    bytes: int
    modified_ns: int


def index_folder(
    encoder: Encoder, folder: str | Path, location: str, *, workers: int = 2
) -> IndexReport:
    """Updates the store at ``location`` (a folder or a URL) with the videos in ``folder`` and its
    subfolders. Links are not followed. A killed run loses at most its last 50 videos.

    Raises StoreError if the store is of another folder or in use by another run, OSError for a
    missing folder, and WorkerError if a worker is killed.
    """
    root = Path(folder).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{folder}: not a folder")
    with _locked(location):
        store = _open_or_create(location, About(folder=str(root), model=encoder.fingerprint))
        store.drop_unfinished()
        indexed = {video.path: video for video in store.files()}
        present, unreadable = _videos(root)
        unchanged = {
            path for path, now in present.items()
            if path in indexed
            and (now.bytes, now.modified_ns) == (indexed[path].bytes, indexed[path].modified_ns)
            and not indexed[path].problem.startswith(UNREADABLE)
        }  # fmt: skip
        store.drop(video.file for path, video in indexed.items() if path not in unchanged)
        to_index = [now for path, now in sorted(present.items()) if path not in unchanged]
        first = max((indexed[path].file for path in unchanged), default=-1) + 1
        _add(encoder, store, root, to_index, first, workers)
        store.compact()
        problems = {video.path: video.problem for video in store.files() if video.problem}
        changed = sum(now.path in indexed for now in to_index)
        return IndexReport(
            added=len(to_index) - changed,
            changed=changed,
            kept=len(unchanged),
            dropped=len(indexed.keys() - present.keys()),
            moments=store.moments,
            problems=problems | unreadable,
        )


@contextmanager
def _locked(location: str) -> Iterator[None]:
    """Locks a store on this machine; a store at a URL is not locked."""
    if "://" in location:
        yield
        return
    Path(location).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(location) / ".lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(f"{location}: another run is updating this index") from None


def _open_or_create(location: str, about: About) -> MomentStore:
    """The existing store if it is of this folder and this model; else an empty one."""
    try:
        store = MomentStore.open(location)
    except NoStoreError:
        return MomentStore.create(location, about, EMBEDDING_DIM)
    if store.about.folder != about.folder:
        raise StoreError(
            f"{location}: an index of {store.about.folder}; choose another --store or delete it"
        )
    if store.about.model != about.model:
        return MomentStore.create(location, about, EMBEDDING_DIM)
    return store


def _videos(root: Path) -> tuple[dict[str, _VideoState], dict[str, str]]:
    """The videos under a folder by relative path, and the problems of those that are unusable."""
    present: dict[str, _VideoState] = {}
    problems: dict[str, str] = {}

    def unreadable(error: OSError) -> None:
        problems[os.path.relpath(error.filename, root)] = f"cannot be read: {error.strerror}"

    for folder, _, names in os.walk(root, onerror=unreadable):
        for name in names:
            file = Path(folder, name)
            if file.suffix.lower() not in SUFFIXES:
                continue
            path = file.relative_to(root).as_posix()
            if not path.isprintable():  # also refuses names that are not UTF-8
                problems[ascii(path)[1:-1]] = "its name is not printable"
            elif file.is_symlink():
                problems[path] = "a link; links are not followed"
            elif file.is_file():
                stat = file.stat()
                present[path] = _VideoState(
                    path=path, bytes=stat.st_size, modified_ns=stat.st_mtime_ns
                )
    return present, problems


def _add(
    encoder: Encoder,
    store: MomentStore,
    root: Path,
    to_index: list[_VideoState],
    first: int,
    workers: int,
) -> None:
    side, mel = encoder.checkpoint.frame_px, encoder.checkpoint.mel
    with temporary_folder() as scratch:
        videos = (
            VideoFile(path=root / now.path, frames=scratch / f"{number}.rgb")
            for number, now in enumerate(to_index)
        )
        decoded = bar(
            decode_videos(videos, side, mel, LIMITS, workers),
            task="indexing", unit="videos", total=len(to_index),
        )  # fmt: skip
        batch = _Batch(store)
        for number, (now, footage) in enumerate(zip(to_index, decoded, strict=True), start=first):
            batch.add(now, number, footage, _moments(encoder, footage))
            footage.video.frames.unlink(missing_ok=True)
        batch.write()


class _Batch:
    """Collects videos, so that the store gets few large writes."""

    def __init__(self, store: MomentStore) -> None:
        self._store = store
        self._clear()

    def _clear(self) -> None:
        self._videos: list[IndexedVideo] = []
        self._moments: list[tuple[int, int, bytes, bytes]] = []
        self._embeddings: list[EmbeddingMatrix] = []

    def add(
        self, now: _VideoState, number: int, footage: Footage, parts: Iterable["_Moments"]
    ) -> None:
        """Adds a video, and writes the batch if it is full."""
        for part in parts:
            self._moments += [(number, *moment) for moment in part.moments]
            self._embeddings.append(part.embeddings)
        self._videos.append(
            IndexedVideo(
                file=number,
                path=now.path,
                bytes=now.bytes,
                modified_ns=now.modified_ns,
                moments=footage.moments,
                has_audio=footage.mel is not None,
                aspect=footage.aspect,
                problem=footage.problem,
            )
        )
        if len(self._videos) >= _VIDEOS_PER_WRITE or len(self._moments) >= _MOMENTS_PER_WRITE:
            self.write()

    def write(self) -> None:
        """Writes the collected videos to the store."""
        empty = np.empty((0, 2 * EMBEDDING_DIM), np.float32)
        self._store.add(self._videos, self._moments, np.concatenate([empty, *self._embeddings]))
        self._clear()


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Moments (frame, thumbnail, mel) and their embeddings, (moments, 512)."""

    moments: list[tuple[int, bytes, bytes]]
    embeddings: EmbeddingMatrix


def _moments(encoder: Encoder, footage: Footage) -> Iterator[_Moments]:
    """A video's moments, in batches."""
    if not footage.moments:
        return
    frames, front_end = footage.frames(), encoder.checkpoint.audio_front_end
    audio_seconds = 0.0 if footage.mel is None else duration_seconds(footage.mel, front_end.mel)
    for start in range(0, footage.moments, _BATCH_SIZE):
        part = np.array(frames[start : start + _BATCH_SIZE])
        pixels = torch.from_numpy(part).permute(0, 3, 1, 2)
        embeddings = np.repeat(encoder.embed_frames(list(pixels))[:, None], 2, axis=1)
        numbers = range(start + 1, start + 1 + len(part))
        mels = [b""] * len(part)
        centres = [
            moment_centre(frame_centre_seconds(number), audio_seconds, front_end.window.seconds)
            for number in numbers
        ]
        with_audio = [row for row, centre in enumerate(centres) if centre is not None]
        if footage.mel is not None and with_audio:
            inside = [centre for centre in centres if centre is not None]
            windows = cut_windows(footage.mel, inside, front_end)
            embeddings[with_audio, 1] = encoder.embed_windows(windows)
            for row, window in zip(with_audio, windows[:, 0], strict=True):
                mels[row] = _mel_jpeg(window)
        thumbnails = [simplejpeg.encode_jpeg(frame, _THUMBNAIL_QUALITY) for frame in part]
        yield _Moments(
            moments=list(zip(numbers, thumbnails, mels, strict=True)),
            embeddings=embeddings.reshape(len(part), 2 * EMBEDDING_DIM),
        )


def _mel_jpeg(window: Tensor) -> bytes:
    """A window in [-1, 1], (mels, columns), as a JPEG: time to the right, frequency upwards."""
    levels = (window.numpy()[::-1] + 1) / 2 * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(levels, stops, colour) for colour in _COLOURS.T]
    pixels: npt.NDArray[np.uint8] = np.stack(channels, axis=-1).astype(np.uint8)
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), _THUMBNAIL_QUALITY)
    return jpeg
