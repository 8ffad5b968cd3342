r"""Word vectors in word2vec's binary format (such as GoogleNews-vectors-negative300.bin).

A line "count width", then for each word its UTF-8 bytes, a space and ``width`` little-endian
float32. After each vector, the original tool (word2vec.c) writes a "\n", gensim nothing.
"""

import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimodal.core.progress import bar
from trimodal.core.records import DataError

BLOCK_BYTES = 16 * 2**20  # read at a time
MAX_WORD_BYTES = 4096  # so that another file is not read into memory as one word
_HEADER_BYTES = 64
_GZIP_MAGIC = b"\x1f\x8b"
_NUMBERS_AS_TEXT = b"0123456789+-.eE \n"
_is_plain = re.compile(rb"[a-z]+").fullmatch


def read_vectors(
    path: Path, words: Collection[str], dimensions: int, *, frequent_rows: int = 0
) -> dict[str, npt.NDArray[np.float32]]:
    """The vectors, each (dimensions,), of those of ``words`` that the file contains, in file order;
    and of all words of the letters a-z among its first ``frequent_rows`` rows (such files are
    sorted by frequency).

    The file may be gzipped, whatever its name: its first two bytes decide. It is read in blocks;
    only returned vectors stay in memory. Of duplicate words the first vector is used; words that
    are not UTF-8 are skipped. Raises DataError for a file that is truncated, too long, or has
    another format or width, and for a returned vector that is not finite.
    """
    encoded_words = {word.encode() for word in words}
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    try:
        with _opened(path) as file:
            count = _row_count(file, path, dimensions)
            rows = _rows(file, path, count, dimensions)
            progress = bar(rows, task="reading word vectors", unit="words", total=count)
            for row, (word, block, offset) in enumerate(progress):
                if word in encoded_words or (row < frequent_rows and _is_plain(word)):
                    name = word.decode()
                    if name not in vectors:
                        vectors[name] = _vector(block, offset, dimensions)
                        if not np.isfinite(vectors[name]).all():
                            raise DataError(f"{path}: the vector of {name!r} is not finite")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a complete gzip file: {error}") from error
    return vectors


def _opened(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        gzipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return gzip.open(path, "rb") if gzipped else path.open("rb")


def _row_count(file: io.BufferedIOBase, path: Path, dimensions: int) -> int:
    line = file.readline(_HEADER_BYTES)
    numbers = line.split()
    if not line.endswith(b"\n") or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
        raise DataError(f"{path}: not a word2vec binary file: starts with {line!r}")
    count, width = map(int, numbers)
    if width != dimensions:
        raise DataError(f"{path}: vectors have {width} dimensions, not {dimensions}")
    if count == 0:
        raise DataError(f"{path}: its header declares 0 words")
    return count


def _rows(
    file: io.BufferedIOBase, path: Path, count: int, width: int
) -> Iterator[tuple[bytes, bytes, int]]:
    """Each row's word, the block that holds its vector, and the vector's offset in that block."""
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
        if row == 0 and not block[space:end].translate(None, _NUMBERS_AS_TEXT):
            raise DataError(f"{path}: word2vec's text format; the binary format is required")
        yield block[start:space].lstrip(b"\n"), block, space + 1
        start = end
    if (rest := block[start:] + file.read(2)) not in (b"", b"\n"):
        raise DataError(
            f"{path}: has more than the {count} rows that its header declares: {rest[:16]!r}"
        )


def _vector(block: bytes, offset: int, width: int) -> npt.NDArray[np.float32]:
    return np.frombuffer(block, "<f4", width, offset).astype(np.float32)
