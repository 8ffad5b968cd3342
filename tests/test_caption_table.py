"""Captions as columns against the same table built row by row."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixtures import ENGLISH
from hypothesis import given
from hypothesis import strategies as st

import trimodal.preprocess.caption_table
from trimodal.core.files import write_table
from trimodal.core.records import CaptionedImage
from trimodal.core.schemas import CAPTION_SCHEMA
from trimodal.core.text import Vocabulary, build_vocabulary
from trimodal.preprocess.caption_table import caption_columns, padded_ids, write_captions

NOUNS = ["dog", "cat", "bird", "drum", "tree", "house", "street", "water", "guitar", "rain"]


def images(count: int) -> list[CaptionedImage]:
    """0 to 20 words a caption, 1 to 6 captions an image; stop and unknown words too."""
    rng = np.random.default_rng(0)
    words = [*NOUNS, "the", "of", "qqq"]
    return [
        CaptionedImage(
            image_id=f"image_{number}", split="val" if number % 7 == 0 else "train",
            source="coco" if number < count // 2 else "flickr30k", file_name=f"{number}.jpg",
            captions=tuple(
                " ".join(rng.choice(words, rng.integers(0, 21))) + "."
                for _ in range(rng.integers(1, 7))
            ),
        )
        for number in range(count)
    ]  # fmt: skip


def vocabulary() -> Vocabulary:
    return build_vocabulary(
        Counter(NOUNS), {word: np.ones(300, np.float32) for word in NOUNS}, ENGLISH
    )


def rows_one_by_one(captioned: list[CaptionedImage]) -> list[dict[str, Any]]:
    known = vocabulary()
    return [
        {
            "image_id": image.image_id, "split": image.split, "source": image.source,
            "caption": caption, "tokens": ENGLISH.words(caption),
            "token_ids": known.token_ids(ENGLISH.words(caption)).tolist(),
        }
        for image in captioned
        for caption in image.captions
        if ENGLISH.words(caption)
    ]  # fmt: skip


@pytest.mark.parametrize("group_rows", [1, 7, 50, 65_536])
def test_table_equals_the_rows_one_by_one(
    group_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimodal.preprocess.caption_table, "GROUP_ROWS", group_rows)
    captioned = images(40)
    columns, empty = caption_columns(captioned, ENGLISH.words)
    write_captions(tmp_path, columns, vocabulary())
    expected = rows_one_by_one(captioned)
    table = pq.read_table(tmp_path / "captions.parquet")
    assert table.schema.equals(CAPTION_SCHEMA)
    assert table.to_pylist() == expected
    assert empty == sum(len(image.captions) for image in captioned) - len(expected) > 0
    mapped = np.load(tmp_path / "token_ids.npy", mmap_mode="r", allow_pickle=False)
    assert (mapped.dtype, mapped.tolist()) == (np.int32, [row["token_ids"] for row in expected])
    groups = pq.ParquetFile(tmp_path / "captions.parquet").num_row_groups
    assert groups == -(-len(expected) // group_rows)


def test_counts_are_those_of_the_rows() -> None:
    captioned = images(40)
    columns, _ = caption_columns(iter(captioned), ENGLISH.words)
    rows = rows_one_by_one(captioned)
    tokens = [token for row in rows for token in row["tokens"]]
    counts = dict(zip(columns.words, columns.word_counts().tolist(), strict=True))
    assert counts == {word: tokens.count(word) for word in set(tokens)}
    assert columns.split_counts() == {
        source: {
            split: sum((row["source"], row["split"]) == (source, split) for row in rows)
            for split in ("train", "val")
        }
        for source in ("coco", "flickr30k")
    }


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_padded_ids_cut_and_pad_each_row(lengths: list[int]) -> None:
    ids = np.arange(1, sum(lengths) + 1, dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    table = padded_ids(ids, offsets)
    assert table.dtype == np.int32
    for row, first, length in zip(table, offsets, lengths, strict=False):
        expected = ids[first : first + min(length, 16)].tolist()
        assert row.tolist() == expected + [0] * (16 - len(expected))


def test_same_bytes_as_one_table_written_at_once(tmp_path: Path) -> None:
    """Writing in groups makes no difference: a table smaller than a group is one group."""
    captioned = images(40)
    columns, _ = caption_columns(captioned, ENGLISH.words)
    write_captions(tmp_path, columns, vocabulary())
    table = pa.Table.from_pylist(rows_one_by_one(captioned), CAPTION_SCHEMA)
    write_table(tmp_path / "once.parquet", table)
    expected = (tmp_path / "once.parquet").read_bytes()
    assert (tmp_path / "captions.parquet").read_bytes() == expected
