"""Loader processes hand every batch over, or training ends and says why."""

import errno
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
from configs import front_end_for_tests
from stream_fixtures import ORDER, images_of, pairs_of, same
from torch import Tensor
from torch.utils.data import Dataset
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.data.readers import Pair
from trimodal.training import loaders as module
from trimodal.training.loaders import (
    LoaderError,
    batch_bytes,
    sharing_problems,
    training_loader,
)
from trimodal.training.rounds import ShuffledRounds
from trimodal.training.sampler import EndlessBatches

SECONDS = 60.0  # after which a test that waits for ever fails


@pytest.fixture(autouse=True)
def _no_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_timeout(*arguments: Any, **named: Any) -> Any:
        return loader(*arguments, **named, timeout=SECONDS if named.get("num_workers") else 0)

    loader = module.DataLoader
    monkeypatch.setattr(module, "DataLoader", with_timeout)
    # What a loader that is stopped early may wait for.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


def first_batches(data: TinyData, workers: int, dataset: Any = None) -> list[Pair]:
    pairs = pairs_of(data)
    batches = EndlessBatches(ShuffledRounds(len(pairs), 3, 5, ORDER))
    return list(islice(training_loader(dataset or pairs, batches, workers), 3))


def check_batches(data: TinyData, *, shared: bool) -> None:
    """A loader gives what this process reads, through shared memory or not."""
    with pytest.MonkeyPatch.context() as patch:
        handed: list[Any] = []

        def noted(batches: Iterator[Any]) -> Iterator[Any]:
            for batch in batches:
                handed.append(batch)
                yield batch

        received = module._received
        patch.setattr(module, "_received", lambda batches: received(noted(batches)))
        batches = first_batches(data, 1)
    for batch, expected in zip(batches, first_batches(data, 0), strict=True):
        assert same((batch[0], batch[1]), expected)
        if shared:
            assert [s.stride() for s in batch] == [s.stride() for s in expected]
    assert [isinstance(batch, module._Placed) for batch in handed] == [shared] * len(batches)


def test_batches_are_in_shared_memory(tiny_data: TinyData) -> None:
    check_batches(tiny_data, shared=True)


def numbered(number: int, rows: int = 3) -> Pair:
    return torch.full((rows, 5), number, dtype=torch.uint8), torch.full((rows, 7), number * 0.5)


class Numbered(Dataset[Pair]):
    def __getitems__(self, indices: list[int]) -> Pair:
        return numbered(indices[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_is_copied_before_its_memory_is_used_again(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loaders write all that they may while this process is slow to copy."""

    def slow(place: Any, piece: Tensor) -> Tensor:
        time.sleep(0.02)
        return view(place, piece)

    view = module._Place.view
    batches = islice(training_loader(Numbered(), [[n] for n in range(20)], workers), 12)  # type: ignore[arg-type]
    first = next(batches)  # the loaders are there
    monkeypatch.setattr(module._Place, "view", slow)
    for number, batch in enumerate([first, *batches]):
        assert same(batch, numbered(number))


def test_memory_is_handed_over_once_and_again_when_a_batch_is_larger() -> None:
    pieces = module._Pieces()
    rows = [3] * 7 + [4] * 7
    sent = [pieces(numbered(n, count)) for n, count in enumerate(rows)]
    new = [batch.memory is not None for batch in sent]  # type: ignore[union-attr]
    assert new == ([True] * 3 + [False] * 4) * 2
    assert len({batch.piece for batch in sent}) == 3  # type: ignore[union-attr]
    received = list(module._received(map(module._Pieces(), map(numbered, range(3)))))  # type: ignore[arg-type]
    assert all(same(batch, numbered(n)) for n, batch in enumerate(received))


def test_with_gpus_each_batch_has_memory_of_its_own() -> None:
    """PyTorch's thread copies it to pinned memory."""
    sent = module._hand_over(numbered(1))
    assert isinstance(sent, tuple)
    assert all(side.is_shared() for side in sent)
    assert same(sent, numbered(1))


def free_shared_memory(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(module, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_a_small_shared_memory_is_left_alone(
    tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is free stays free."""
    places = module._places(first_batches(tiny_data, 0)[0])
    size = places[-1].first_byte + places[-1].bytes
    free_shared_memory(monkeypatch, 2 * size)
    check_batches(tiny_data, shared=True)
    free_shared_memory(monkeypatch, 2 * size - 1)
    check_batches(tiny_data, shared=False)


def test_a_small_shared_memory_is_left_alone_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(side.nbytes for side in numbered(1))
    free_shared_memory(monkeypatch, 2 * size)
    assert isinstance(module._hand_over(numbered(1)), tuple)
    free_shared_memory(monkeypatch, 2 * size - 1)
    assert isinstance(module._hand_over(numbered(1)), module._ByValue)


def test_a_shared_memory_that_another_process_filled(
    tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Tensor) -> NoReturn:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    check_batches(tiny_data, shared=False)
    assert isinstance(module._hand_over(numbered(1)), module._ByValue)


@pytest.fixture
def long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As TMPDIR: too long for a socket's path. Python remembers two folders."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    process = multiprocessing.current_process()
    settings = {k: v for k, v in process._config.items() if k != "tempdir"}  # type: ignore[attr-defined]
    monkeypatch.setattr(process, "_config", settings)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.usefixtures("long_temporary_folder")
def test_a_long_temporary_folder(tiny_data: TinyData) -> None:
    check_batches(tiny_data, shared=False)
    (problem,) = sharing_problems(1, 1)
    assert "AF_UNIX path too long" in problem
    assert "TMPDIR" in problem


class Unsent:
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_batch_that_cannot_be_sent_ends_the_run(
    tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch would drop it and wait for ever."""
    monkeypatch.setattr(module._Pieces, "__call__", lambda *_: Unsent())
    with pytest.raises(LoaderError, match=r"cannot hand over a batch: .*No space.*/dev/shm") as got:
        first_batches(tiny_data, 1)
    assert "\n" not in str(got.value)


class Failing(Dataset[Pair]):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitems__(self, _: object) -> NoReturn:
        raise self._error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("a.tar: not a JPEG"), "train: a.tar: not a JPEG"),
        (OSError(5, "Input/output error", "a.tar"), "train: a loader process: [Errno 5]"),
        (MemoryError(), "train: a loader process: out of memory; run dvc repro again"),
    ],
)
def test_an_error_in_a_loader_is_one_line(error: Exception, message: str) -> None:
    sent = module._ReadElsewhere(Failing(error)).__getitems__([])
    with pytest.raises(LoaderError) as caught:
        next(module._received(iter([sent])))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shared", [True, False])
def test_an_error_in_a_loader_arrives(
    shared: bool, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "socket_problem", lambda: "" if shared else "none")
    with pytest.raises(LoaderError, match=r"^train: a\.tar$"):
        first_batches(tiny_data, 1, Failing(DataError("a.tar")))


def test_loaders_that_cannot_start(tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks of queues are in /dev/shm, too."""

    def full() -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.multiprocessing, "Queue", full)
    with pytest.raises(LoaderError, match=r"cannot start: .*/dev/shm .*--shm-size.*TMPDIR"):
        first_batches(tiny_data, 1)


def test_the_size_of_a_batch(tiny_data: TinyData) -> None:
    both = [first_batches(tiny_data, 0)[0]]
    images = images_of(tiny_data)
    batches = EndlessBatches(ShuffledRounds(len(images), 3, 5, ORDER))
    both.append(next(training_loader(images, batches, 0)))
    size = sum(side.nbytes for batch in both for side in batch)
    assert batch_bytes(3, tiny_data.augment.crop_px, tiny_data.front_end) == size


def test_a_paper_batch_does_not_fit_into_dockers_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = batch_bytes(512, 224, front_end_for_tests())
    free_shared_memory(monkeypatch, 64 * 2**20)
    (problem,) = sharing_problems(size, 8)
    assert "shm has 67.1MB free" in problem
    assert f"--shm-size={-(-25 * size // 10**9)}g" in problem
    assert sharing_problems(size, 0) == []
    free_shared_memory(monkeypatch, 25 * size)
    assert sharing_problems(size, 8) == []
    free_shared_memory(monkeypatch, 25 * size - 1)
    assert sharing_problems(size, 8)
