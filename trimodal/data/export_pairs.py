"""Writes the shards' pairs as Parquet files that Hugging Face ``datasets`` opens, with a dataset
card and Croissant metadata (docs/shards.md).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trimodal.core.files import atomic_path, write_json, write_text
from trimodal.core.machine import ShardCacheConfig
from trimodal.core.records import DataError, Split
from trimodal.core.storage import is_remote
from trimodal.data.clip_index import read_index
from trimodal.data.dataset_card import Configuration, ParquetFile, croissant, dataset_card
from trimodal.data.pair_tables import (
    IMAGE_TEXT_COLUMNS,
    Column,
    ImageAudioTable,
    ImageTextTable,
    PairTable,
    arrow_schema,
    image_audio_columns,
)
from trimodal.data.shard_files import image_fingerprints, open_shards
from trimodal.media.windows import AudioFrontEnd

FILE_BYTES = 500 * 10**6  # of rows in memory; a file on disk is smaller
ROW_GROUP_BYTES = 16 * 10**6
# Images and windows repeat nothing; the bytes of floats compress better apart.
_ENCODING = {
    "use_dictionary": ["clip_id", "label", "source"],
    "use_byte_stream_split": ["window.list.element.list.element"],
    "write_statistics": ["clip_id", "frame", "label", "image_id", "source"],
}
_SPLIT_NAMES: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class ShardFolders:
    """What the extract and captions stages wrote: ``av`` and ``images`` may be at URLs."""

    av: Path
    captions: Path
    images: Path


def export_pairs(
    folder: Path,
    shards: ShardFolders,
    front_end: AudioFrontEnd,
    cache: ShardCacheConfig,
    *,
    frames_per_clip: int | None = None,
) -> list[Configuration]:
    """Writes ``image-audio/`` and ``image-text/``, ``README.md`` and ``croissant.json`` into
    ``folder``, which appears when all is written. The same shards give the same bytes.

    Exports all frames of a clip whose window fits, or ``frames_per_clip`` of them. Memory is
    bounded by a group of rows, the indexes and the captions. Raises DataError, naming file and key,
    if ``folder`` holds anything or is at a URL, and for shards that are missing, damaged, made by
    another version or with other settings than ``front_end``'s mel.
    """
    _check_empty(folder)
    _check_present(shards.av / "index.parquet", "extract")
    _check_present(shards.captions / "captions.parquet", "captions")
    _check_present(shards.images / "index.parquet", "captions")
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        configurations = [
            _image_audio(temporary, shards, front_end, cache, frames_per_clip),
            _image_text(temporary, shards, cache),
        ]
        write_text(temporary / "README.md", dataset_card(configurations, front_end))
        write_json(temporary / "croissant.json", croissant(configurations))
    return configurations


def _check_empty(folder: Path) -> None:
    if is_remote(folder):
        raise DataError(f"{folder}: pairs are exported to a folder on this machine")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: not an empty folder; delete it or name another one")


def _check_present(path: Path, stage: str) -> None:
    if not path.exists():
        raise DataError(f"{path}: missing; run dvc repro {stage}")


def _image_audio(
    folder: Path, shards: ShardFolders, front_end: AudioFrontEnd, cache: ShardCacheConfig,
    frames_per_clip: int | None,
) -> Configuration:  # fmt: skip
    clips = {split: read_index(shards.av, split, front_end.mel) for split in get_args(Split)}
    fingerprints = {k: v for table in clips.values() for k, v in table.fingerprints.items()}
    read = open_shards(fingerprints, cache)
    silent = 0
    files: list[ParquetFile] = []
    for split, table in clips.items():
        pairs = ImageAudioTable(table, front_end, frames_per_clip, read)
        silent += pairs.silent
        files += _write_split(folder, "image-audio", _SPLIT_NAMES[split], pairs)
    left_out = f"clips without audio: {silent}" if silent else ""
    return _configuration("image-audio", image_audio_columns(front_end), files, left_out, shards.av)


def _image_text(folder: Path, shards: ShardFolders, cache: ShardCacheConfig) -> Configuration:
    read = open_shards(image_fingerprints(shards.images), cache)
    files: list[ParquetFile] = []
    for split, name in _SPLIT_NAMES.items():
        pairs = ImageTextTable(shards.captions, shards.images, split, read)
        files += _write_split(folder, "image-text", name, pairs)
    return _configuration("image-text", IMAGE_TEXT_COLUMNS, files, "", shards.images)


def _configuration(
    name: str, columns: Sequence[Column], files: Sequence[ParquetFile], left_out: str, source: Path
) -> Configuration:
    if not files:
        raise DataError(f"{source}/index.parquet: no {name} pairs")
    return Configuration(name=name, columns=columns, files=files, left_out=left_out)


def _write_split(
    folder: Path, configuration: str, split: str, pairs: PairTable
) -> Iterator[ParquetFile]:
    """Writes the files of a split, in the order of their rows; none if it has no pairs."""
    sizes = pairs.sizes
    parts = list(_consecutive(sizes, range(len(sizes)), FILE_BYTES))
    for number, part in enumerate(parts):
        name = f"{configuration}/{split}-{number:05d}-of-{len(parts):05d}.parquet"
        groups = (pairs.rows(group) for group in _consecutive(sizes, part, ROW_GROUP_BYTES))
        arrow_bytes = _write_parquet(folder / name, arrow_schema(pairs.columns), groups)
        with (folder / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield ParquetFile(
            name=name, split=split, rows=len(part), arrow_bytes=arrow_bytes,
            bytes=(folder / name).stat().st_size, sha256=sha256,
        )  # fmt: skip


def _write_parquet(path: Path, schema: pa.Schema, groups: Iterable[pa.Table]) -> int:
    """Writes one file, a row group for each table; returns their size in memory."""
    arrow_bytes = 0
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", **_ENCODING) as writer,
    ):
        for group in groups:
            writer.write_table(group)
            arrow_bytes += group.nbytes
    return arrow_bytes


def _consecutive(sizes: npt.NDArray[np.int64], rows: range, limit: int) -> Iterator[range]:
    """Cuts a range of rows into parts of at most ``limit`` bytes, of at least one row each."""
    start, total = rows.start, 0
    for row in rows:
        size = int(sizes[row])
        if row > start and total + size > limit:
            yield range(start, row)
            start, total = row, 0
        total += size
    if rows:
        yield range(start, rows.stop)
