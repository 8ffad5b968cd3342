r"""Word vectors in word2vec's formats, as the original tool, gensim and fastText write them.

Both begin with a line "count width". Binary (GoogleNews-vectors-negative300.bin): for each word
its UTF-8 bytes, a space and ``width`` little-endian float32; after each vector, the original tool
writes a "\n", gensim nothing. Text (fastText's .vec): a line a word, with spaces between numbers.

gensim reads text files of any size and binary ones up to 128 MiB of numbers (GENSIM_BYTES). It
holds the whole file in memory: 4.2 GB for GoogleNews' 3,000,000 words, where the reader here, which
keeps only the words asked for, takes 0.23 (docs/benchmarks.md). What gensim reads has been checked
before: it accepts rows that are too short, and does not miss those that its header leaves out.
"""

import gzip
import io
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.core.extras import imports_of
from trimodal.core.files import temporary_folder
from trimodal.core.progress import bar
from trimodal.core.records import DataError

GENSIM_BYTES = 128 * 2**20  # of a binary file's numbers
BLOCK_BYTES = 16 * 2**20  # read at a time
MAX_WORD_BYTES = 4096  # so that another file is not read into memory as one word
_MAX_NUMBER_BYTES = 64  # ... or as one number, as text
_HEADER_BYTES = 64
_GZIP_MAGIC = b"\x1f\x8b"
_NUMBERS_AS_TEXT = b"0123456789+-.eEnaifNAIF \r\n"
_PLAIN_SUFFIXES = ("", ".bin", ".txt", ".vec")
_OTHER_FILES = {
    b"\x80": "a pickle, as gensim's `save` writes (.kv, .model), which can run code; write it with "
    "`save_word2vec_format`",
    b"\xba\x16\x4f\x2f": "fastText's model; take the .vec file",
}

Vector = npt.NDArray[np.float32]
IsWord = Callable[[str], bool]
Row = tuple[bytes, bytes | memoryview]


def _is_plain(word: str) -> bool:
    return bool(re.fullmatch("[a-z]+", word))


def read_vectors(
    path: Path,
    words: Collection[str],
    dimensions: int,
    *,
    frequent_rows: int = 0,
    is_word: IsWord = _is_plain,
) -> dict[str, Vector]:
    """The vectors, each (dimensions,), of those of ``words`` that the file contains, in file order;
    and of all that are words (``is_word``; letters a-z) among its first ``frequent_rows`` rows
    (such files are sorted by frequency).

    The file may be gzipped, whatever its name: its first two bytes decide. Of duplicate words the
    first vector is used; words that are not UTF-8 are skipped. Raises DataError for a file that is
    truncated, too long, or has another format or width, and for a returned vector that is not
    finite.
    """
    wanted = set(words)
    try:
        with _opened(path) as file:
            count = _row_count(file, path, dimensions)
            is_text = _is_text(file, dimensions)
            rows = (_text_rows if is_text else _binary_rows)(file, path, count, dimensions)
            progress = bar(rows, task="reading word vectors", unit="words", total=count)
            if not is_text and 4 * count * dimensions > GENSIM_BYTES:
                return _read_bounded(progress, path, wanted, frequent_rows, is_word)
            for row, (word, _) in enumerate(progress):
                if row < frequent_rows and is_word(name := _decoded(word)):
                    wanted.add(name)
        return _read_by_gensim(path, wanted, is_text=is_text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a complete gzip file: {error}") from error


def _read_bounded(
    rows: Iterable[Row], path: Path, words: set[str], frequent_rows: int, is_word: IsWord
) -> dict[str, Vector]:
    encoded_words = {word.encode() for word in words}
    vectors: dict[str, Vector] = {}
    for row, (word, vector) in enumerate(rows):
        if word in encoded_words or (row < frequent_rows and is_word(_decoded(word))):
            name = word.decode()
            if name not in vectors:
                vectors[name] = np.frombuffer(vector, "<f4").astype(np.float32)
                _check_finite(path, name, vectors[name])
    return vectors


def _read_by_gensim(path: Path, words: set[str], *, is_text: bool) -> dict[str, Vector]:
    with imports_of("pipeline"):
        from gensim.models import KeyedVectors  # takes a second, which other stages do not need

    with _unzipped(path) as plain, np.errstate(over="ignore"):  # what is not finite is refused
        try:
            known = KeyedVectors.load_word2vec_format(
                str(plain.absolute()), binary=not is_text, unicode_errors="surrogateescape"
            )
        except ValueError as error:
            raise DataError(f"{path}: not word2vec's text format: {error}") from error
    vectors = {name: np.array(known[name]) for name in known.index_to_key if name in words}
    for name, vector in vectors.items():
        _check_finite(path, name, vector)
    return vectors


def _check_finite(path: Path, name: str, vector: Vector) -> None:
    if not np.isfinite(vector).all():
        raise DataError(f"{path}: the vector of {name!r} is not finite")


def _decoded(word: bytes) -> str:
    return word.decode(errors="surrogateescape")


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if _is_gzipped(path) else path.open("rb")


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """A path to the plain file for gensim, which judges by the name's end: the file's own if that
    is in no doubt, else that of an unzipped copy.
    """
    if path.suffix in _PLAIN_SUFFIXES and not _is_gzipped(path):
        yield path
        return
    with temporary_folder() as folder:
        with _opened(path) as source, (folder / "vectors").open("wb") as copy:
            shutil.copyfileobj(source, copy, BLOCK_BYTES)
        yield folder / "vectors"


def _row_count(file: io.BufferedIOBase, path: Path, dimensions: int) -> int:
    line = file.readline(_HEADER_BYTES)
    numbers = line.split()
    if not line.endswith(b"\n") or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
        known = (what for start, what in _OTHER_FILES.items() if line.startswith(start))
        raise DataError(f"{path}: not a word2vec file: {next(known, f'starts with {line!r}')}")
    count, width = map(int, numbers)
    if width != dimensions:
        raise DataError(f"{path}: vectors have {width} dimensions, not {dimensions}")
    if count == 0:
        raise DataError(f"{path}: its header declares 0 words")
    return count


def _is_text(file: io.BufferedIOBase, width: int) -> bool:
    """Whether the first row is text: mostly as many numbers as it should have, nothing else."""
    start = file.tell()
    numbers = file.readline(_longest_line(width)).partition(b" ")[2]
    file.seek(start)
    return len(numbers.split()) > width / 2 and not numbers.translate(None, _NUMBERS_AS_TEXT)


def _longest_line(width: int) -> int:
    return MAX_WORD_BYTES + _MAX_NUMBER_BYTES * width


def _text_rows(file: io.BufferedIOBase, path: Path, count: int, width: int) -> Iterator[Row]:
    """Each row's word, and its line."""
    for row in range(count):
        line = file.readline(_longest_line(width))
        if not line.endswith(b"\n"):
            ends = len(line) < _longest_line(width)
            problem = "truncated: ends in" if ends else "has too long a line in"
            raise DataError(f"{path}: {problem} row {row + 1} of {count}")
        word, *numbers = line.rstrip().split(b" ")
        if len(numbers) != width:
            raise DataError(
                f"{path}: row {row + 1} of {count} has {len(numbers)} numbers, not {width}"
            )
        yield word, line
    _check_end(file.read(16), path, count)


def _binary_rows(file: io.BufferedIOBase, path: Path, count: int, width: int) -> Iterator[Row]:
    """Each row's word, and the bytes of its vector."""
    size = 4 * width
    block, start = b"", 0
    for row in range(count):
        while True:
            space = block.find(b" ", start, start + MAX_WORD_BYTES + 1)
            end = space + 1 + size
            if space >= 0 and end <= len(block):
                break
            if space < 0 and len(block) - start > MAX_WORD_BYTES:
                raise DataError(
                    f"{path}: not a complete word2vec binary file: the word of row {row + 1} of "
                    f"{count} is longer than {MAX_WORD_BYTES} bytes"
                )
            more = file.read(BLOCK_BYTES)
            if not more:
                raise DataError(f"{path}: truncated: ends in row {row + 1} of {count}")
            block, start = block[start:] + more, 0
        yield block[start:space].lstrip(b"\n"), memoryview(block)[space + 1 : end]
        start = end
    rest = block[start:] + file.read(2)
    _check_end(b"" if rest == b"\n" else rest, path, count)


def _check_end(rest: bytes, path: Path, count: int) -> None:
    if rest:
        raise DataError(
            f"{path}: has more than the {count} rows that its header declares: {rest[:16]!r}"
        )
