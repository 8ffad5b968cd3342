"""The embeddings of a folder's videos, images and sounds as one Parquet file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from trimodal.core.files import (
    check_writable,
    remove_stale_temporary_folders,
    table_writer,
    temporary_folder,
)
from trimodal.core.machine_errors import UnreadableError
from trimodal.core.progress import bar
from trimodal.core.timing import frame_centre_seconds
from trimodal.media.audio import decode_audio
from trimodal.media.audio_windows import cut_windows, duration_seconds, window_centres
from trimodal.media.container import LimitError, MediaError
from trimodal.media.image import ImageError, square
from trimodal.media.mel import MelConfig, StoredMel
from trimodal.media.spectrogram import log_mel
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.parallel.watchdog import ending_if_hung
from trimodal.search.api import Trimodal
from trimodal.search.encoder import EmbeddingMatrix
from trimodal.search.folder import list_videos
from trimodal.search.footage import Footage, VideoFile, decode_videos
from trimodal.search.index import LIMITS
from trimodal.search.moments import moments_of
from trimodal.sources.labelled_files import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

Read = TypeVar("Read")

_BATCH_SIZE = 64
_ROWS_PER_GROUP = 5_000
_HANG_SECONDS = 30  # beyond a sound's time limit


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """The number of written ``rows``, ``problems`` by path, also of files that have rows, and the
    number of ``hidden`` files and folders that were passed over.
    """

    rows: int
    problems: dict[str, str]
    hidden: int


class _Rows(NamedTuple):
    """Rows of a file: of one modality, at these seconds; None for the file as a whole."""

    path: str
    modality: str
    seconds: list[float | None]
    embeddings: EmbeddingMatrix


def embed_files(model: Trimodal, folder: Path, out: Path, *, workers: int) -> EmbedReport:
    """Writes the embeddings of all videos, images and sounds in ``folder`` and its subfolders
    (:func:`~trimodal.search.folder.list_videos`), decoded by ``workers`` processes, to a Parquet
    file, which appears when it is complete. Its columns: ``path``, relative to ``folder``;
    ``modality``, image or audio; ``second``; ``embedding``, float32 [dim], a unit vector. A video
    has a row of its frame at each second N - 0.5 and, where it sounds, one of the audio around it,
    as the index of a search has; an image and a sound have one row each, whose ``second`` is
    missing. Videos come first, then images, then sounds, each in order of their paths. The file's
    metadata have the fingerprint of the ``model``. Memory does not grow with the folder.

    Raises OSError for a missing folder or a place that cannot be written to, WorkerError if a
    worker is killed.
    """
    root = folder.resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{folder}: not a folder")
    check_writable(out)
    remove_stale_temporary_folders()
    listing = list_videos(root, frozenset({*PICTURE_SUFFIXES, *SOUND_SUFFIXES}))
    problems, written = dict(listing.problems), 0

    def of_kind(suffixes: Iterable[str]) -> list[str]:
        return [path for path in sorted(listing.present) if Path(path).suffix.lower() in suffixes]

    videos, images = of_kind(VIDEO_SUFFIXES), of_kind(PICTURE_SUFFIXES)
    sounds = of_kind({*SOUND_SUFFIXES} - {*VIDEO_SUFFIXES})
    with table_writer(out, _schema(model)) as writer:
        table = _Table(writer, _schema(model))
        for rows in _of_videos(model, root, videos, workers, problems):
            table.add(rows)
        for rows in _of_images(model, root, images, workers, problems):
            table.add(rows)
        for rows in _of_sounds(model, root, sounds, workers, problems):
            table.add(rows)
        written = table.close()
    return EmbedReport(rows=written, problems=problems, hidden=listing.hidden)


def _schema(model: Trimodal) -> pa.Schema:
    return pa.schema(
        {
            "path": pa.string(),
            "modality": pa.string(),
            "second": pa.float64(),
            "embedding": pa.list_(pa.float32(), model.embedding_dim),
        },
        {"model": model.fingerprint},
    )


class _Table:
    """Collects rows, so that the file gets few large groups of them."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._waiting: list[_Rows] = []
        self._count = self._written = 0

    def add(self, rows: _Rows) -> None:
        self._waiting.append(rows)
        self._count += len(rows.seconds)
        if self._count >= _ROWS_PER_GROUP:
            self._write()

    def close(self) -> int:
        """Writes the rest; returns the number of all rows."""
        self._write()
        return self._written

    def _write(self) -> None:
        if not self._count:
            return
        embeddings = np.concatenate([rows.embeddings for rows in self._waiting])
        columns = [
            pa.array([rows.path for rows in self._waiting for _ in rows.seconds], pa.string()),
            pa.array([rows.modality for rows in self._waiting for _ in rows.seconds], pa.string()),
            pa.array([second for rows in self._waiting for second in rows.seconds], pa.float64()),
            pa.FixedSizeListArray.from_arrays(
                pa.array(embeddings.ravel(), pa.float32()), embeddings.shape[1]
            ),
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._written += self._count
        self._waiting, self._count = [], 0


def _of_videos(
    model: Trimodal, root: Path, paths: list[str], workers: int, problems: dict[str, str]
) -> Iterator[_Rows]:
    side, mel = model.checkpoint.frame_px, model.checkpoint.mel
    with temporary_folder() as scratch:
        files = (
            VideoFile(path=root / path, frames=scratch / f"{number}.rgb")
            for number, path in enumerate(paths)
        )
        decoded = decode_videos(files, side, mel, LIMITS, workers)
        for path, footage in zip(paths, _shown(decoded, "videos", len(paths)), strict=True):
            if footage.problem:
                problems[path] = footage.problem
            yield from _of_footage(model, path, footage)
            footage.video.frames.unlink(missing_ok=True)


def _of_footage(model: Trimodal, path: str, footage: Footage) -> Iterator[_Rows]:
    for part in moments_of(footage, model.checkpoint.audio_front_end, _BATCH_SIZE):
        seconds = [frame_centre_seconds(number) for number in part.numbers]
        frames = torch.from_numpy(part.frames).permute(0, 3, 1, 2)
        yield _Rows(path, "image", [*seconds], model.embed_frames(list(frames)))
        if len(part.windows):
            sounding = [
                second for second, sounds in zip(seconds, part.with_sound, strict=True) if sounds
            ]
            yield _Rows(path, "audio", [*sounding], model.embed_windows(part.windows))


def _of_images(
    model: Trimodal, root: Path, paths: list[str], workers: int, problems: dict[str, str]
) -> Iterator[_Rows]:
    read = partial(_read_image, model.checkpoint.frame_px)
    waiting: list[tuple[str, npt.NDArray[np.uint8]]] = []

    def embedded() -> Iterator[_Rows]:
        frames = [torch.from_numpy(pixels).permute(2, 0, 1) for _, pixels in waiting]
        for (path, _), row in zip(waiting, model.embed_frames(frames), strict=True):
            yield _Rows(path, "image", [None], row[None])
        waiting.clear()

    for path, pixels in _read(read, root, paths, workers, problems, "images"):
        waiting.append((path, pixels))
        if len(waiting) == _BATCH_SIZE:
            yield from embedded()
    if waiting:
        yield from embedded()


def _of_sounds(
    model: Trimodal, root: Path, paths: list[str], workers: int, problems: dict[str, str]
) -> Iterator[_Rows]:
    read, front_end = partial(_read_sound, model.checkpoint.mel), model.checkpoint.audio_front_end
    for path, mel in _read(read, root, paths, workers, problems, "sounds"):
        centres = window_centres(duration_seconds(mel, front_end.mel), front_end)
        total = np.zeros((1, model.embedding_dim), np.float32)
        for start in range(0, len(centres), _BATCH_SIZE):
            windows = cut_windows(mel, centres[start : start + _BATCH_SIZE], front_end)
            total += model.embed_windows(windows).sum(axis=0)
        yield _Rows(path, "audio", [None], total / np.linalg.norm(total))


def _read(
    read: Callable[[Path], Read | str],
    root: Path,
    paths: list[str],
    workers: int,
    problems: dict[str, str],
    unit: str,
) -> Iterator[tuple[str, Read]]:
    """What ``read`` makes of files; where that is text, it is a problem."""
    found = map_in_order(read, (root / path for path in paths), workers, on_crash=_crashed)
    for path, value in zip(paths, _shown(found, unit, len(paths)), strict=True):
        if isinstance(value, str):
            problems[path] = value
        else:
            yield path, value


def _shown(items: Iterable[Read], unit: str, total: int) -> Iterable[Read]:
    return bar(items, task="embedding", unit=unit, total=total)


def _crashed(_: Path, error: WorkerError) -> str:
    return f"the process that decoded it {error.how}"


def _read_image(side: int, path: Path) -> npt.NDArray[np.uint8] | str:
    try:
        return np.array(square(path.read_bytes(), side))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read now: {error.strerror or error}"


def _read_sound(mel: MelConfig, path: Path) -> StoredMel | str:
    try:
        with ending_if_hung(LIMITS.timeout_seconds + _HANG_SECONDS):
            return log_mel(decode_audio(path, mel.sample_rate_hz, LIMITS), mel)
    except (MediaError, LimitError, UnreadableError) as error:
        return f"{error.reason}: {error.detail}"
