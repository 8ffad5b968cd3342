"""From picture files to shards of small square JPEGs with their index."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from trimodal.archives import StoredFile, read_file, reading_order
from trimodal.files import file_fingerprint, write_table
from trimodal.image_sources import ImageFile
from trimodal.progress import counter
from trimodal.records import Split
from trimodal.shards import Sample, write_shard
from trimodal.tables import IMAGE_SCHEMA
from trimodal.workers import map_in_order

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, kw_only=True)
class StoredForm:
    """How images are stored: JPEGs of ``px`` square, so many a shard."""

    px: int
    jpeg_quality: int
    images_per_shard: int


@dataclass(frozen=True, kw_only=True)
class ImageShardJob:
    """The unit of work: these images (id, file) become this shard."""

    path: Path
    split: Split
    images: tuple[tuple[str, StoredFile | None], ...]


@dataclass(frozen=True, kw_only=True)
class ImageShardDone:
    """Index rows of what a shard holds, the reasons of what it lacks, its size."""

    rows: list[dict[str, Any]]
    left_out: Counter[str]
    bytes: int


def write_images(
    files: Sequence[ImageFile], images_dir: Path, form: StoredForm, workers: int
) -> ImageShardDone:
    """Writes ``{train,val}-%06d.tar`` and ``index.parquet``; returns what all shards are together.

    A worker holds one picture at a time. Left out and counted: missing and broken files.
    """
    jobs = _plan(files, images_dir, form.images_per_shard)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    size = 0
    with counter(task="storing images", unit="images", total=len(files)) as bar:
        done = map_in_order(partial(write_image_shard, form), jobs, workers)
        for job, shard in zip(jobs, done, strict=True):
            rows += shard.rows
            left_out += shard.left_out
            size += shard.bytes
            bar.update(len(job.images))
    write_table(images_dir / "index.parquet", pa.Table.from_pylist(rows, IMAGE_SCHEMA))
    return ImageShardDone(rows=rows, left_out=left_out, bytes=size)


def write_image_shard(form: StoredForm, job: ImageShardJob) -> ImageShardDone:
    """Makes one shard: a pure function of its arguments and the pictures' bytes."""
    left_out: Counter[str] = Counter()
    extents = write_shard(job.path, _samples(form, job, left_out))
    fingerprint = file_fingerprint(job.path)
    rows = [
        {
            "image_id": key,
            "split": job.split,
            "shard": job.path.name,
            "shard_fingerprint": fingerprint,
            "offset": members["jpg"].offset,
            "size": members["jpg"].size,
        }
        for key, members in extents.items()
    ]
    return ImageShardDone(rows=rows, left_out=left_out, bytes=job.path.stat().st_size)


def stored_jpeg(content: bytes, image_px: int, quality: int) -> bytes:
    """An image file's bytes as a JPEG of ``image_px`` square, aspect not kept (paper.md, Data)."""
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image,
    ):
        image.draft("RGB", (image_px, image_px))
        # A palette's transparency is dropped in a step of its own: Pillow warns of it otherwise.
        whole = image.convert("RGBA") if image.mode == "P" else image
        pixels = whole if whole.mode == "RGB" else whole.convert("RGB")
        small = pixels.resize((image_px, image_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _plan(files: Sequence[ImageFile], images_dir: Path, step: int) -> list[ImageShardJob]:
    jobs = []
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        chosen = [file for file in files if file.image.split == split]
        chosen.sort(key=lambda f: reading_order(f.file))
        jobs += [
            ImageShardJob(
                path=images_dir / f"{split}-{start // step:06d}.tar",
                split=split,
                images=tuple((f.image.image_id, f.file) for f in chosen[start : start + step]),
            )
            for start in range(0, len(chosen), step)
        ]
    return jobs


def _samples(form: StoredForm, job: ImageShardJob, left_out: Counter[str]) -> Iterator[Sample]:
    for image_id, file in job.images:
        if file is None:
            left_out["image file missing"] += 1
            continue
        try:
            pixels = stored_jpeg(read_file(file), form.px, form.jpeg_quality)
        except FileNotFoundError:
            left_out["image file missing"] += 1
        except (OSError, ValueError, SyntaxError, *_BOMBS):
            left_out["image file broken"] += 1
        else:
            yield Sample(key=image_id, members={"jpg": pixels})
