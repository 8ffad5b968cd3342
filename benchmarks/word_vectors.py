"""Reads word vectors of GoogleNews' size: ``python -m benchmarks.word_vectors [--gz]``.

Makes a file of 3,000,000 words with 300 numbers each (3.6 GB), reads it for a vocabulary of 30,000
words and the first 100,000 rows with trimodal's reader and whole with gensim's, and prints seconds
and peak memory. Each reading is a process of its own and begins without the file in memory. Needs
4 GB of disk, 6 GB with ``--gz`` (which takes some minutes to make), and 6 GB of memory for gensim.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measuring import forget, in_child, peak_bytes, say
from trimodal.core.progress import bar
from trimodal.sources.word2vec import read_vectors

DIMENSIONS = 300
VOCABULARY = 30_000
FREQUENT_ROWS = 100_000
ROWS_AT_ONCE = 20_000

Vectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one reader needed: seconds by the wall and of the processor, its process's peak resident
    bytes; how many words it kept, and a digest of them and their vectors.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    words: int
    digest: str


def main() -> None:
    """Makes the files, reads them in each way, prints the table, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to make the files (default: temporary)")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--gz", action="store_true", help="read the file gzipped, too")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="word-vectors-", dir=given.folder))
    try:
        plain = folder / "vectors.bin"
        wanted = in_child(make_file, plain, given.rows)
        ways = [("trimodal", read_streaming, plain)]
        if given.gz:
            ways.append(("trimodal", read_streaming, in_child(zip_file, plain)))
        ways.append(("gensim", read_whole, plain))
        say("| reader | file | size | wall s | CPU s | peak memory | words kept |")
        say("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        digests = set()
        for reader, read, path in ways:
            forget(path)
            found = in_child(read, path, wanted)
            digests.add(found.digest)
            say(
                f"| {reader} | `{path.name}` | {path.stat().st_size / 1e9:.2f} GB | "
                f"{found.wall_s:.1f} | {found.cpu_s:.1f} | {found.peak_bytes / 1e6:,.0f} MB | "
                f"{found.words:,} |"
            )
        say("\nThe readers agree." if len(digests) == 1 else "\nTHE READERS DO NOT AGREE.")
    finally:
        shutil.rmtree(folder)


def make_file(path: Path, count: int) -> set[str]:
    """Writes ``count`` random vectors whose numbers have GoogleNews' precision, 16 bits.

    Returns a vocabulary as captions have: most of it frequent, a sixth not in the file.
    """
    rng = np.random.default_rng(0)
    chosen = {*rng.integers(0, count // 10, VOCABULARY * 4 // 6).tolist()}
    chosen |= {*rng.integers(0, count, VOCABULARY // 6).tolist()}
    wanted = {f"absent {number}" for number in range(VOCABULARY - len(chosen))}
    starts = range(0, count, ROWS_AT_ONCE)
    with path.open("wb") as file:
        file.write(f"{count} {DIMENSIONS}\n".encode())
        for start in bar(starts, task="making vectors", unit="blocks", total=len(starts)):
            rows = range(start, min(start + ROWS_AT_ONCE, count))
            vectors = rng.standard_normal((len(rows), DIMENSIONS), np.float32)
            vectors.view(np.uint32)[...] &= 0xFFFF0000
            for row, word, vector in zip(rows, words_of(rows, rng), vectors, strict=True):
                file.write(word + b" " + vector.tobytes())
                if row in chosen:
                    wanted.add(word.decode())
        os.fsync(file.fileno())
    return wanted


def words_of(rows: range, rng: np.random.Generator) -> Iterator[bytes]:
    """Distinct words of about 14 bytes, the frequent ones shorter; a third has a-z alone."""
    letters = rng.integers(ord("a"), ord("z") + 1, (len(rows), 40), np.uint8)
    lengths = rng.poisson(9.3 * np.log(np.array(rows) + 2) / np.log(3e6)).clip(1, 35)
    kinds = rng.random(len(rows))
    for row, line, length, kind in zip(rows, letters, lengths, kinds, strict=True):
        own = bytes(ord("a") + row // 26**place % 26 for place in range(5))
        head = line[:length].tobytes()
        if kind < 1 / 3:
            yield head + own
        else:
            yield head.upper() + own if kind < 2 / 3 else head + b"_" + own


def zip_file(plain: Path) -> Path:
    """Writes a gzipped copy beside it."""
    zipped = plain.with_name(f"{plain.name}.gz")
    with plain.open("rb") as source, gzip.open(zipped, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 2**24)
    with zipped.open("rb") as file:
        os.fsync(file.fileno())
    return zipped


def read_streaming(path: Path, wanted: set[str]) -> Reading:
    """Reads with trimodal's reader."""
    return measured(lambda: read_vectors(path, wanted, DIMENSIONS, frequent_rows=FREQUENT_ROWS))


def read_whole(path: Path, wanted: set[str]) -> Reading:
    """Reads with gensim's reader, which holds the whole file, and takes the same words out."""
    from gensim.models import KeyedVectors  # not in the other readers' processes

    def read() -> Vectors:
        known = KeyedVectors.load_word2vec_format(str(path), binary=True)
        frequent = known.index_to_key[:FREQUENT_ROWS]
        plain = {w for w in frequent if w.isascii() and w.isalpha() and w.islower()}
        return {word: known[word] for word in wanted | plain if word in known}

    return measured(read)


def measured(read: Callable[[], Vectors]) -> Reading:
    """Runs a reader in this process, whose peak memory it takes for the reader's."""
    wall, cpu = time.perf_counter(), time.process_time()
    vectors = read()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    digest = hashlib.sha256()
    for word in sorted(vectors):
        digest.update(word.encode() + vectors[word].tobytes())
    return Reading(
        wall_s=wall,
        cpu_s=cpu,
        peak_bytes=peak_bytes(),
        words=len(vectors),
        digest=digest.hexdigest(),
    )


if __name__ == "__main__":
    main()
