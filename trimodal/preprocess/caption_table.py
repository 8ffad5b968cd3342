"""The captions as columns: each caption is tokenised once, its words are held as integers."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.files import atomic_path, table_writer
from trimodal.core.records import CaptionedImage
from trimodal.core.schemas import CAPTION_SCHEMA, WORDS
from trimodal.core.text import PADDING_ID, Vocabulary

GROUP_ROWS = 65_536


@dataclass(frozen=True)
class CaptionColumns:
    """Captions in order, grouped by image. ``words`` are the distinct tokens in order of first
    occurrence; caption c's tokens are
    ``words[t] for t in tokens[token_ends[c - 1]:token_ends[c]]`` and its image is
    ``images[image_index[c]]``.
    """

    images: list[CaptionedImage] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    image_index: "array[int]" = field(default_factory=lambda: array("i"))
    words: list[str] = field(default_factory=list)
    tokens: "array[int]" = field(default_factory=lambda: array("i"))
    token_ends: "array[int]" = field(default_factory=lambda: array("q"))

    def word_counts(self) -> npt.NDArray[np.int64]:
        """The number of occurrences of each word, (words,)."""
        return np.bincount(np.frombuffer(self.tokens, np.int32), minlength=len(self.words))

    def split_counts(self) -> dict[str, dict[str, int]]:
        """The number of captions by source and split."""
        counts: dict[str, Counter[str]] = {}
        for index, count in Counter(self.image_index).items():
            image = self.images[index]
            counts.setdefault(image.source, Counter())[image.split] += count
        return {source: dict(by_split) for source, by_split in counts.items()}


def caption_columns(
    images: Iterable[CaptionedImage], tokenise: Callable[[str], list[str]]
) -> tuple[CaptionColumns, int]:
    """The images' captions as tokens, and the number left out because they have none: they consist
    of stop words only.
    """
    columns = CaptionColumns()
    word_index: dict[str, int] = {}
    empty = 0
    for image in images:
        columns.images.append(image)
        for caption in image.captions:
            tokens = tokenise(caption)
            if not tokens:
                empty += 1
                continue
            columns.captions.append(caption)
            columns.image_index.append(len(columns.images) - 1)
            columns.tokens.extend(word_index.setdefault(t, len(word_index)) for t in tokens)
            columns.token_ends.append(len(columns.tokens))
    columns.words.extend(word_index)
    return columns, empty


def write_captions(
    captions_dir: Path, columns: CaptionColumns, vocabulary: Vocabulary | None
) -> None:
    """Writes ``captions.parquet`` (schemas.CAPTION_SCHEMA), in groups of 65,536 rows, and its
    column of word ids as ``token_ids.npy``, int32 (captions, 16), which training memory-maps.
    A table without captions needs no vocabulary.
    """
    ids = [vocabulary.token_ids([word])[0] for word in columns.words] if vocabulary else []
    word_ids = np.array(ids, np.int32)
    words = pa.array(columns.words, pa.string())
    count = len(columns.captions)
    with (
        table_writer(captions_dir / "captions.parquet", CAPTION_SCHEMA) as writer,
        atomic_path(captions_dir / "token_ids.npy") as npy,
        npy.open("wb") as rows,  # a memory map would die of SIGBUS when the disk is full
    ):
        header = {"descr": "<i4", "fortran_order": False, "shape": (count, WORDS)}
        np.lib.format.write_array_header_1_0(rows, header)
        for first in range(0, count, GROUP_ROWS):
            stop = min(first + GROUP_ROWS, count)
            group, token_ids = _group(columns, first, stop, words, word_ids)
            writer.write_table(group)
            rows.write(token_ids.astype("<i4").tobytes())


def _group(
    columns: CaptionColumns, first: int, stop: int, words: pa.Array, word_ids: npt.NDArray[np.int32]
) -> tuple[pa.Table, npt.NDArray[np.int32]]:
    """Rows [first, stop) as a table, and their word ids, (rows, 16)."""
    ends = np.frombuffer(columns.token_ends, np.int64)
    start = ends[first - 1] if first else 0
    offsets = np.concatenate([[start], ends[first:stop]]) - start
    tokens = np.frombuffer(columns.tokens, np.int32)[start : ends[stop - 1]]
    images = [columns.images[index] for index in columns.image_index[first:stop]]
    token_ids = padded_ids(word_ids[tokens], offsets)
    table = pa.table(
        [
            pa.array((image.image_id for image in images), pa.string()),
            pa.array((image.split for image in images), pa.string()),
            pa.array((image.source for image in images), pa.string()),
            pa.array(columns.captions[first:stop], pa.string()),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), words.take(pa.array(tokens))),
            pa.FixedSizeListArray.from_arrays(pa.array(token_ids.ravel(), pa.int32()), WORDS),
        ],
        schema=CAPTION_SCHEMA,
    )
    return table, token_ids


def padded_ids(ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """(captions, 16): row c is ``ids[offsets[c]:offsets[c + 1]]``, cut or padded at the end."""
    lengths = np.diff(offsets)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    table = np.full((len(lengths), WORDS), PADDING_ID, np.int32)
    fits = positions < WORDS
    table[rows[fits], positions[fits]] = ids[fits]
    return table
