"""One file of features: of a shard's pictures, or of a block of captions.

The bytes of a file are decided here and in what this imports; changing that code makes them again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimodal.core.files import atomic_path
from trimodal.core.fingerprint import file_fingerprint, sha256_of
from trimodal.core.records import DataError
from trimodal.core.shards import ShardResult, read_extents
from trimodal.data.augment import VIEW_FIELDS, Fields, random_fields, training_views
from trimodal.data.readers import read_image
from trimodal.data.shard_files import ReadShard
from trimodal.features.frozen import FrozenTowers
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import centre_views

_BATCH = 64  # pictures or captions that a tower sees at once
_LAYOUT = torch.channels_last  # a third faster than contiguous
_RECORD = random_fields(*VIEW_FIELDS)


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """The features of a shard's pictures, whose JPEGs are at ``extents``: offset and size of each,
    (pictures, 2).
    """

    path: Path
    shard: Path
    shard_fingerprint: str
    extents: npt.NDArray[np.int64]

    def inputs(self) -> Any:
        """What it depends on besides the towers and code."""
        return [self.shard.name, self.shard_fingerprint, sha256_of(self.extents.tobytes())]


@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """The features of a block of captions."""

    path: Path
    captions: tuple[str, ...]

    def inputs(self) -> Any:
        """What it depends on besides the tower and code."""
        return sha256_of(*(caption.encode() for caption in self.captions))


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a worker computes: the towers on ``device``, and what reads the shards. ``key``
    identifies the towers, which each process builds once.
    """

    towers: FrozenTowers
    key: str
    device: torch.device
    read: ReadShard = read_extents

    def network(self) -> TrimodalNet:
        """The towers, on the device; with one thread on a CPU, where machine.workers share it."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        if self.key not in _networks:
            keep_network(self.key, self.towers.build().to(self.device))
        return _networks[self.key]


_networks: dict[str, TrimodalNet] = {}


def keep_network(key: str, network: TrimodalNet) -> None:
    """Keeps towers that were built already for this process's :class:`Work`."""
    _networks.clear()
    _networks[key] = network.to(memory_format=_LAYOUT)


@torch.inference_mode()
def picture_features(work: Work, job: PictureFile) -> ShardResult:
    """Writes float16 (pictures, views, features): a pure function of its arguments and the shard.
    View 0 is the centre, the others are augmented, with numbers that depend on the seed, the
    shard's folder and name, the view and the picture.
    """
    network, augment = work.network().image, work.towers.augment
    random = _random(work.towers.config.seed, work.towers.config.views, job)

    def features(pictures: slice) -> Tensor:
        pixels = _decoded(work, job, pictures)
        views = [centre_views(pixels, augment)]
        views += [training_views(pixels, augment, records[pictures]) for records in random]
        inputs = (network.prepare(view.to(work.device)) for view in views)
        embedded = [network.backbone(rows.contiguous(memory_format=_LAYOUT)) for rows in inputs]
        return torch.stack(embedded, 1)

    of = job.shard_fingerprint
    return _write(job.path, len(job.extents), features, "model.image_backbone", of)


def _random(seed: int, views: int, job: PictureFile) -> Sequence[Fields]:
    """For each view but the first, a record of VIEW_FIELDS a picture."""
    name = f"{job.path.parent.name}/{job.shard.name}"
    shard = int(sha256_of(name.encode())[:8], 16)
    shape = (len(job.extents), len(VIEW_FIELDS))
    return [
        np.random.default_rng([seed, shard, view]).random(shape, np.float32).view(_RECORD)[:, 0]
        for view in range(1, views)
    ]


def _decoded(work: Work, job: PictureFile, pictures: slice) -> list[Tensor]:
    extents = job.extents[pictures].tolist()

    def read(extent: list[int]) -> Tensor:
        return read_image(job.shard, extent[0], extent[1], work.read)

    if work.device.type == "cpu":
        return list(map(read, extents))
    with ThreadPoolExecutor() as threads:
        return list(threads.map(read, extents))


@torch.inference_mode()
def caption_features(work: Work, job: CaptionFile) -> ShardResult:
    """Writes float16 (captions, features): a pure function of its arguments. Captions of about one
    length are embedded together, which halves the padding and with it the time.
    """
    network = work.network().text
    order = sorted(range(len(job.captions)), key=lambda row: len(job.captions[row]))
    parts: list[Tensor] = []
    for first in range(0, len(order), _BATCH):
        captions = [job.captions[row] for row in order[first : first + _BATCH]]
        ids, further = network.tokenise.encode(captions).to(work.device)
        parts.append(network.backbone(ids) if further is None else network.backbone(ids, further))
    sorted_rows = torch.cat(parts)
    rows = torch.empty_like(sorted_rows)
    rows[torch.tensor(order, device=rows.device)] = sorted_rows
    return _write(job.path, len(rows), lambda part: rows[part], "model.text_network", job.inputs())


def _write(
    path: Path, rows: int, features: Callable[[slice], Tensor], key: str, of: str
) -> ShardResult:
    shape: list[int] = []
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for half in _halves(path, rows, features, key):
            if not shape:
                shape = [rows, *half.shape[1:]]
                header = {"descr": "<f2", "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(half.tobytes())
    fingerprint = file_fingerprint(path)
    row = {"file": path.name, "fingerprint": fingerprint, "shape": shape, "of": of}
    return ShardResult(rows=[row], left_out=Counter(), examples={}, bytes=path.stat().st_size)


def _halves(
    path: Path, rows: int, features: Callable[[slice], Tensor], key: str
) -> Iterator[npt.NDArray[np.float16]]:
    for first in range(0, rows, _BATCH):
        half = features(slice(first, first + _BATCH)).half()
        if not half.isfinite().all():
            raise DataError(
                f"{path}: {key}: a feature is not finite or larger than float16 holds (65,504)"
            )
        yield half.cpu().numpy().astype("<f2", copy=False)
