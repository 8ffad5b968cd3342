"""Stage ``features``: what the towers of ``model.freeze`` make of all pictures and captions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from trimodal.core.files import read_table, remove
from trimodal.core.fingerprint import file_fingerprint, fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import bar, log, quantity
from trimodal.core.records import Split
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.shards import ShardResult
from trimodal.data.clip_index import read_index
from trimodal.data.shard_files import open_shards, shard_fingerprints
from trimodal.features.compute import (
    CaptionFile,
    PictureFile,
    Work,
    caption_features,
    keep_network,
    picture_features,
)
from trimodal.features.frozen import FrozenTowers
from trimodal.features.store import BLOCK, Files, write_index
from trimodal.models.devices import pick_device
from trimodal.parallel.journal import make_shards

Job = TypeVar("Job", PictureFile, CaptionFile)


def make_features(
    av_dir: Path, images_dir: Path, out_dir: Path, towers: FrozenTowers, machine: MachineConfig
) -> None:
    """Writes into ``out_dir``, for the towers of ``model.freeze``, ``av/`` and ``images/``, a file
    for each shard that training or validation reads, and ``text/``, one for each block of captions
    (shapes: :mod:`trimodal.features.compute`); and ``index.json``. Files finished by an earlier run
    are reused (:mod:`trimodal.parallel.journal`).

    The folders of shards may be URLs. On a CPU, ``machine.workers`` processes compute with a thread
    each, on a GPU this process does.
    """
    device = pick_device(machine.device)
    network = towers.build().to(device)
    identities = towers.identities(network)
    work = Work(towers=towers, key=fingerprint(identities), device=device)
    keep_network(work.key, network)
    workers = machine.workers if device.type == "cpu" else 1
    machine = replace(machine, executor="local", workers=workers)
    index: dict[str, Any] = {}
    if image := identities.get("image"):
        clips, frames = _frames(av_dir)
        images, pictures = _images(images_dir)
        work = replace(work, read=open_shards(clips | images, machine.shard_cache))
        jobs = _picture_jobs(out_dir / "av", frames, clips)
        files = _made(partial(picture_features, work), jobs, out_dir / "av", image, machine)
        jobs = _picture_jobs(out_dir / "images", pictures, images)
        files |= _made(partial(picture_features, work), jobs, out_dir / "images", image, machine)
        index["image"] = {"identity": image, "files": files}
    if text := identities.get("text"):
        table = towers.captions_dir / "captions.parquet"
        captions = _caption_jobs(out_dir / "text", table)
        files = _made(partial(caption_features, work), captions, out_dir / "text", text, machine)
        index["text"] = {"identity": text, "captions": file_fingerprint(table), "files": files}
    for tower, folders in (("image", ("av", "images")), ("text", ("text",))):
        for name in folders if tower not in index else ():
            remove(out_dir / name)
    write_index(out_dir, index)
    _log_summary(index)


def _made(
    make: Callable[[Job], ShardResult], jobs: Sequence[Job], folder: Path, settings: Any,
    machine: MachineConfig,
) -> Files:  # fmt: skip
    done = make_shards(make, jobs, folder, settings=settings, machine=machine)
    results = bar(done, task=f"features of {folder.name}", unit="files", total=len(jobs))
    return {f"{folder.name}/{row['file']}": row for result in results for row in result.rows}


def _frames(av_dir: Path) -> tuple[dict[Path, str], dict[Path, npt.NDArray[np.int64]]]:
    """The fingerprints of the shards of training and validation clips, and their frames."""
    splits: tuple[Split, ...] = ("train", "val")
    fingerprints: dict[Path, str] = {}
    extents: dict[Path, npt.NDArray[np.int64]] = {}
    for split in splits:
        clips = read_index(av_dir, split, None)
        fingerprints |= clips.fingerprints
        extents |= clips.frame_extents()
    return fingerprints, extents


def _images(images_dir: Path) -> tuple[dict[Path, str], dict[Path, npt.NDArray[np.int64]]]:
    """The fingerprints of the shards of images, and their images."""
    rows = read_table(images_dir / "index.parquet", IMAGE_SCHEMA)
    names, shard_of = np.unique(rows["shard"].to_numpy().astype(str), return_inverse=True)
    places = np.stack([rows["offset"].to_numpy(), rows["size"].to_numpy()], axis=1)
    extents = {
        images_dir / name: places[shard_of == number] for number, name in enumerate(names.tolist())
    }
    return shard_fingerprints(images_dir, rows), extents


def _picture_jobs(
    folder: Path, extents: Mapping[Path, npt.NDArray[np.int64]], fingerprints: Mapping[Path, str]
) -> list[PictureFile]:
    return [
        PictureFile(
            path=folder / f"{shard.stem}.npy",
            shard=shard,
            shard_fingerprint=fingerprints[shard],
            extents=places,
        )
        for shard, places in extents.items()
    ]


def _caption_jobs(folder: Path, table: Path) -> list[CaptionFile]:
    captions = read_table(table, CAPTION_SCHEMA, columns=["caption"])["caption"]
    return [
        CaptionFile(
            path=folder / f"{first // BLOCK:06d}.npy",
            captions=tuple(captions[first : first + BLOCK].to_pylist()),
        )
        for first in range(0, len(captions), BLOCK)
    ]


def _log_summary(index: Mapping[str, Any]) -> None:
    for tower, entry in index.items():
        shapes = [row["shape"] for row in entry["files"].values()]
        numbers = sum(math.prod(shape) for shape in shapes)
        identity, count = entry["identity"], sum(shape[0] for shape in shapes)
        what = f"pictures x {identity['views']} views" if tower == "image" else "captions"
        log.info(f"features: {identity['tower']}: {count:,} {what}, {quantity(2 * numbers)}B")
