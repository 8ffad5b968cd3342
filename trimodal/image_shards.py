"""From picture files to shards of small square JPEGs with their index."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from trimodal.archives import StoredFile, read_file, reading_order
from trimodal.engine import LOCAL, EngineConfig
from trimodal.files import code_fingerprint, file_fingerprint, write_table
from trimodal.image_sources import ImageFile
from trimodal.journal import ShardDone, file_state, make_shards
from trimodal.pictures import picture_fingerprint
from trimodal.progress import counter
from trimodal.records import Split
from trimodal.shards import Sample, write_shard
from trimodal.tables import IMAGE_SCHEMA

# The source that shapes a shard: another version of it makes them anew.
SHAPING_MODULES = (
    "trimodal.archives",
    "trimodal.image_shards",
    "trimodal.pictures",
    "trimodal.shards",
)

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True, kw_only=True)
class StoredForm:
    """How images are stored: JPEGs of ``px`` square, so many a shard."""

    px: int
    jpeg_quality: int
    images_per_shard: int


@dataclass(frozen=True, kw_only=True)
class ImageShard:
    """The unit of work: these images (id, file) become this shard."""

    path: Path
    split: Split
    images: tuple[tuple[str, StoredFile | None], ...]

    def made_of(self) -> Any:
        """What it depends on besides params and code: its images, their files as they are now."""
        files = [file for _, file in self.images if file]
        facts = [[name, file and [str(file.path), file.member]] for name, file in self.images]
        return [self.split, facts, {str(file.path): file_state(file.path) for file in files}]


def write_images(
    files: Sequence[ImageFile],
    images_dir: Path,
    form: StoredForm,
    workers: int,
    engine: EngineConfig = LOCAL,
) -> ShardDone:
    """Writes ``{train,val}-%06d.tar`` and ``index.parquet``; returns what all shards are together.
    Shards that an earlier run finished are kept (:mod:`trimodal.journal`).

    A worker holds one picture at a time. Left out and counted: missing and broken files.
    """
    jobs = _plan(files, images_dir, form.images_per_shard)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    size = 0
    shaping = {
        "code": code_fingerprint(*SHAPING_MODULES),
        "px": form.px,
        "jpeg_quality": form.jpeg_quality,
    }
    with counter(task="storing images", unit="images", total=len(files)) as bar:
        make = partial(write_image_shard, form)
        done = make_shards(make, jobs, images_dir, form=shaping, workers=workers, engine=engine)
        for job, shard in zip(jobs, done, strict=True):
            rows += shard.rows
            left_out += shard.left_out
            examples = shard.examples | examples
            size += shard.bytes
            bar.update(len(job.images))
    write_table(images_dir / "index.parquet", pa.Table.from_pylist(rows, IMAGE_SCHEMA))
    return ShardDone(rows=rows, left_out=left_out, examples=examples, bytes=size)


def write_image_shard(form: StoredForm, job: ImageShard) -> ShardDone:
    """Makes one shard: a pure function of its arguments and the pictures' bytes."""
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    pictures: dict[str, int] = {}
    extents = write_shard(job.path, _samples(form, job, left_out, examples, pictures))
    fingerprint = file_fingerprint(job.path)
    rows = [
        {
            "image_id": key,
            "split": job.split,
            "shard": job.path.name,
            "shard_fingerprint": fingerprint,
            "offset": members["jpg"].offset,
            "size": members["jpg"].size,
            "picture_fingerprint": pictures[key],
        }
        for key, members in extents.items()
    ]
    return ShardDone(rows=rows, left_out=left_out, examples=examples, bytes=job.path.stat().st_size)


def stored_jpeg(content: bytes, image_px: int, quality: int) -> bytes:
    """An image file's bytes as a JPEG of ``image_px`` square, aspect not kept (paper.md, Data)."""
    return _jpeg(square(content, image_px), quality)


def square(content: bytes, image_px: int) -> Image.Image:
    """A JPEG's or PNG's bytes as a picture of ``image_px`` square, RGB, aspect not kept (paper.md,
    Data). Raises OSError, ValueError, SyntaxError and Pillow's of ``BOMBS`` for what is none.
    """
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image,
    ):
        image.draft("RGB", (image_px, image_px))
        # A palette's transparency is dropped in a step of its own: Pillow warns of it otherwise.
        whole = image.convert("RGBA") if image.mode == "P" else image
        pixels = whole if whole.mode == "RGB" else whole.convert("RGB")
        return pixels.resize((image_px, image_px), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


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
                images=tuple((f.image.image_id, f.file) for f in chosen[start : start + step]),
            )
            for start in range(0, len(chosen), step)
        ]
    return jobs


def _samples(
    form: StoredForm,
    job: ImageShard,
    left_out: Counter[str],
    examples: dict[str, str],
    pictures: dict[str, int],
) -> Iterator[Sample]:
    def without(reason: str, detail: str) -> None:
        left_out[reason] += 1
        examples.setdefault(reason, f"{image_id}: {detail}")

    for image_id, file in job.images:
        if file is None:
            without("image file missing", "not among the pictures")
            continue
        try:
            small = square(read_file(file), form.px)
            jpeg = _jpeg(small, form.jpeg_quality)
        except FileNotFoundError as error:
            without("image file missing", str(error))
        except (OSError, ValueError, SyntaxError, *BOMBS) as error:
            without("image file broken", f"{file.name}: {error}")
        else:
            pictures[image_id] = picture_fingerprint(jpeg, np.asarray(small))
            yield Sample(key=image_id, members={"jpg": jpeg})
