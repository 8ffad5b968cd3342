"""From caption sets to Parquet and image shards: everything the image-text stream reads."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from trimodal.files import file_fingerprint, write_json, write_table
from trimodal.progress import bar, closing_line, log
from trimodal.records import CaptionedImage, DataError
from trimodal.shards import Sample, write_shard
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.word2vec import read_vectors
from trimodal.tables import CAPTION_SCHEMA, IMAGE_SCHEMA, VECTOR_DIM
from trimodal.text import (
    Vocabulary,
    build_vocabulary,
    tokenise,
    write_vocabulary,
)
from trimodal.workers import map_in_order


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig:
    """Section ``captions``. The three paths are folders and a file in the data sets' own layouts:
    COCO 2017, Flickr30k, word2vec's binary format. Images are stored ``image_px`` square.
    """

    coco: str
    flickr30k: str
    vectors: str
    image_px: int
    jpeg_quality: int
    images_per_shard: int
    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError("captions.workers must be at least 1")
        if self.image_px < 2 or self.images_per_shard < 1 or not 1 <= self.jpeg_quality <= 95:
            raise ValueError("captions: image_px >= 2, images_per_shard >= 1, jpeg_quality 1..95")


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A captioned image and where its pixels are."""

    image: CaptionedImage
    path: Path


@dataclass(frozen=True, kw_only=True)
class ImageShardJob:
    """The unit of work: these images become this shard."""

    path: Path
    images: tuple[ImageFile, ...]


def prepare_captions(config: CaptionsConfig, captions_dir: Path, images_dir: Path) -> None:
    """Writes ``captions.parquet``, ``vocabulary.parquet`` and ``stats.json`` into ``captions_dir``
    and the images' shards with ``index.parquet`` into ``images_dir``.

    Left out and counted: images whose file is missing or broken, captions of stop words alone.
    """
    files = _read_sources(Path(config.coco), Path(config.flickr30k))
    index, left_out, size = _write_images(files, images_dir, config)
    stored = {row["image_id"] for row in index}
    images = [file.image for file in files if file.image.image_id in stored]
    rows = []
    for image in images:
        for caption in image.captions:
            if tokens := tokenise(caption):
                rows.append(_caption_row(image, caption, tokens))
            else:
                left_out["caption of stop words alone"] += 1
    if missing := {"train", "val"} - {row["split"] for row in rows}:
        raise DataError(f"captions: not one caption with words in {sorted(missing)}")
    words = {token for row in rows for token in row["tokens"]}
    vectors = read_vectors(Path(config.vectors), words, VECTOR_DIM)
    vocabulary = build_vocabulary((row["tokens"] for row in rows), vectors)
    for row in rows:
        row["token_ids"] = vocabulary.token_ids(row["tokens"])
    write_table(captions_dir / "captions.parquet", pa.Table.from_pylist(rows, CAPTION_SCHEMA))
    write_vocabulary(captions_dir / "vocabulary.parquet", vocabulary)
    unknown = _unknown_share(rows, vocabulary)
    write_json(
        captions_dir / "stats.json",
        {
            "images": dict(Counter(row["split"] for row in index)),
            "captions": len(rows),
            "words": len(words),
            "words_with_vector": len(vocabulary.words) - 2,
            "unknown_token_share": unknown,
            "left_out": dict(left_out),
        },
    )
    made = (
        f"captions: {len(rows)} captions of {len(index)} images ({size / 1e6:.1f} MB), "
        f"{len(vocabulary.words) - 2} of {len(words)} words have a vector, "
        f"{100 * unknown:.1f} % of tokens have none"
    )
    log.info(closing_line(made, left_out))


def write_image_shard(image_px: int, quality: int, job: ImageShardJob) -> dict[str, Any]:
    """Makes one image shard: its index rows, the reasons of what it lacks, its size in bytes."""
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    splits = {}
    for file in job.images:
        if not file.path.is_file():
            left_out["image file missing"] += 1
            continue
        try:
            pixels = stored_jpeg(file.path.read_bytes(), image_px, quality)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            left_out["image file broken"] += 1
            continue
        samples.append(Sample(key=file.image.image_id, members={"jpg": pixels}))
        splits[file.image.image_id] = file.image.split
    extents = write_shard(job.path, samples)
    fingerprint = file_fingerprint(job.path)
    rows = [
        {
            "image_id": key,
            "split": splits[key],
            "shard": job.path.name,
            "shard_fingerprint": fingerprint,
            "offset": members["jpg"].offset,
            "size": members["jpg"].size,
        }
        for key, members in extents.items()
    ]
    return {"rows": rows, "left_out": left_out, "bytes": job.path.stat().st_size}


def stored_jpeg(content: bytes, image_px: int, quality: int) -> bytes:
    """An image file's bytes as a JPEG of ``image_px`` square, aspect not kept (paper.md, Data)."""
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
        image.draft("RGB", (image_px, image_px))
        small = image.convert("RGB").resize((image_px, image_px), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _read_sources(coco: Path, flickr30k: Path) -> list[ImageFile]:
    sets = [
        (coco / "train2017", read_coco(coco, "train")),
        (coco / "val2017", read_coco(coco, "val")),
        (flickr30k / "images", read_flickr30k(flickr30k)),
    ]
    return [
        ImageFile(image=image, path=folder / image.file_name)
        for folder, images in sets
        for image in images
    ]


def _write_images(
    files: Sequence[ImageFile], images_dir: Path, config: CaptionsConfig
) -> tuple[list[dict[str, Any]], Counter[str], int]:
    step = config.images_per_shard
    jobs = []
    for split in ("train", "val"):
        chosen = [file for file in files if file.image.split == split]
        jobs += [
            ImageShardJob(
                path=images_dir / f"{split}-{start // step:06d}.tar",
                images=tuple(chosen[start : start + step]),
            )
            for start in range(0, len(chosen), step)
        ]
    work = partial(write_image_shard, config.image_px, config.jpeg_quality)
    index: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    size = 0
    done = map_in_order(work, jobs, config.workers)
    for shard in bar(done, task="storing images", unit="shards", total=len(jobs)):
        index += shard["rows"]
        left_out += shard["left_out"]
        size += shard["bytes"]
    splits = {row["split"] for row in index}
    if missing := {"train", "val"} - splits:
        raise DataError(f"captions: not one usable image in {sorted(missing)}: {dict(left_out)}")
    write_table(images_dir / "index.parquet", pa.Table.from_pylist(index, IMAGE_SCHEMA))
    return index, left_out, size


def _caption_row(image: CaptionedImage, caption: str, tokens: list[str]) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "split": image.split,
        "source": image.source,
        "caption": caption,
        "tokens": tokens,
    }


def _unknown_share(rows: Sequence[dict[str, Any]], vocabulary: Vocabulary) -> float:
    known = set(vocabulary.words)
    tokens = [token for row in rows for token in row["tokens"]]
    return sum(token not in known for token in tokens) / len(tokens)
