"""One shard of images, as small square JPEGs.

The bytes of a shard are decided here and in what this imports; changing that code rebuilds shards.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from trimodal.core.archives import StoredFile, read_file
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.machine_errors import (
    ReadFailures,
    UnreadableError,
    reading,
    refuse_memory_shortage,
    retried,
)
from trimodal.core.records import CaptionedImage, Split
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.core.shards import ShardResult
from trimodal.core.storage import file_state
from trimodal.media.image import ExifOrientation, ImageError, image_fingerprint, square
from trimodal.media.shard_format import describe_image

# Why an image is left out of this run, and tried again by the next one.
REASONS = {"unreadable": "image file unreadable", "missing": "image file gone"}


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How images are stored: as JPEGs of ``px`` x ``px``, ``images_per_shard`` in a shard, upright
    unless ``exif_orientation`` is ignored.
    """

    px: int
    jpeg_quality: int
    images_per_shard: int
    exif_orientation: ExifOrientation = "apply"


@dataclass(frozen=True, kw_only=True)
class ImageShard:
    """The unit of work: the images of one shard, each with its file."""

    path: Path
    split: Split
    images: tuple[tuple[CaptionedImage, StoredFile | None], ...]

    def inputs(self) -> Any:
        """What it depends on besides params and code: its images, their files as they are now."""
        files = [file for _, file in self.images if file]
        facts = [
            [image.image_id, describe_image(image), file and [str(file.path), file.member]]
            for image, file in self.images
        ]
        return [self.split, facts, {str(file.path): file_state(file.path) for file in files}]


def write_image_shard(image_format: ImageFormat, job: ImageShard) -> ShardResult:
    """Writes one shard: a pure function of its arguments and the image files' bytes. Raises
    TooManyUnreadableError if this machine cannot read many of them in a row.
    """
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    fingerprints: dict[str, int] = {}
    samples = _samples(image_format, job, left_out, examples, fingerprints)
    extents = write_shard(job.path, samples)
    shard_fingerprint = file_fingerprint(job.path)
    rows = [
        {
            "image_id": key,
            "split": job.split,
            "shard": job.path.name,
            "shard_fingerprint": shard_fingerprint,
            "offset": members["jpg"].offset,
            "size": members["jpg"].size,
            "picture_fingerprint": fingerprints[key],
        }
        for key, members in extents.items()
    ]
    return ShardResult(
        rows=rows, left_out=left_out, examples=examples, bytes=job.path.stat().st_size
    )


def stored_jpeg(content: bytes, image_px: int, quality: int) -> bytes:
    """An image file's bytes as a JPEG of ``image_px`` x ``image_px``, aspect ratio not kept
    (docs/method.md, Data).
    """
    return _jpeg(square(content, image_px), quality)


def _jpeg(pixels: npt.NDArray[np.uint8], quality: int) -> bytes:
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, quality, colorsubsampling="420")
    return jpeg


def _samples(
    image_format: ImageFormat,
    job: ImageShard,
    left_out: Counter[str],
    examples: dict[str, str],
    fingerprints: dict[str, int],
) -> Iterator[Sample]:
    def leave_out(reason: str, detail: str) -> None:
        left_out[reason] += 1
        examples.setdefault(reason, f"{image_id}: {detail}")

    failures = ReadFailures()
    for image, file in job.images:
        image_id = image.image_id
        if file is None:
            leave_out("image file missing", "not among the image files")
            continue
        try:
            small, jpeg = retried(partial(_stored, file, image_format))
        except UnreadableError as error:
            leave_out(REASONS[error.reason], str(error))
            failures.record(str(error))
            continue
        except (OSError, ImageError) as error:
            leave_out("image file broken", f"{file.name}: {error}")
        else:
            fingerprints[image_id] = image_fingerprint(jpeg, small)
            description = json.dumps(describe_image(image), sort_keys=True).encode()
            yield Sample(key=image_id, members={"jpg": jpeg, "json": description})
        failures.record("")


def _stored(file: StoredFile, image_format: ImageFormat) -> tuple[npt.NDArray[np.uint8], bytes]:
    """The pixels that are stored of a file, and their JPEG."""
    with reading(file.path):
        content = read_file(file)
        try:
            small = square(content, image_format.px, image_format.exif_orientation)
        except ImageError as error:
            refuse_memory_shortage(error)
            raise
        return small, _jpeg(small, image_format.jpeg_quality)
