"""Word vectors as written by the original tool and by gensim; broken files are refused."""

import gzip
import tempfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from data_fixtures import REAL, needs_real_data, refused, write_vectors
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimodal.core.records import DataError
from trimodal.sources import word2vec
from trimodal.sources.word2vec import MAX_WORD_BYTES, read_vectors

WIDTH = 3
NEWLINES = (b"", b"\n")
Vectors = Mapping[str, npt.NDArray[np.float32]]


@pytest.fixture(params=["gensim", "bounded"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test is of both readers."""
    if request.param == "bounded":
        monkeypatch.setattr(word2vec, "GENSIM_BYTES", 0)
    return str(request.param)


only_bounded = pytest.mark.parametrize("reader", ["bounded"], indirect=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vectors.bin"


def numbered(*words: str) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors with pairwise different numbers."""
    return {
        word: np.arange(WIDTH, dtype=np.float32) + 10 * row + 1 for row, word in enumerate(words)
    }


def content(vectors: Vectors, newline: bytes = b"") -> bytes:
    """A file; the original tool writes a ``newline`` after every vector."""
    rows = (w.encode() + b" " + v.astype("<f4").tobytes() + newline for w, v in vectors.items())
    return f"{len(vectors)} {len(next(iter(vectors.values())))}\n".encode() + b"".join(rows)


def assert_same(read: Vectors, expected: Vectors) -> None:
    assert list(read) == list(expected)
    for word, vector in expected.items():
        assert read[word].dtype == np.float32
        assert read[word].tobytes() == vector.tobytes()


# Reading


def test_only_known_words_are_returned(file: Path) -> None:
    write_vectors(file, ["cat", "dog", "é"])
    vectors = read_vectors(file, ["dog", "é", "unicorn"], 300)
    assert set(vectors) == {"dog", "é"}
    assert vectors["dog"].dtype == np.float32
    assert vectors["dog"].tolist() == [2.0] * 300
    assert vectors["é"].tolist() == [3.0] * 300


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("gzipped", [False, True])
def test_agrees_with_gensim_on_a_file_that_gensim_saved(
    newline: bytes, gzipped: bool, file: Path
) -> None:
    rng = np.random.default_rng(0)
    words = ["the", "dog", "New_York", "naïve", "犬", "a.b", "dog's", *map(str, range(200))]
    saved = KeyedVectors(50)
    saved.add_vectors(words, rng.standard_normal((len(words), 50)).astype(np.float32))
    saved.save_word2vec_format(str(file), binary=True)
    if newline:
        file.write_bytes(content({word: saved[word] for word in words}, newline))
    known = KeyedVectors.load_word2vec_format(str(file), binary=True)
    if gzipped:
        file.write_bytes(gzip.compress(file.read_bytes()))
    assert_same(read_vectors(file, words, 50), {word: known[word] for word in known.index_to_key})


@only_bounded
@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("block_bytes", range(1, 70))
def test_any_row_may_cross_a_block_boundary(
    block_bytes: int, newline: bytes, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word2vec, "BLOCK_BYTES", block_bytes)
    vectors = numbered("a", "bc", "def", "é")
    file.write_bytes(content(vectors, newline))
    assert_same(read_vectors(file, vectors.keys(), WIDTH), vectors)


@pytest.mark.parametrize("newline", NEWLINES)
def test_bytes_of_a_vector_may_look_like_spaces_and_newlines(newline: bytes, file: Path) -> None:
    spaces = np.frombuffer(b"    \n\n\n\n \n \n", np.float32)
    vectors = {"x": np.ones(WIDTH, np.float32), "a": spaces, "b": spaces[::-1], "c": spaces}
    file.write_bytes(content(vectors, newline))
    assert_same(read_vectors(file, "abc", WIDTH), {word: vectors[word] for word in "abc"})


@pytest.mark.parametrize("name", ["vectors.bin.gz", "vectors.bin"])
def test_gzip_is_detected_by_its_first_bytes_and_not_by_its_name(name: str, tmp_path: Path) -> None:
    vectors = numbered("cat", "dog")
    for body in (content(vectors), gzip.compress(content(vectors))):
        (tmp_path / name).write_bytes(body)
        assert_same(read_vectors(tmp_path / name, ["cat", "dog"], WIDTH), vectors)


def test_gzip_of_several_members_is_one_file(file: Path) -> None:
    vectors = numbered("cat", "dog")
    body = content(vectors)
    file.write_bytes(gzip.compress(body[:20]) + gzip.compress(body[20:]))
    assert_same(read_vectors(file, ["cat", "dog"], WIDTH), vectors)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (0, ["zebra"]),
        (1, ["cat", "zebra"]),
        (7, ["cat", "zebra"]),
        (8, ["cat", "the", "zebra"]),
        (99, ["cat", "the", "emu", "zebra"]),
    ],
)
def test_frequent_words_of_letters_are_always_returned(
    rows: int, words: list[str], file: Path
) -> None:
    vectors = numbered("cat", "Dog", "ant_hill", "é", "bee2", "", "x\n", "the", "emu", "zebra")
    file.write_bytes(content(vectors))
    read = read_vectors(file, ["zebra", "unicorn"], WIDTH, frequent_rows=rows)
    assert_same(read, {word: vectors[word] for word in words})


def test_first_of_duplicate_words_is_used(file: Path) -> None:
    once = content(numbered("cat", "dog")).partition(b"\n")[2]
    bad = b"cat " + np.full(WIDTH, np.nan, np.float32).tobytes()
    file.write_bytes(b"5 3\n" + once + once + bad)
    read = read_vectors(file, ["cat"], WIDTH, frequent_rows=5)
    assert_same(read, numbered("cat", "dog"))
    file.write_bytes(b"4 3\n" + once + once)
    known = KeyedVectors.load_word2vec_format(str(file), binary=True)
    assert_same(read, {word: known[word] for word in ("cat", "dog")})


def test_word_that_is_not_utf8_is_skipped(file: Path) -> None:
    body = content(numbered("cat", "bad", "dog")).replace(b"bad", b"\xffz\xfe")
    file.write_bytes(body)
    read = read_vectors(file, ["cat", "dog", "z", "\ufffdz\ufffd"], WIDTH, frequent_rows=3)
    assert list(read) == ["cat", "dog"]


def test_vectors_do_not_reference_the_file_buffer(file: Path) -> None:
    file.write_bytes(content(numbered("cat")))
    vector = read_vectors(file, ["cat"], WIDTH)["cat"]
    assert vector.base is None
    assert vector.flags.writeable


def test_longest_word_is_read(file: Path) -> None:
    vectors = numbered("x" * MAX_WORD_BYTES, "cat")
    file.write_bytes(content(vectors))
    assert_same(read_vectors(file, vectors.keys(), WIDTH), vectors)


@settings(max_examples=40)
@given(data=st.data())
def test_any_words_and_vectors_survive_a_round_trip(data: st.DataObject) -> None:
    word = st.text(max_size=12).filter(lambda text: " " not in text and text[:1] != "\n")
    words = data.draw(st.lists(word, min_size=1, max_size=8, unique=True))
    width = data.draw(st.integers(5, 9))
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = data.draw(arrays(np.float32, (len(words), width), elements=numbers))
    vectors = dict(zip(words, rows, strict=True))
    requested = data.draw(st.sets(st.sampled_from(words)))
    body = content(vectors, data.draw(st.sampled_from(NEWLINES)))
    body = gzip.compress(body) if data.draw(st.booleans()) else body
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(word2vec, "BLOCK_BYTES", data.draw(st.integers(1, 300)))
        file = Path(folder) / "v"
        file.write_bytes(body)
        read = read_vectors(file, requested, width)
    assert_same(read, {word: vectors[word] for word in words if word in requested})


@only_bounded
@pytest.mark.parametrize("gzipped", [False, True])
def test_memory_is_bounded_by_the_block_size(
    gzipped: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word2vec, "BLOCK_BYTES", 2**18)
    size = 2**20 * 24
    row = b"word " + np.ones(300, np.float32).tobytes()
    body = f"{size // len(row)} 300\n".encode() + row * (size // len(row))
    file.write_bytes(gzip.compress(body, 1) if gzipped else body)
    del body
    tracemalloc.start()
    try:
        assert list(read_vectors(file, ["word"], 300)) == ["word"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 10


# Text


def as_text(vectors: Vectors, end: str = "\n") -> bytes:
    rows = (f"{word} {' '.join(map(repr, v.tolist()))}{end}" for word, v in vectors.items())
    return f"{len(vectors)} {WIDTH}\n{''.join(rows)}".encode()


def saved_by_gensim(path: Path) -> KeyedVectors:
    saved = KeyedVectors(WIDTH)
    saved.add_vectors(["cat", "dog", "na\xefve"], np.linspace(-1, 1, 9).reshape(3, 3))
    saved.set_vecattr("cat", "count", 1)
    saved.save_word2vec_format(str(path), binary=False)
    return saved


@pytest.mark.parametrize("name", ["wiki.vec", "wiki.txt", "wiki.bin", "wiki.vec.gz", "wiki.xz"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])  # fastText ends lines with a space
@pytest.mark.parametrize("gzipped", [False, True])
def test_text_is_read_whatever_its_name(name: str, end: str, gzipped: bool, tmp_path: Path) -> None:
    vectors = numbered("cat", ",", "Dog", "\xe9", "emu", "\xa0x", "zebra")
    body = as_text(vectors, end)
    (tmp_path / name).write_bytes(gzip.compress(body) if gzipped else body)
    read = read_vectors(tmp_path / name, ["\xe9", "zebra", "unicorn"], WIDTH, frequent_rows=6)
    assert_same(read, {word: vectors[word] for word in ("cat", "\xe9", "emu", "zebra")})


def test_text_that_gensim_saved_is_read(file: Path) -> None:
    saved = saved_by_gensim(file)
    read = read_vectors(file, ["dog", "na\xefve"], WIDTH)
    assert list(read) == ["dog", "na\xefve"]
    for word, vector in read.items():
        np.testing.assert_array_equal(vector, saved[word].astype(np.float32))


def test_what_is_a_word_may_be_told(file: Path) -> None:
    vectors = numbered("cat", "\xe9", "Dog", "犬", "emu")
    for body in (content(vectors), as_text(vectors)):
        file.write_bytes(body)
        read = read_vectors(file, ["emu"], WIDTH, frequent_rows=4, is_word=str.islower)
        assert_same(read, {word: vectors[word] for word in ("cat", "\xe9", "emu")})


def test_duplicates_and_words_that_are_not_utf8_in_text(file: Path) -> None:
    file.write_bytes(b"5 3\ncat 1 2 3\ndog 4 5 6\n\xffz 7 8 9\ncat nan nan nan\nemu 1 1 1\n")
    read = read_vectors(file, ["cat", "z", "emu"], WIDTH, frequent_rows=5)
    assert {word: vector.tolist() for word, vector in read.items()} == {
        "cat": [1, 2, 3], "dog": [4, 5, 6], "emu": [1, 1, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"2 3\ncat 1 2 3\ndog 4\n", "row 2 of 2 has 1 numbers, not 3"),  # gensim: 4 4 4
        (b"2 3\ncat 1 2 3\ndog 4 5 6 7\n", "row 2 of 2 has 4 numbers, not 3"),
        (b"2 3\ncat 1 2 3\ndog 4  5 6\n", "row 2 of 2 has 4 numbers, not 3"),
        (b"2 3\ncat 1 2 3\ndog\t4\t5\t6\n", "row 2 of 2 has 0 numbers, not 3"),
        (b"2 3\ncat 1 2 3\nNew York 4 5 6\n", "row 2 of 2 has 4 numbers, not 3"),
        (b"2 3\ncat 1 2 3\ndog 4 x 6\n", "not word2vec's text format"),
        (b"2 3\ncat 1 2 3\ndog 4 nan 6\n", "'dog' is not finite"),
        (b"2 3\ncat 1 2 3\ndog 4 1e99 6\n", "'dog' is not finite"),
        (b"1 3\ncat 1 2 3\ndog 4 5 6\n", "more than the 1 rows"),
        (b"1 3\ncat 1 2 3\n\n", "more than the 1 rows"),
        (b"3 3\ncat 1 2 3\ndog 4 5 6\n", "truncated: ends in row 3 of 3"),
        (b"99999999999999 3\ncat 1 2 3\ndog 4 5 6\n", "truncated: ends in row 3"),
        (b"2 3\ncat 1 2 3\ndog 4 5 6", "truncated: ends in row 2 of 2"),
        (b"2 3\ncat 1 2 3\n" + b"x" * 9999 + b" 4 5 6\n", "too long a line in row 2"),
    ],
)
def test_damaged_text_is_refused(body: bytes, named: str, file: Path) -> None:
    for content in (body, gzip.compress(body)):
        file.write_bytes(content)
        refused(lambda: read_vectors(file, ["cat", "dog"], WIDTH), str(file), named)


def test_text_truncated_at_any_byte_is_refused(file: Path) -> None:
    body = as_text(numbered("cat", "dog", "é"))
    for length in range(len(body)):
        file.write_bytes(body[:length])
        refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file))


def test_gensim_reads_small_and_text_files_alone(
    reader: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    load = KeyedVectors.load_word2vec_format

    def spy(*args: Any, binary: bool, **kwargs: Any) -> KeyedVectors:
        called.append(binary)
        return load(*args, binary=binary, **kwargs)

    monkeypatch.setattr(KeyedVectors, "load_word2vec_format", spy)
    for body in (content(numbered("cat")), as_text(numbered("cat"))):
        file.write_bytes(body)
        assert_same(read_vectors(file, ["cat"], WIDTH), numbered("cat"))
    assert called == ([True, False] if reader == "gensim" else [False])


# Refusals


def test_another_width_is_refused(file: Path) -> None:
    write_vectors(file, ["cat"], width=100)
    refused(lambda: read_vectors(file, ["cat"], 300), str(file), "100", "300")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_returned_vector_that_is_not_finite_is_named(bad: float, file: Path) -> None:
    vectors = numbered("cat", "dog")
    vectors["dog"][2] = bad
    file.write_bytes(content(vectors))
    refused(lambda: read_vectors(file, ["cat", "dog"], WIDTH), str(file), "'dog'")
    refused(lambda: read_vectors(file, [], WIDTH, frequent_rows=2), str(file), "'dog'")
    assert set(read_vectors(file, ["cat"], WIDTH)) == {"cat"}


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("block_bytes", [7, 2**20])
def test_file_truncated_at_any_byte_is_refused(
    block_bytes: int, newline: bytes, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newline after the last vector may be missing: it holds no data."""
    monkeypatch.setattr(word2vec, "BLOCK_BYTES", block_bytes)
    vectors = numbered("cat", "dog", "é")
    body = content(vectors, newline)
    for length in range(len(body) - len(newline)):
        file.write_bytes(body[:length])
        refused(lambda: read_vectors(file, vectors.keys(), WIDTH), str(file))
    file.write_bytes(body[: len(body) - len(newline)])
    assert_same(read_vectors(file, vectors.keys(), WIDTH), vectors)


def test_truncated_file_is_named_with_its_row(file: Path) -> None:
    file.write_bytes(content(numbered("cat", "dog", "emu"))[: -WIDTH * 4])
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "truncated", "row 3 of 3")


def test_gzip_truncated_at_any_byte_is_refused(file: Path) -> None:
    vectors = numbered("cat", "dog", "é")
    body = gzip.compress(content(vectors, b"\n"))
    for length in range(len(body)):
        file.write_bytes(body[:length])
        refused(lambda: read_vectors(file, vectors.keys(), WIDTH), str(file))


def test_gzip_with_any_byte_of_its_data_or_checksum_changed_is_refused(file: Path) -> None:
    vectors = numbered("cat", "dog", "é")
    body = gzip.compress(content(vectors))
    for position in range(10, len(body)):  # the first ten bytes hold a time stamp
        file.write_bytes(body[:position] + bytes([body[position] ^ 0x55]) + body[position + 1 :])
        refused(lambda: read_vectors(file, vectors.keys(), WIDTH), str(file))


def test_gzip_with_trailing_data_is_refused(file: Path) -> None:
    file.write_bytes(gzip.compress(content(numbered("cat"))) + b"more")
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "gzip")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"hello\n",
        b"x y\n",
        b"1 3 7\n",
        b"1 3",
        b"1 3" + b" " * 100 + b"\ncat 123456789012",
        b"1\n3\n",
        b"-1 3\n",
        b"+1 3\n",
        b"1.0 3\n",
        "\u0661 \u0663\n".encode(),  # 1 and 3 in Arabic digits
        b"\x80\x04\x95\n",
        b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
        b"<!DOCTYPE html>\n<html>",
        b"<html>" + b"x" * 10_000,
        b"1" * 10_000 + b" 3\n",
        b"the 0.1 0.2 0.3\nof 0.4 0.5 0.6\n",
    ],
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_file_of_another_format_is_refused(body: bytes, gzipped: bool, file: Path) -> None:
    file.write_bytes(gzip.compress(body) if gzipped else body)
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "not a word2vec file")


def test_numpys_archive_is_refused(file: Path) -> None:
    with file.open("wb") as archive:
        np.savez(archive, vectors=np.ones((2, WIDTH)))
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "not a word2vec file")


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda path: saved_by_gensim(path).save(str(path)), "a pickle"),
        (lambda path: path.write_bytes(b"\xba\x16\x4f\x2f\x0c\0\0\0\n"), r"fastText's model"),
    ],
)
def test_files_of_the_two_tools_that_are_no_vectors_are_named(
    write: Callable[[Path], object], named: str, file: Path
) -> None:
    write(file)
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), named)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"0 3", "declares 0 words"),
        (b"1 0", "0 dimensions"),
        (b"1 99999999999999999999", "99999999999999999999 dimensions"),
        (b"99999999999999999999 3", "row 3 of 99999999999999999999"),
        (b"3 3", "row 3 of 3"),
        (b"1 3", "more than the 1 rows"),
    ],
)
def test_header_that_does_not_match_is_refused(header: bytes, named: str, file: Path) -> None:
    body = content(numbered("cat", "dog"))
    file.write_bytes(body.replace(b"2 3", header))
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), named)


@pytest.mark.parametrize("tail", [b"\n\n", b"x", b"\0", b" ", b"\nx"])
@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_bytes_after_the_last_row_are_refused(
    block_bytes: int, tail: bytes, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word2vec, "BLOCK_BYTES", block_bytes)
    body = content(numbered("cat", "dog"))
    file.write_bytes(body + tail)
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "more than the 2 rows")


@only_bounded
def test_endless_word_is_refused_before_the_file_is_in_memory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word2vec, "BLOCK_BYTES", 1000)
    file.write_bytes(content(numbered("x" * (MAX_WORD_BYTES + 1))))
    refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "row 1", "longer than 4096")
    file.write_bytes(b"1 3\n" + b"x" * 10_000_000)
    tracemalloc.start()
    try:
        refused(lambda: read_vectors(file, ["cat"], WIDTH), str(file), "row 1", "longer than 4096")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=40)
@given(
    body=st.binary(max_size=60),
    start=st.sampled_from([b"", b"1 3\n", b"2 3\n", b"\x1f\x8b", b"1 3\na 1 2 3"]),
)
def test_any_bytes_are_read_or_refused(body: bytes, start: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "v"
        file.write_bytes(start + body)
        try:
            read = read_vectors(file, ["a"], WIDTH, frequent_rows=2)
        except DataError:
            return
    assert all(np.isfinite(vector).all() for vector in read.values())


def test_missing_file_is_named(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vectors\.bin"):
        read_vectors(file, ["cat"], WIDTH)


@needs_real_data
def test_real_vectors() -> None:
    file = REAL / "word2vec" / "glove300-1576.bin"
    vectors = read_vectors(file, ["dog", "man", "qqqq"], 300)
    assert set(vectors) == {"dog", "man"}
    assert vectors["dog"].shape == (300,)
    known = KeyedVectors.load_word2vec_format(str(file), binary=True)
    every = read_vectors(file, known.index_to_key, 300)
    assert_same(every, {word: known[word] for word in known.index_to_key})
