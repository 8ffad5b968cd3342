"""Reading word vectors of GoogleNews' size: ``python -m benchmarks.word_vectors [--gz]``.

Writes a file of 3,000,000 300-dimensional vectors (3.6 GB), reads a vocabulary of 30,000 words and
the first 100,000 rows from it with trimodal's reader, and the whole file with gensim's, and prints
seconds and peak memory. Each read is in a fresh process with a cold page cache. Needs 4 GB of disk,
6 GB with ``--gz`` (which takes some minutes to compress), and 6 GB of memory for gensim.
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

from benchmarks.measuring import drop_from_cache, in_child, peak_bytes, say
from trimodal.core.arguments import positive, writable_folder
from trimodal.core.progress import bar
from trimodal.sources.word2vec import read_vectors

DIMENSIONS = 300
VOCABULARY = 30_000
FREQUENT_ROWS = 100_000
ROWS_AT_ONCE = 20_000

Vectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The cost of one read: wall and CPU seconds and the process's peak resident bytes; the number
    of words kept, and a digest of them and their vectors.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    words: int
    digest: str


def main() -> None:
    """Writes the files, reads them with each reader, prints the table, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--folder", type=writable_folder, help="where to write the files (default: temporary)"
    )
    parser.add_argument("--rows", type=positive, default=3_000_000)
    parser.add_argument("--gz", action="store_true", help="also read a gzipped copy")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="word-vectors-", dir=args.folder))
    try:
        plain = folder / "vectors.bin"
        wanted = in_child(make_file, plain, args.rows)
        readers = [("trimodal", read_streaming, plain)]
        if args.gz:
            readers.append(("trimodal", read_streaming, in_child(zip_file, plain)))
        readers.append(("gensim", read_whole, plain))
        say("| reader | file | size | wall s | CPU s | peak memory | words kept |")
        say("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        digests = set()
        for reader, read, path in readers:
            drop_from_cache(path)
            reading = in_child(read, path, wanted)
            digests.add(reading.digest)
            say(
                f"| {reader} | `{path.name}` | {path.stat().st_size / 1e9:.2f} GB | "
                f"{reading.wall_s:.1f} | {reading.cpu_s:.1f} | "
                f"{reading.peak_bytes / 1e6:,.0f} MB | {reading.words:,} |"
            )
        say("\nThe readers agree." if len(digests) == 1 else "\nTHE READERS DISAGREE.")
    finally:
        shutil.rmtree(folder)


def make_file(path: Path, count: int) -> set[str]:
    """Writes ``count`` random vectors of GoogleNews' precision, 16 bits.

    Returns a vocabulary like that of captions: mostly frequent words, a sixth not in the file.
    """
    rng = np.random.default_rng(0)
    chosen = {*rng.integers(0, count // 10, VOCABULARY * 4 // 6).tolist()}
    chosen |= {*rng.integers(0, count, VOCABULARY // 6).tolist()}
    wanted = {f"absent {number}" for number in range(VOCABULARY - len(chosen))}
    starts = range(0, count, ROWS_AT_ONCE)
    with path.open("wb") as file:
        file.write(f"{count} {DIMENSIONS}\n".encode())
        for start in bar(starts, task="writing vectors", unit="blocks", total=len(starts)):
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
    """Distinct words of about 14 bytes, frequent ones shorter; a third has only a-z."""
    letters = rng.integers(ord("a"), ord("z") + 1, (len(rows), 40), np.uint8)
    lengths = rng.poisson(9.3 * np.log(np.array(rows) + 2) / np.log(3e6)).clip(1, 35)
    kinds = rng.random(len(rows))
    for row, line, length, kind in zip(rows, letters, lengths, kinds, strict=True):
        suffix = bytes(ord("a") + row // 26**digit % 26 for digit in range(5))
        head = line[:length].tobytes()
        if kind < 1 / 3:
            yield head + suffix
        else:
            yield head.upper() + suffix if kind < 2 / 3 else head + b"_" + suffix


def zip_file(plain: Path) -> Path:
    """Writes a gzipped copy beside the file and returns its path."""
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
    """Reads the whole file with gensim's reader and selects the same words."""
    from gensim.models import KeyedVectors  # not imported by the other reader's process

    def read() -> Vectors:
        known = KeyedVectors.load_word2vec_format(str(path), binary=True)
        frequent = known.index_to_key[:FREQUENT_ROWS]
        plain = {w for w in frequent if w.isascii() and w.isalpha() and w.islower()}
        return {word: known[word] for word in wanted | plain if word in known}

    return measured(read)


def measured(read: Callable[[], Vectors]) -> Reading:
    """Runs a reader in this process and takes the process's peak memory for the reader's."""
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
