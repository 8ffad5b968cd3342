"""Captions as input of the text network: tokens, vocabulary, ids, and their file."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import RegexpTokenizer

from trimodal.core.files import write_table
from trimodal.core.records import DataError
from trimodal.core.text import (
    Vocabulary,
    build_vocabulary,
    read_vocabulary,
    stop_words,
    tokenise,
    write_vocabulary,
)


def vector(number: float) -> np.ndarray:
    return np.full(300, number, np.float32)


COUNTS = {"dog": 3, "cat": 2, "ant": 1, "unicorn": 1, "bee": 1}


@pytest.fixture
def vocabulary() -> Vocabulary:
    return build_vocabulary(
        COUNTS,
        {"ant": vector(1), "bee": vector(2), "cat": vector(3), "dog": vector(4)},
    )


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("Two DOGS running, fast.", ["two", "dogs", "running", "fast"]),
        ("red[dog\\cat]bird^fish_fox`owl", ["red", "dog", "cat", "bird", "fish", "fox", "owl"]),
        ("[\\]^_", []),
        ("2 dogs, 3cats and r2d2", ["dogs", "cats", "r"]),
        ("a dog's don't", ["dog"]),
        ("the man is in on at it", ["man"]),
        ("well-dressed T-shirt", ["well", "dressed", "shirt"]),
        ("café Zoë", ["caf", "zo"]),
        ("собака 犬 🐕 dog", ["dog"]),
        ("one\ttwo\nthree\u00a0four", ["one", "two", "three", "four"]),
        ("dog dog", ["dog", "dog"]),
        ("", []),
    ],
)
def test_tokens_are_lower_case_letters_without_stop_words(caption: str, tokens: list[str]) -> None:
    assert tokenise(caption) == tokens


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("abzAZ é'-")))
def test_tokens_are_those_of_nltk(caption: str) -> None:
    words = RegexpTokenizer("[a-z]+").tokenize(caption.lower())
    assert tokenise(caption) == [word for word in words if word not in stop_words()]


def test_tokens_are_not_truncated() -> None:
    assert len(tokenise("dog " * 40)) == 40


def test_stop_words_are_nltks_179() -> None:
    assert len(stop_words()) == 179
    assert {"i", "the", "don", "don't", "s", "t", "wouldn't", "very"} <= stop_words()
    assert not {"one", "two", "man", "dog"} & stop_words()


def test_ids_are_padded_with_zero_and_unknown_is_one(vocabulary: Vocabulary) -> None:
    ids = vocabulary.token_ids(["cat", "unicorn", "dog"])
    assert ids.tolist() == [3, 1, 2] + [0] * 13
    assert ids.dtype == np.int32


def test_ids_are_truncated_at_sixteen(vocabulary: Vocabulary) -> None:
    assert vocabulary.token_ids(["dog"] * 15 + ["cat", "ant"]).tolist() == [2] * 15 + [3]


def test_no_token_gives_padding_alone(vocabulary: Vocabulary) -> None:
    assert vocabulary.token_ids([]).tolist() == [0] * 16


def test_words_are_sorted_by_frequency_then_alphabet(vocabulary: Vocabulary) -> None:
    assert vocabulary.words == ("<padding>", "<unknown>", "dog", "cat", "ant", "bee")
    assert [row[0] for row in vocabulary.vectors] == [0, 0, 4, 3, 1, 2]
    assert not vocabulary.vectors[:2].any()


def test_words_of_no_caption_follow_alphabetically(vocabulary: Vocabulary) -> None:
    known = dict(zip(vocabulary.words[2:], vocabulary.vectors[2:], strict=True))
    others = {"zebra": vector(8), "emu": vector(7), "aardvark": vector(6)}
    more = build_vocabulary(COUNTS, others | known)
    assert more.words == (*vocabulary.words, "aardvark", "emu", "zebra")
    np.testing.assert_array_equal(more.vectors[: len(vocabulary.words)], vocabulary.vectors)
    assert [row[0] for row in more.vectors[-3:]] == [6, 7, 8]
    assert more.token_ids(["emu", "dog", "unicorn"]).tolist()[:3] == [7, 2, 1]


@pytest.mark.parametrize(
    "word", ["the", "don", "New", "new_york", "caf\u00e9", "r2", "", "two words", "<padding>"]
)
def test_words_that_are_not_a_token_are_excluded(word: str) -> None:
    more = build_vocabulary({"dog": 1}, {"dog": vector(1), "emu": vector(2), word: vector(3)})
    assert more.words[2:] == ("dog", "emu")


def test_order_does_not_depend_on_the_order_of_vectors_or_captions() -> None:
    counts = {"bee": 1, "ant": 2, "cat": 1}
    vectors = {word: vector(i) for i, word in enumerate(("cat", "bee", "ant"))}
    reversed_vectors = dict(reversed(vectors.items()))
    one = build_vocabulary(counts, vectors)
    other = build_vocabulary(dict(reversed(counts.items())), reversed_vectors)
    assert one.words == other.words == ("<padding>", "<unknown>", "ant", "bee", "cat")
    assert one.fingerprint == other.fingerprint


def test_fingerprint_sees_words_order_and_vectors(vocabulary: Vocabulary) -> None:
    renamed = dataclasses.replace(vocabulary, words=(*vocabulary.words[:-1], "wasp"))
    words = list(vocabulary.words)
    words[2], words[3] = words[3], words[2]
    swapped = dataclasses.replace(vocabulary, words=tuple(words))
    vectors = vocabulary.vectors.copy()
    vectors[4, 299] += 1e-3
    moved = dataclasses.replace(vocabulary, vectors=vectors)
    assert len({v.fingerprint for v in (vocabulary, renamed, swapped, moved)}) == 4


def test_vocabulary_survives_a_round_trip(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.parquet"
    write_vocabulary(path, vocabulary)
    back = read_vocabulary(path)
    assert back.words == vocabulary.words
    np.testing.assert_array_equal(back.vectors, vocabulary.vectors)
    assert back.vectors.dtype == np.float32
    assert back.fingerprint == vocabulary.fingerprint
    assert back.token_ids(["bee"]).tolist() == vocabulary.token_ids(["bee"]).tolist()


def test_file_has_the_contracts_types(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.parquet"
    write_vocabulary(path, vocabulary)
    schema = pq.read_schema(path)
    assert schema.names == ["word", "vector"]
    assert schema.field("word").type == pa.string()
    assert schema.field("vector").type == pa.list_(pa.float32(), 300)


def test_vocabulary_without_its_special_rows_is_refused() -> None:
    with pytest.raises(DataError, match="padding and unknown"):
        Vocabulary(("dog", "cat"), np.zeros((2, 300), np.float32))


def test_vocabulary_with_another_number_of_vectors_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(DataError, match="vectors"):
        dataclasses.replace(vocabulary, vectors=vocabulary.vectors[:-1])


def test_table_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    write_table(path, pa.table({"word": ["<padding>"], "vector": [[0.0] * 300]}))
    with pytest.raises(DataError, match=r"captions\.parquet"):
        read_vocabulary(path)


@pytest.mark.parametrize("content", [b"", b"word,vector\n"])
def test_file_that_is_not_a_table_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"vocabulary\.parquet"):
        read_vocabulary(path)


def test_file_without_the_special_rows_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.parquet"
    schema = pa.schema({"word": pa.string(), "vector": pa.list_(pa.float32(), 300)})
    write_table(path, pa.table({"word": ["dog"], "vector": [[0.0] * 300]}, schema=schema))
    with pytest.raises(DataError, match=r"vocabulary\.parquet"):
        read_vocabulary(path)
