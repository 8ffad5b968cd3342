"""Shards as WebDataset pipelines, for any program that knows webdataset (docs/shards.md).

Image-audio pairs of clips, ready to train on::

    from torch.utils.data import DataLoader
    from trimodal.data import pairs

    shards = "data/av/train-{000000..000021}.tar"
    for frames, windows in DataLoader(pairs(shards).batched(64), batch_size=None):
        ...  # uint8 (64, 3, height, width), float32 (64, 1, mels, columns)
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import get_worker_info
from webdataset.gopen import gopen_schemes

from trimodal.core.records import DataError
from trimodal.core.storage import storage_path
from trimodal.core.timing import FramePosition, training_positions
from trimodal.media.mel import StoredMel
from trimodal.media.shard_format import ClipDescription, parse_clip, parse_image, parse_mel
from trimodal.media.windows import (
    AudioFrontEnd,
    WindowConfig,
    scale_windows,
    window_decibels,
    window_first_column,
)
from trimodal.models.preprocessing import decode_jpeg

Sample = dict[str, Any]
_SHARDS_SHUFFLED = 1000


def _open_on_store(url: str, mode: str = "rb", _bufsize: int = 0, **_: Any) -> Any:
    return storage_path(url).open(mode)


gopen_schemes.setdefault("s3", _open_on_store)


def pairs(
    urls: str | Sequence[str],
    *,
    window_seconds: float = 3.0,
    decibel: Literal["power", "amplitude"] = "power",
    frames_per_clip: int = 1,
    shuffle: int = 1000,
    seed: int | None = None,
) -> wds.WebDataset:
    """Pairs of a frame and the audio around it, from shards of the extract stage: uint8
    (3, height, width) and float32 (1, mels, columns), scaled as :func:`scale_windows` says.

    ``urls`` are paths, ``s3://`` or any URLs that webdataset opens, such as ``pipe:`` (a command,
    which a shell runs: only your own), with braces for ranges. They are split over the nodes and
    workers of a DataLoader. Every clip with audio gives ``frames_per_clip`` pairs, of frames drawn
    from those whose window fits; shards and, in a buffer of ``shuffle`` pairs, pairs are shuffled
    (0: in stored order). With ``seed`` the order depends on nothing else but the number of nodes
    and workers; it changes from epoch to epoch if the DataLoader has ``persistent_workers``.

    Raises DataError, naming shard and member, for a sample that is not a clip, of another format
    version, or whose arrays do not fit its description; and what webdataset raises for a shard that
    cannot be read.
    """
    window = WindowConfig(seconds=window_seconds, decibel=decibel)
    make = partial(_clip_pairs, window=window, frames_per_clip=frames_per_clip)
    return _dataset(urls, make, shuffle, seed)


def captioned(
    urls: str | Sequence[str], *, shuffle: int = 1000, seed: int | None = None
) -> wds.WebDataset:
    """Images, uint8 (3, height, width), and one of their captions, drawn at random, from shards of
    the captions stage. Otherwise as :func:`pairs`.
    """
    return _dataset(urls, _captioned_images, shuffle, seed)


def _dataset(
    urls: str | Sequence[str],
    make: Callable[[Iterable[Sample], Random], Iterator[tuple[Any, ...]]],
    shuffle: int,
    seed: int | None,
) -> wds.WebDataset:
    dataset = wds.WebDataset(
        urls,
        shardshuffle=_SHARDS_SHUFFLED if shuffle else False,
        detshuffle=seed is not None,
        nodesplitter=wds.split_by_node,
        empty_check=False,
        seed=seed,
    ).compose(_RandomStage(make, seed))
    if not shuffle:
        return dataset
    if seed is None:
        return dataset.shuffle(shuffle)
    return dataset.compose(wds.detshuffle(bufsize=shuffle, seed=seed))


class _RandomStage(wds.PipelineStage):  # type: ignore[misc]
    """Makes samples with random numbers that each epoch and each worker draws anew."""

    def __init__(
        self,
        make: Callable[[Iterable[Sample], Random], Iterator[tuple[Any, ...]]],
        seed: int | None,
    ) -> None:
        self._make, self._seed, self._epoch = make, seed, -1

    def run(self, samples: Iterable[Sample]) -> Iterator[tuple[Any, ...]]:
        """Called by webdataset at the start of each epoch."""
        self._epoch += 1
        worker = get_worker_info()
        own = f"{self._seed} {self._epoch} {worker.id if worker else 0}"
        return self._make(samples, Random(None if self._seed is None else own))  # noqa: S311


def _clip_pairs(
    samples: Iterable[Sample], random: Random, *, window: WindowConfig, frames_per_clip: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for sample in samples:
        clip, mel = decode_clip(sample)
        if not clip.has_audio:
            continue
        front_end = AudioFrontEnd(mel=clip.mel.config, window=window)
        positions = training_positions(
            len(clip.frame_times_s), clip.audio_s, window.seconds, 1, len(clip.frame_times_s)
        )
        for position in random.sample(positions, min(frames_per_clip, len(positions))):
            frame = _jpeg(sample, f"{position.frame:02d}.jpg")
            yield frame, _window(mel, position, front_end)


def _captioned_images(samples: Iterable[Sample], random: Random) -> Iterator[tuple[Tensor, str]]:
    for sample in samples:
        captions = parse_image(_json(sample), f"{_where(sample)}.json")
        yield _jpeg(sample, "jpg"), random.choice(captions)


def decode_clip(sample: Mapping[str, Any]) -> tuple[ClipDescription, StoredMel]:
    """The description and the mel of an undecoded sample; errors as :func:`pairs`."""
    where = _where(sample)
    clip = parse_clip(_json(sample), f"{where}.json")
    codes, top_db = (_array(sample, name) for name in ("mel.npy", "mel_top_db.npy"))
    return clip, parse_mel(codes, top_db, clip, where)


def _window(mel: StoredMel, position: FramePosition, front_end: AudioFrontEnd) -> Tensor:
    first = window_first_column(position.centre_seconds, front_end)
    part = mel[max(first, 0) : max(0, first + front_end.columns)]
    return torch.from_numpy(scale_windows(window_decibels(part, first, front_end)[None], front_end))


def _where(sample: Mapping[str, Any]) -> str:
    return f"{sample['__url__']}: {sample['__key__']}"


def _member(sample: Mapping[str, Any], suffix: str) -> bytes:
    if suffix not in sample:
        raise DataError(f"{_where(sample)}.{suffix}: missing: not a shard of this project")
    content: bytes = sample[suffix]
    return content


def _json(sample: Mapping[str, Any]) -> Any:
    try:
        return json.loads(_member(sample, "json"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{_where(sample)}.json: not valid JSON: {error}") from error


def _array(sample: Mapping[str, Any], suffix: str) -> npt.NDArray[Any]:
    content = io.BytesIO(_member(sample, suffix))
    try:
        return np.asarray(np.load(content, allow_pickle=False))
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise DataError(f"{_where(sample)}.{suffix}: not a .npy array: {error}") from error


def _jpeg(sample: Mapping[str, Any], suffix: str) -> Tensor:
    try:
        return decode_jpeg(_member(sample, suffix))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{_where(sample)}.{suffix}: not a JPEG: {error}") from error
