"""Captions as input of the text network: tokens, vocabulary, ids, and their file."""

import dataclasses
import json
import re
import unicodedata
import zipfile
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixtures import ENGLISH, REAL, needs_real_data
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import RegexpTokenizer

from trimodal.core import language
from trimodal.core.config import ConfigError
from trimodal.core.files import write_table
from trimodal.core.language import nltk_tokenise, tokeniser_of
from trimodal.core.records import DataError
from trimodal.core.subwords import Subwords
from trimodal.core.text import (
    Tokeniser,
    Vocabulary,
    build_vocabulary,
    read_vocabulary,
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
        ENGLISH,
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
    assert ENGLISH.words(caption) == tokens


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("abzAZ é'-")))
def test_tokens_are_those_of_nltk(caption: str) -> None:
    words = RegexpTokenizer("[a-z]+").tokenize(caption.lower())
    assert ENGLISH.words(caption) == [word for word in words if word not in ENGLISH.stop_words]


def test_tokens_are_not_truncated() -> None:
    assert len(ENGLISH.words("dog " * 40)) == 40


@needs_real_data
def test_words_of_coco_are_those_of_nltk_and_of_before() -> None:
    """All captions of COCO's validation set, split by NLTK as in the captions stage, by the engine
    beneath it as in a query, and by `re` as before the two.
    """
    annotations = REAL / "annotations" / "coco_captions_val2017_full.json"
    captions = [row["caption"] for row in json.loads(annotations.read_text())["annotations"]]
    assert len(captions) == 25_014
    by_nltk, stop_words = nltk_tokenise(ENGLISH), ENGLISH.stop_words
    for caption in captions:
        before = [w for w in re.findall("[a-z]+", caption.lower()) if w not in stop_words]
        assert by_nltk(caption) == ENGLISH.words(caption) == before


def test_stop_words_are_nltks_179() -> None:
    assert tokeniser_of("english") == ENGLISH
    assert len(ENGLISH.stop_words) == 179
    assert {"i", "the", "don", "don't", "s", "t", "wouldn't", "very"} <= ENGLISH.stop_words
    assert not {"one", "two", "man", "dog"} & ENGLISH.stop_words


# Other languages


@pytest.fixture
def nltk_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An NLTK data folder of the user's."""
    from nltk import data

    monkeypatch.setattr(data, "path", [str(tmp_path), *data.path])
    folder = tmp_path / "corpora" / "stopwords"
    folder.mkdir(parents=True)
    return folder


# Some of the stop words that NLTK has for these.
SENTENCES = {
    "german": ("ein und der", "Ein größerer HUND läuft; und 2 Vögel!", "größerer hund läuft vögel"),
    "french": ("l à la d", "L'été à la plage: cœur d'or", "été plage cœur or"),
    "hindi": ("एक", "एक हिन्दी पुस्तक", "हिन्दी पुस्तक"),
    "hebrew": ("את", "אני רואה את הכלב", "אני רואה הכלב"),
    "none_of_it": ("x", "❤️ 👩‍🚒 ½ 2² _ \u0301", ""),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_language_keeps_its_letters(language: str, nltk_folder: Path) -> None:
    stop_words, sentence, words = SENTENCES[language]
    (nltk_folder / language).write_text("\n".join(stop_words.split()) + "\n", encoding="utf-8")
    tokeniser = tokeniser_of(language)
    assert tokeniser.stop_words == set(stop_words.split())
    for split in (tokeniser.words, nltk_tokenise(tokeniser)):
        assert split(sentence) == words.split()
        assert split(unicodedata.normalize("NFD", sentence)) == words.split()


@given(st.text(), st.sampled_from(["english", "german"]))
def test_queries_are_split_as_nltk_does(sentence: str, language: str) -> None:
    tokeniser = Tokeniser(language=language, stop_words=frozenset({"a", "\u00e9"}))
    words = nltk_tokenise(tokeniser)(sentence)
    assert tokeniser.words(sentence) == words
    assert tokeniser.words(" ".join(words)) == words


def test_english_is_the_list_that_comes_with_us(nltk_folder: Path) -> None:
    """NLTK's own has grown since: a model's words must not depend on what is installed."""
    (nltk_folder / "english").write_text("dog\n")
    assert tokeniser_of("english") == ENGLISH


def test_the_list_that_comes_with_us_may_lie_where_a_group_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a checkout under umask 002: NLTK itself refuses it."""
    own = tmp_path / "nltk_data"
    copytree(language.NLTK_DATA, own)
    for path in (own, *own.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)
    monkeypatch.setattr(language, "NLTK_DATA", own)
    assert tokeniser_of("english") == ENGLISH


def test_nltks_archive_of_lists_is_read(nltk_folder: Path) -> None:
    """`nltk.download` leaves it beside the folder, or alone."""
    with zipfile.ZipFile(nltk_folder.with_suffix(".zip"), "w") as archive:
        archive.writestr("stopwords/", "")
        archive.writestr("stopwords/README", "about\n")
        archive.writestr("stopwords/danish", "og\n\xe6\n".encode())
    nltk_folder.rmdir()
    assert tokeniser_of("danish").stop_words == {"og", "\xe6"}


@pytest.mark.parametrize("language", ["klingon", "../stopwords/english", "README", ""])
def test_a_language_without_a_list_is_named_with_what_to_do(
    language: str, nltk_folder: Path
) -> None:
    (nltk_folder / "README").write_text("about the lists\n")
    with pytest.raises(ConfigError, match=r"captions\.language: NLTK has no .*download.*NLTK_DATA"):
        tokeniser_of(language)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"gr\xfc\xdfe\n"])
def test_a_list_that_cannot_be_used_is_named(content: bytes, nltk_folder: Path) -> None:
    (nltk_folder / "german").write_bytes(content)
    with pytest.raises(DataError, match=r"german: (not UTF-8|contains no stop words)"):
        tokeniser_of("german")


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
    more = build_vocabulary(COUNTS, others | known, ENGLISH)
    assert more.words == (*vocabulary.words, "aardvark", "emu", "zebra")
    np.testing.assert_array_equal(more.vectors[: len(vocabulary.words)], vocabulary.vectors)
    assert [row[0] for row in more.vectors[-3:]] == [6, 7, 8]
    assert more.token_ids(["emu", "dog", "unicorn"]).tolist()[:3] == [7, 2, 1]


@pytest.mark.parametrize(
    "word", ["the", "don", "New", "new_york", "caf\u00e9", "r2", "", "two words", "<padding>"]
)
def test_words_that_are_not_a_token_are_excluded(word: str) -> None:
    more = build_vocabulary(
        {"dog": 1}, {"dog": vector(1), "emu": vector(2), word: vector(3)}, ENGLISH
    )
    assert more.words[2:] == ("dog", "emu")


def test_order_does_not_depend_on_the_order_of_vectors_or_captions() -> None:
    counts = {"bee": 1, "ant": 2, "cat": 1}
    vectors = {word: vector(i) for i, word in enumerate(("cat", "bee", "ant"))}
    reversed_vectors = dict(reversed(vectors.items()))
    one = build_vocabulary(counts, vectors, ENGLISH)
    other = build_vocabulary(dict(reversed(counts.items())), reversed_vectors, ENGLISH)
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
    assert schema.names == ["word", "kind", "vector"]
    assert schema.field("word").type == schema.field("kind").type == pa.string()
    assert schema.field("vector").type == pa.list_(pa.float32(), 300)


def test_vocabulary_without_its_special_rows_is_refused() -> None:
    with pytest.raises(DataError, match="padding and unknown"):
        Vocabulary(("dog", "cat"), np.zeros((2, 300), np.float32), ENGLISH)


def test_vocabulary_with_another_number_of_vectors_is_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(DataError, match="vectors"):
        dataclasses.replace(vocabulary, vectors=vocabulary.vectors[:-1])


# Words from their spelling


@pytest.fixture
def with_ngrams(vocabulary: Vocabulary) -> Vocabulary:
    """ "bee" has its vector from its spelling, and so have "cats" and "do"."""
    subwords = Subwords(ngrams=("cat", "<do"), vectors=np.stack([vector(5), vector(7)]))
    return dataclasses.replace(vocabulary, spelled=frozenset({"bee"}), subwords=subwords)


def test_words_without_a_row_have_ids_after_the_table(with_ngrams: Vocabulary) -> None:
    sentences = [["dog", "do", "unicorn", "cats"], [], ["bee"] * 15 + ["do", "cats"]]
    ids, further = with_ngrams.encode(sentences)
    assert (ids.dtype, further.dtype) == (np.int64, np.float32)
    assert ids.tolist() == [[2, 6, 1, 7] + [0] * 12, [0] * 16, [5] * 15 + [6]]
    assert further[:, 0].tolist() == [7, 5]
    ids, further = with_ngrams.encode([["dog", "unicorn"]])
    assert (ids.tolist(), further.shape) == ([[2, 1] + [0] * 14], (0, 300))


def test_without_ngrams_words_without_a_row_are_unknown(vocabulary: Vocabulary) -> None:
    ids, further = vocabulary.encode([["dog", "cats"]])
    assert ids.tolist() == [vocabulary.token_ids(["dog", "cats"]).tolist()]
    assert further.shape == (0, 300)
    assert vocabulary.spelling("cats") is None
    assert vocabulary.encode([])[0].shape == (0, 16)


def test_ngrams_and_tokeniser_survive_a_round_trip(with_ngrams: Vocabulary, tmp_path: Path) -> None:
    german = Tokeniser(language="german", stop_words=frozenset({"über", "der"}))
    vocabulary = dataclasses.replace(with_ngrams, tokeniser=german)
    write_vocabulary(tmp_path / "v.parquet", vocabulary)
    back = read_vocabulary(tmp_path / "v.parquet")
    assert back.tokeniser == german
    assert (back.words, back.spelled) == (vocabulary.words, vocabulary.spelled)
    assert back.subwords is not None
    assert back.subwords.ngrams == ("cat", "<do")
    assert back.encode([["cats", "do"]])[1][:, 0].tolist() == [5, 7]
    assert back.fingerprint == vocabulary.fingerprint
    first = (tmp_path / "v.parquet").read_bytes()
    write_vocabulary(tmp_path / "v.parquet", back)
    assert (tmp_path / "v.parquet").read_bytes() == first


def test_fingerprint_sees_the_tokeniser_and_the_ngrams(with_ngrams: Vocabulary) -> None:
    assert with_ngrams.subwords is not None
    english = with_ngrams.tokeniser
    changes: list[dict[str, Any]] = [
        {"tokeniser": dataclasses.replace(english, language="german")},
        {"tokeniser": dataclasses.replace(english, stop_words=english.stop_words - {"the"})},
        {"spelled": frozenset()},
        {"subwords": None},
        {"subwords": dataclasses.replace(with_ngrams.subwords, ngrams=("cat", "<da"))},
        {"subwords": dataclasses.replace(with_ngrams.subwords, vectors=np.ones((2, 300), "f4"))},
    ]
    changed = [dataclasses.replace(with_ngrams, **change) for change in changes]
    assert len({v.fingerprint for v in (with_ngrams, *changed)}) == len(changes) + 1


@pytest.mark.parametrize(
    "settings",
    [b"", b"[" * 100_000, b"{}", b"\xff", b'{"language": "english"}',
     b'{"language": 3, "stop_words": []}', b'{"language": "x", "stop_words": [1]}',
     b'{"language": "x", "stop_words": "the"}'],
)  # fmt: skip
def test_a_vocabulary_that_does_not_say_its_language_is_refused(
    settings: bytes, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    path = tmp_path / "vocabulary.parquet"
    write_vocabulary(path, vocabulary)
    table = pq.read_table(path)
    write_table(path, table.replace_schema_metadata({"tokeniser": settings} if settings else None))
    with pytest.raises(DataError, match=r"vocabulary\.parquet: .*language.*captions stage"):
        read_vocabulary(path)


@pytest.mark.parametrize("kinds", [["ngram", "word"], ["letter"], ["word", "ngram", "spelling"]])
def test_a_vocabulary_of_other_kinds_is_refused(
    kinds: list[str], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    path = tmp_path / "vocabulary.parquet"
    write_vocabulary(path, vocabulary)
    table = pq.read_table(path)
    column = pa.array(["word"] * (len(table) - len(kinds)) + kinds)
    write_table(path, table.set_column(1, table.schema.field("kind"), column))
    with pytest.raises(DataError, match=r"vocabulary\.parquet: its kinds"):
        read_vocabulary(path)


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
