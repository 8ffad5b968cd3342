"""Image files to shards of small square JPEGs with an index."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from trimodal.core.archives import reading_order
from trimodal.core.files import write_table
from trimodal.core.fingerprint import code_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import counter
from trimodal.core.records import Split
from trimodal.core.schemas import IMAGE_SCHEMA
from trimodal.core.shards import ShardResult
from trimodal.parallel.journal import make_shards
from trimodal.preprocess.image_shards import (
    REASONS,
    ImageFormat,
    ImageShard,
    write_image_shard,
)
from trimodal.sources.image_files import ImageFile


def write_images(
    files: Sequence[ImageFile],
    images_dir: Path,
    image_format: ImageFormat,
    machine: MachineConfig,
) -> ShardResult:
    """Writes ``{train,val}-%06d.tar`` and ``index.parquet``; returns the shards' combined result.
    Shards finished by an earlier run are reused (:mod:`trimodal.parallel.journal`).

    A worker holds one image at a time. Left out and counted: missing and broken files.
    """
    jobs = _plan(files, images_dir, image_format.images_per_shard)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    size = 0
    settings = {
        "code": code_fingerprint("trimodal.preprocess.image_shards"),
        "px": image_format.px,
        "jpeg_quality": image_format.jpeg_quality,
        "exif_orientation": image_format.exif_orientation,
    }
    with counter(task="storing images", unit="images", total=len(files)) as bar:
        make = partial(write_image_shard, image_format)
        done = make_shards(
            make, jobs, images_dir, settings=settings, machine=machine,
            retryable=tuple(REASONS.values()),
        )  # fmt: skip
        for job, shard in zip(jobs, done, strict=True):
            rows += shard.rows
            left_out += shard.left_out
            examples = shard.examples | examples
            size += shard.bytes
            bar.update(len(job.images))
    write_table(images_dir / "index.parquet", pa.Table.from_pylist(rows, IMAGE_SCHEMA))
    return ShardResult(rows=rows, left_out=left_out, examples=examples, bytes=size)


def _plan(files: Sequence[ImageFile], images_dir: Path, step: int) -> list[ImageShard]:
    jobs = []
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        chosen = [file for file in files if file.image.split == split]
        chosen.sort(key=lambda f: reading_order(f.file))
        jobs += [
            ImageShard(
                path=images_dir / f"{split}-{start // step:06d}.tar",
                split=split,
                images=tuple((f.image, f.file) for f in chosen[start : start + step]),
            )
            for start in range(0, len(chosen), step)
        ]
    return jobs
