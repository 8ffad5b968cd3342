"""Indexes the moments of folders of videos in a store; a second run updates what changed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.files import remove_stale_temporary_folders, temporary_folder
from trimodal.core.progress import bar
from trimodal.media.container import DecodingLimits
from trimodal.search.encoder import EmbeddingMatrix, Encoder
from trimodal.search.folder import (
    Listing,
    VideoState,
    check_apart,
    check_videos,
    list_videos,
    real_folders,
)
from trimodal.search.footage import Footage, VideoFile, decode_videos
from trimodal.search.moments import Moments, moments_of
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import NoStoreError, StoreError, local_folder
from trimodal.search.tables import About, IndexedVideo

# Limits on a video: an hour, 4096 x 2304 pixels, ten minutes to decode its frames or its audio.
LIMITS = DecodingLimits(clip_seconds=3600.0, frame_pixels=9_437_184, timeout_seconds=600.0)
_VIDEOS_PER_WRITE, _MOMENTS_PER_WRITE = 50, 5_000
_UNREAD = ("unreadable", "missing")  # reasons that say nothing about the file
_MAY_HEAL = (*_UNREAD, "too_slow")
_WITHOUT_AUDIO = "indexed without its audio: "  # trimodal.search.footage
_MAX_UNREAD = 20  # videos in a row, until a folder is taken to be out of reach
_BATCH_SIZE = 64
_THUMBNAIL_QUALITY = 80
# The page's colour map for mels: black to white by way of violet and orange, evenly spaced.
_COLOURS = np.array(
    [(0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191)]
)


_PALETTE = np.stack(
    [
        np.interp(np.linspace(0, len(_COLOURS) - 1, 1024), np.arange(len(_COLOURS)), colour)
        for colour in _COLOURS.T
    ],
    axis=-1,
).astype(np.uint8)  # of 1,024 levels


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """The result of a run: the number of videos ``added``, ``changed`` (indexed again), ``kept``
    (unchanged) and ``dropped`` (gone); the store's total ``moments``; ``problems`` by path, which
    begins with the folder if there are several. Those that the machine could not read are
    ``unread``: nothing is noted about them, and the next run tries again. ``hidden`` videos and
    folders were passed over, and ``others``, files that are no videos, by suffix.
    """

    added: int
    changed: int
    kept: int
    dropped: int
    moments: int
    problems: dict[str, str]
    unread: int = 0
    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)


class UnreachableError(UserError, OSError):
    """The machine could not read many videos in a row."""


def index_folders(
    encoder: Encoder,
    folders: str | Path | Sequence[str | Path],
    location: str,
    *,
    workers: int = 2,
    rebuild: bool = False,
) -> IndexReport:
    """Updates the store at ``location`` (a folder or a URL) with the videos of ``folders`` and of
    their subfolders (:func:`~trimodal.search.folder.list_videos`). Other folders' videos stay in
    it; if they were indexed by another model, they are indexed again. A killed run loses at most
    its last 50 videos. With ``rebuild`` a store at ``location``, damaged or not, is replaced.

    Raises StoreError if the store is damaged or in use by another run, FolderError for a folder
    that is missing, without a video or inside another, UnreachableError if 20 videos in a row
    cannot be read, and WorkerError if a worker is killed.
    """
    roots = real_folders([folders] if isinstance(folders, (str, Path)) else folders)
    check_apart(roots)
    check_videos(roots)
    remove_stale_temporary_folders()
    with _locked(location):
        about = About(model=encoder.fingerprint)
        if rebuild:
            store = MomentStore.create(location, about, encoder.embedding_dim)
        else:
            store, roots = _open_or_create(location, about, encoder.embedding_dim, roots)
        store.check_every_byte()
        store.drop_unfinished()
        return _update(encoder, store, {root: _listing(root) for root in roots}, workers)


def _listing(root: Path) -> Listing:
    """Of a folder that is there, or was when another model indexed it."""
    if root.is_dir():
        return list_videos(root)
    return Listing(problems={"": "not there; its videos, of another model, are dropped"})


def drop_folder(location: str, folder: str | Path) -> int:
    """Removes a folder's videos from the store; returns their number. Raises StoreError if it has
    none of them.
    """
    root = Path(folder).resolve()  # it may be gone
    with _locked(location):
        store = MomentStore.open(location)
        store.check_every_byte()
        store.drop_unfinished()
        videos = [video.file for video in store.files() if video.folder == str(root)]
        if not videos:
            known = ", ".join(printable(str(known)) for known in _folders(store)) or "none"
            raise StoreError(f"{location}: no videos of {printable(str(root))}; there is {known}")
        store.drop(videos)
        store.compact()
        store.seal()
    return len(videos)


def _update(
    encoder: Encoder, store: MomentStore, listings: dict[Path, Listing], workers: int
) -> IndexReport:
    listing_of = {str(root): listing for root, listing in listings.items()}
    of_listed = (video for video in store.files() if video.folder in listing_of)
    indexed = {_key(video): video for video in of_listed}
    present = {_key(now): now for of in listings.values() for now in of.present.values()}
    unchanged = {key for key, video in indexed.items() if _is_kept(video, listing_of[video.folder])}
    store.drop(video.file for key, video in indexed.items() if key not in unchanged)
    to_index = [now for key, now in sorted(present.items()) if key not in unchanged]
    unread = _add(encoder, store, to_index, workers)
    store.compact()
    store.seal()
    problems = {
        _key(video): video.problem
        for video in store.files()
        if video.problem and video.folder in listing_of
    }
    for root, listing in listings.items():
        problems |= {(str(root), path): problem for path, problem in listing.problems.items()}
    problems |= unread
    done = [_key(now) for now in to_index if _key(now) not in unread]
    changed = sum(key in indexed for key in done)
    return IndexReport(
        added=len(done) - changed,
        changed=changed,
        kept=len(unchanged),
        dropped=len(indexed.keys() - unchanged - present.keys()),
        moments=store.moments,
        problems={
            path if len(listings) == 1 else f"{printable(folder)}/{path}": problem
            for (folder, path), problem in problems.items()
        },
        unread=len(unread) + sum(len(listing.unreadable) for listing in listings.values()),
        hidden=sum(listing.hidden for listing in listings.values()),
        others=sum((listing.others for listing in listings.values()), Counter()),
    )


def _key(video: IndexedVideo | VideoState) -> tuple[str, str]:
    return video.folder, video.path


def _is_kept(video: IndexedVideo, listing: Listing) -> bool:
    """Whether a video is as it was when it was indexed and nothing about it may heal, or it cannot
    be looked at now.
    """
    if now := listing.present.get(video.path):
        was = VideoState(
            folder=video.folder, path=video.path, bytes=video.bytes, modified_ns=video.modified_ns,
            real=video.real,
        )  # fmt: skip
        reason = video.problem.removeprefix(_WITHOUT_AUDIO)
        return now == was and not reason.startswith(_MAY_HEAL)
    return listing.may_contain(video.path)


@contextmanager
def _locked(location: str) -> Iterator[None]:
    """Locks a store on this machine; a store at a URL is not locked."""
    store = local_folder(location)
    if store is None:
        yield
        return
    store.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store / ".lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(f"{location}: another run is updating this index") from None


def _open_or_create(
    location: str, about: About, embedding_dim: int, roots: list[Path]
) -> tuple[MomentStore, list[Path]]:
    """The existing store if it is of this model, else an empty one; the folders to index, which are
    also those of a store of another model.
    """
    try:
        store = MomentStore.open(location)
    except NoStoreError:
        return MomentStore.create(location, about, embedding_dim), roots
    before = _folders(store)
    check_apart([*roots, *before])
    if store.about.model == about.model:
        return store, roots
    store = MomentStore.create(location, about, embedding_dim)
    return store, list(dict.fromkeys([*roots, *before]))


def _folders(store: MomentStore) -> list[Path]:
    return [Path(folder) for folder in sorted({video.folder for video in store.files()})]


def _add(
    encoder: Encoder, store: MomentStore, to_index: list[VideoState], workers: int
) -> dict[tuple[str, str], str]:
    """Adds videos; returns those that the machine could not read, with the reason."""
    side, mel = encoder.checkpoint.frame_px, encoder.checkpoint.mel
    unread: dict[tuple[str, str], str] = {}
    with temporary_folder() as scratch:
        videos = (
            VideoFile(path=Path(now.folder, now.path), frames=scratch / f"{number}.rgb")
            for number, now in enumerate(to_index)
        )
        decoded = bar(
            decode_videos(videos, side, mel, LIMITS, workers),
            task="indexing", unit="videos", total=len(to_index),
        )  # fmt: skip
        batch, in_a_row = _Batch(store, encoder), 0
        first = store.next_file
        for number, (now, footage) in enumerate(zip(to_index, decoded, strict=True), start=first):
            failed = footage.problem.startswith(_UNREAD)
            in_a_row = in_a_row + 1 if failed else 0
            if failed:
                unread[_key(now)] = footage.problem
            else:
                batch.add(now, number, footage)
            footage.video.frames.unlink(missing_ok=True)
            if in_a_row == _MAX_UNREAD:
                break
        batch.write()
    if in_a_row == _MAX_UNREAD:
        raise UnreachableError(
            f"{printable(now.folder)}: {_MAX_UNREAD} videos in a row cannot be read, the last one "
            f"{printable(now.path)}: {footage.problem}; videos indexed so far are kept"
        )
    return unread


class _Batch:
    """Collects moments, so that the networks get full batches, and videos, so that the store gets
    few large writes.
    """

    def __init__(self, store: MomentStore, encoder: Encoder) -> None:
        self._store, self._encoder = store, encoder
        # For the networks, at most _BATCH_SIZE moments, with their videos' numbers.
        self._waiting: list[tuple[int, Moments]] = []
        self._clear()

    def _clear(self) -> None:
        self._videos: list[IndexedVideo] = []
        self._moments: list[tuple[int, int, bytes, bytes]] = []
        self._embeddings: list[EmbeddingMatrix] = []

    def add(self, now: VideoState, number: int, footage: Footage) -> None:
        """Adds a video, and writes the batch if it is full."""
        front_end = self._encoder.checkpoint.audio_front_end
        for part in moments_of(footage, front_end, _BATCH_SIZE):
            if (
                sum(len(other.numbers) for _, other in self._waiting) + len(part.numbers)
                > _BATCH_SIZE
            ):
                self._embed()
            self._waiting.append((number, part))
        self._videos.append(
            IndexedVideo(
                file=number,
                folder=now.folder,
                path=now.path,
                bytes=now.bytes,
                modified_ns=now.modified_ns,
                moments=footage.moments,
                has_audio=footage.mel is not None,
                aspect=footage.aspect,
                problem=footage.problem,
                real=now.real,
            )
        )
        if len(self._videos) >= _VIDEOS_PER_WRITE or len(self._moments) >= _MOMENTS_PER_WRITE:
            self.write()

    def _embed(self) -> None:
        """Embeds the waiting moments."""
        if not self._waiting:
            return
        parts = [part for _, part in self._waiting]
        frames = np.concatenate([part.frames for part in parts])
        windows = torch.cat([part.windows for part in parts])
        sounds = np.concatenate([part.with_sound for part in parts])
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        embeddings = np.repeat(self._encoder.embed_frames(list(pixels))[:, None], 2, axis=1)
        mels = np.full(len(frames), b"", object)
        if len(windows):
            embeddings[sounds, 1] = self._encoder.embed_windows(windows)
            mels[sounds] = [_mel_jpeg(window) for window in windows[:, 0]]
        numbers = [(file, number) for file, part in self._waiting for number in part.numbers]
        for (file, number), frame, mel in zip(numbers, frames, mels, strict=True):
            thumbnail = simplejpeg.encode_jpeg(frame, _THUMBNAIL_QUALITY)
            self._moments.append((file, number, thumbnail, mel))
        self._embeddings.append(embeddings.reshape(len(frames), -1))
        self._waiting = []

    def write(self) -> None:
        """Writes the collected videos to the store."""
        self._embed()
        empty = np.empty((0, 2 * self._encoder.embedding_dim), np.float32)
        self._store.add(self._videos, self._moments, np.concatenate([empty, *self._embeddings]))
        self._clear()


def _mel_jpeg(window: Tensor) -> bytes:
    """A window in [-1, 1], (mels, columns), as a JPEG: time to the right, frequency upwards."""
    levels = np.rint((window.numpy()[::-1] + 1) * ((len(_PALETTE) - 1) / 2)).astype(np.intp)
    pixels = _PALETTE[levels]
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, _THUMBNAIL_QUALITY)
    return jpeg
