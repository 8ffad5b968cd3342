"""Processes that read training batches ahead, and how they hand them over.

A batch is in shared memory (/dev/shm on Linux), which the loader announces through a socket in the
temporary folder. Where that memory is too small (a container of Docker's has 64 MB) or no socket
can be made, the batch is copied through a pipe: slower, with the same result.

Announcing it, and the kernel's zeroing of each page, cost as much processor time as a small batch
takes to read. So a loader writes into the same few pieces in turn, and this process copies each
batch out of its piece; only with GPUs, to whose pinned memory PyTorch copies batches itself, each
batch has a piece of its own.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Listener
from multiprocessing.queues import Queue
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trimodal.core.errors import UserError
from trimodal.core.progress import quantity
from trimodal.core.schemas import WORDS
from trimodal.data.readers import Pair
from trimodal.media.windows import AudioFrontEnd
from trimodal.training.random_streams import SampleIndex
from trimodal.training.sampler import EndlessBatches

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_RESUMES = "run dvc repro again to resume from the last checkpoint"
_PREFETCHED = 2  # batches of each loader process
_ALIGNMENT = 64  # bytes


class LoaderError(UserError, RuntimeError):
    """A loader process that cannot start or hand over a batch."""


def training_loader(
    dataset: Dataset[Pair], batches: EndlessBatches, workers: int
) -> Iterator[Pair]:
    """Endless training batches, prefetched by ``workers`` processes (0: read by this one). Raises
    LoaderError, at once or with a batch, for loaders that cannot start, read or hand over a batch.
    """
    if not workers:
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_as_read,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)
    shared = _hand_over if torch.cuda.is_available() else _Pieces()
    loader = DataLoader(
        _ReadElsewhere(dataset),
        batch_sampler=batches,
        collate_fn=_by_value if socket_problem() else shared,
        num_workers=workers,
        prefetch_factor=_PREFETCHED,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_send_lost_batches,
    )
    try:
        _try_locks(workers)
        return _received(iter(loader))
    except OSError as error:
        raise LoaderError(
            f"train: the loader processes cannot start: {error}; they need room in {SHARED_MEMORY} "
            f"(docker run --shm-size=1g) and in {gettempdir()} (TMPDIR); with "
            "machine.loader_workers 0 there are none"
        ) from error


def _try_locks(workers: int) -> None:
    """Makes and frees what a loader has in shared memory: PyTorch's own attempt, if it failed,
    would show a traceback of the half-made loader.
    """
    [torch.multiprocessing.Event(), *(torch.multiprocessing.Queue() for _ in range(workers + 1))]


def _as_read(batch: Any) -> Pair:
    """Data sets return a batch as stacked tensors."""
    pair: Pair = batch
    return pair


@dataclass(frozen=True)
class _Failure:
    """What a loader process sends instead of a batch: PyTorch would show its traceback."""

    message: str


class _ReadElsewhere(Dataset[Any]):
    """A data set in a loader process."""

    def __init__(self, dataset: Dataset[Pair]) -> None:
        self._dataset: Any = dataset

    def __getitems__(self, indices: Sequence[SampleIndex]) -> Pair | _Failure:
        try:
            return _as_read(self._dataset.__getitems__(indices))
        except UserError as error:
            return _Failure(str(error))
        except (OSError, MemoryError) as error:
            cause = str(error) or "out of memory"
            return _Failure(f"a loader process: {cause}; {_RESUMES}")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where in a piece of shared memory a tensor is."""

    first_byte: int
    bytes: int
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]

    def view(self, piece: Tensor) -> Tensor:
        """The tensor."""
        content = piece[self.first_byte : self.first_byte + self.bytes]
        return content.view(self.dtype).as_strided(self.shape, self.stride)


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A batch in a piece of shared memory; ``memory`` only if the piece is a new one."""

    piece: tuple[int, int]  # the loader process and its number there
    places: list[_Place]
    memory: Tensor | None


class _Pieces:
    """In a loader process: writes batches into its pieces of shared memory in turn. There is one
    more than batches that are prefetched: its batch has been copied before it is its turn again.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor | None] = [None] * (_PREFETCHED + 1)
        self._written = 0

    def __call__(self, batch: Any) -> "_Placed | _ByValue | _Failure":
        if isinstance(batch, _Failure):
            return batch
        number = self._written % len(self._pieces)
        self._written += 1
        places = _places(batch)
        size = places[-1].first_byte + places[-1].bytes
        piece = self._pieces[number]
        is_new = piece is None or len(piece) < size
        if is_new:
            piece = self._pieces[number] = _shared_memory(size)
        if piece is None:
            return _ByValue(batch)
        for place, side in zip(places, batch, strict=True):
            place.view(piece).copy_(side)
        return _Placed(piece=(os.getpid(), number), places=places, memory=piece if is_new else None)


def _places(batch: Pair) -> list[_Place]:
    """Where the tensors of a batch are to be, one after the other, with their strides if they have
    no gaps.
    """
    places = []
    end = 0
    for side in batch:
        first = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = first + side.nbytes
        places.append(
            _Place(
                first_byte=first, bytes=side.nbytes, dtype=side.dtype, shape=side.shape,
                stride=torch.empty_like(side).stride(),
            )
        )  # fmt: skip
    return places


def _shared_memory(size: int) -> Tensor | None:
    """So many bytes, if at least half of what is free is left; otherwise None."""
    if SHARED_MEMORY.exists() and disk_usage(SHARED_MEMORY).free < 2 * size:
        return None
    try:
        memory: Tensor = torch.empty(size, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:  # another process took what was free
        return None
    return memory


def _received(batches: Iterator[Pair | _Placed | _Failure]) -> Iterator[Pair]:
    pieces: dict[tuple[int, int], Tensor] = {}
    for batch in batches:
        if isinstance(batch, _Failure):
            raise LoaderError(f"train: {batch.message}")
        if not isinstance(batch, _Placed):
            yield batch
            continue
        if batch.memory is not None:
            pieces[batch.piece] = batch.memory
        views = (place.view(pieces[batch.piece]) for place in batch.places)
        yield _as_read(tuple(view.clone() for view in views))


class _ByValue:
    """A batch that is pickled as arrays, which arrive as tensors."""

    def __init__(self, batch: Pair) -> None:
        self._batch = batch

    def __reduce__(self) -> tuple[Any, ...]:
        return _tensors, tuple(side.numpy() for side in self._batch)


def _tensors(*arrays: npt.NDArray[np.generic]) -> tuple[Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def _by_value(batch: Any) -> _ByValue | _Failure:
    return batch if isinstance(batch, _Failure) else _ByValue(batch)


def _hand_over(batch: Any) -> Pair | _ByValue | _Failure:
    """In shared memory, if at least half of what is free is left; otherwise by value."""
    if isinstance(batch, _Failure):
        return batch
    size = sum(side.nbytes for side in batch)
    if SHARED_MEMORY.exists() and disk_usage(SHARED_MEMORY).free < 2 * size:
        return _ByValue(batch)
    try:
        for side in batch:
            side.share_memory_()
    except RuntimeError:  # another process took what was free
        return _ByValue(batch)
    return _as_read(batch)


def _send_lost_batches(_worker: int) -> None:
    """In a loader process: the queue would print the error of a batch that cannot be sent and drop
    the batch, and training would wait for ever. Here a failure is sent in its place.
    """
    Queue._on_queue_feeder_error = _send_failure  # type: ignore[attr-defined]


def _send_failure(queue: "Queue[Any]", error: Exception, item: tuple[int, Any]) -> None:
    cause = str(error) or type(error).__name__
    problem = socket_problem() or f"room in {SHARED_MEMORY} or {gettempdir()} (TMPDIR)?"
    failure = _Failure(f"a loader process cannot hand over a batch: {cause}; {problem}; {_RESUMES}")
    queue.put((item[0], failure))


def sharing_problems(batch_bytes: int, loader_workers: int) -> list[str]:
    """Why batches of ``batch_bytes``, one of each stream together, cannot all be handed over in
    shared memory; empty if they can or if there are no loaders.
    """
    if not loader_workers:
        return []
    return [p for p in (socket_problem(), _memory_problem(batch_bytes, loader_workers)) if p]


def socket_problem() -> str:
    """Why processes cannot connect through sockets in the temporary folder; empty if they can."""
    try:
        Listener(family="AF_UNIX").close()
    except OSError as error:
        return (
            f"no socket can be made in {gettempdir()}: {error}; set TMPDIR to a local folder with "
            "a path of at most 70 letters"
        )
    return ""


def _memory_problem(batch_bytes: int, loader_workers: int) -> str:
    if not SHARED_MEMORY.exists():
        return ""
    free = disk_usage(SHARED_MEMORY).free
    needed = batch_bytes * ((_PREFETCHED + 1) * loader_workers + 1)
    if free >= needed:
        return ""
    return (
        f"{SHARED_MEMORY} has {quantity(free)}B free, the batches of the loaders need "
        f"{quantity(needed)}B (docker run --shm-size={-(-needed // 10**9)}g)"
    )


def batch_bytes(samples: int, crop_px: int, front_end: AudioFrontEnd) -> int:
    """The size of a batch of each stream together, of ``samples`` samples each."""
    image = 3 * crop_px**2
    window = 4 * front_end.mel.mels * front_end.columns
    return samples * (2 * image + window + 8 * WORDS)
