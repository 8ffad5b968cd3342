"""Search among many moments: ``python -m benchmarks.vector_search`` (needs `make repro` before).

The moments are made from the trained demo model's points of test videos: each is a random mean of
four of them (weights drawn from a Dirichlet distribution), so that they fill the part of the space
that the model uses; the questions are the model's points of the test's sentences, at the audio
weight 0.2. Exact search by NumPy, the store's
approximate index (LanceDB) and faiss's HNSW of the same width answer all questions in turn, in one
process; building happens in a process of its own each. 1,000,000 moments need 12 GB of memory,
10 GB of disk and about half an hour.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import ROOT, in_child, machine, peak_bytes, ratio, say, side_by_side
from trimodal.models.networks import EMBEDDING_DIM
from trimodal.search.store import (
    FRAME_BITS,
    About,
    MomentStore,
    StoredFile,
    build_index,
    nearest,
    open_for_questions,
)

AUDIO_WEIGHT = 0.2
NEAREST = 10
VIDEOS, EVENNESS = 4, 0.5  # that a moment is the mean of; of the Dirichlet distribution
CHUNK = 50_000
HNSW_LINKS, HNSW_WIDTH, HNSW_SEARCH = 20, 150, 80  # as the store's index
ROUNDS = 5
Points = npt.NDArray[np.float32]
Search = Callable[[Points], npt.NDArray[np.int64]]


def main() -> None:
    """Makes the points, builds both indexes, asks in turn, prints the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with TemporaryDirectory(prefix="vectors-") as name:
        folder = Path(name)
        questions = make_points(folder, rows)
        say(f"{machine()}; {rows:,} moments of {2 * EMBEDDING_DIM} numbers\n")
        say("| index | built in | of it writing | on disk | peak memory above the points |")
        say("| --- | ---: | ---: | ---: | ---: |")
        for kind, build in (("LanceDB", build_lance), ("faiss", build_faiss)):
            written, built, peak = in_child(build, folder)
            size = size_of(folder / kind)
            say(
                f"| {kind} | {built:.0f} s | {written:.0f} s | {size / 1e9:.2f} GB "
                f"| {peak / 1e9:.2f} GB |"
            )
        first, exact = (in_child(first_answer, folder, questions[0], by) for by in (False, True))
        say(
            "\nLanceDB's first answer in a fresh process, opening it included: "
            f"{first:.2f} s by the index, {exact:.2f} s without it\n"
        )
        ask(folder, questions)


def make_points(folder: Path, rows: int) -> Points:
    """Writes ``points.npy``, (rows, 512), and returns the questions, (questions, 256)."""
    table = pq.read_table(ROOT / "data/evaluation/embeddings.parquet")
    image, text = (matrix(table[name]) for name in ("image", "text"))
    silent = np.array(table["audio"].is_null())
    audio = image.copy()
    audio[~silent] = matrix(table["audio"].drop_null())
    points = np.lib.format.open_memmap(
        folder / "points.npy", "w+", np.float32, (rows, 2 * EMBEDDING_DIM)
    )
    rng = np.random.default_rng(1)
    for start in range(0, rows, CHUNK):
        part = points[start : start + CHUNK]
        chosen = rng.integers(0, len(image), (len(part), VIDEOS))
        shares = rng.dirichlet([EVENNESS] * VIDEOS, len(part)).astype(np.float32)
        for first, of in ((0, unit(image)), (EMBEDDING_DIM, unit(audio))):
            mean = np.einsum("mv,mvd->md", shares, of[chosen])
            part[:, first : first + EMBEDDING_DIM] = unit(mean)
    points.flush()
    return text


def matrix(column: pa.ChunkedArray) -> Points:
    """(rows, 256) of a column of points."""
    flat = column.combine_chunks().flatten().to_numpy()
    return np.array(flat, np.float32).reshape(-1, EMBEDDING_DIM)


def unit(rows: Points) -> Points:
    """Rows of length 1."""
    lengths: Points = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def build_lance(folder: Path) -> tuple[float, float, int]:
    """Seconds of writing, of all, and peak bytes above what there was before."""
    points = np.load(folder / "points.npy", mmap_mode="r", allow_pickle=False)
    before, began = peak_bytes(), time.perf_counter()
    store = MomentStore.create(str(folder / "LanceDB"), About(folder="", model=""), EMBEDDING_DIM)
    for start in range(0, len(points), CHUNK):
        part = np.array(points[start : start + CHUNK])
        number = start // CHUNK
        file = StoredFile(
            file=number, path=f"{number}", bytes=0, modified_ns=0, moments=len(part),
            has_audio=True, aspect=1.0, problem="",
        )  # fmt: skip
        moments = [(number, frame, b"", b"") for frame in range(1, len(part) + 1)]
        store.add([file], moments, part)
    written = time.perf_counter() - began
    build_index(store.table)
    return written, time.perf_counter() - began, peak_bytes() - before


def build_faiss(folder: Path) -> tuple[float, float, int]:
    """As :func:`build_lance`; its index holds the points, too, so they are not written."""
    points = np.load(folder / "points.npy", mmap_mode="r", allow_pickle=False)
    before, began = peak_bytes(), time.perf_counter()
    kind = f"HNSW{HNSW_LINKS}_SQ8"
    index = faiss.index_factory(points.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    faiss.ParameterSpace().set_index_parameter(index, "efConstruction", HNSW_WIDTH)
    index.train(np.array(points[:CHUNK]))
    for start in range(0, len(points), CHUNK):
        index.add(np.array(points[start : start + CHUNK]))
    (folder / "faiss").mkdir()
    faiss.write_index(index, str(folder / "faiss/index"))
    return 0.0, time.perf_counter() - began, peak_bytes() - before


def first_answer(folder: Path, question: Points, exact: bool) -> float:
    """Seconds from opening the store to the first results."""
    began = time.perf_counter()
    MomentStore.open(str(folder / "LanceDB")).search(question, AUDIO_WEIGHT, NEAREST, exact=exact)
    return time.perf_counter() - began


def ask(folder: Path, questions: Points) -> None:
    """Each way answers all questions, one after the other; the ways take turns."""
    asked = np.concatenate([(1 - AUDIO_WEIGHT) * questions, AUDIO_WEIGHT * questions], axis=1)
    points = np.load(folder / "points.npy", allow_pickle=False)
    table = open_for_questions(str(folder / "LanceDB"))
    index = faiss.read_index(str(folder / "faiss/index"))
    faiss.ParameterSpace().set_index_parameter(index, "efSearch", HNSW_SEARCH)

    def exact(question: Points) -> npt.NDArray[np.int64]:
        scores = points @ question
        best = np.argpartition(-scores, NEAREST)[:NEAREST]
        return best[np.argsort(-scores[best])]

    def by_lance(question: Points) -> npt.NDArray[np.int64]:
        moments = np.array(nearest(table, question, NEAREST)[0])
        return (moments >> FRAME_BITS) * CHUNK + (moments & (1 << FRAME_BITS) - 1) - 1

    def by_faiss(question: Points) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = index.search(question[None], NEAREST)[1][0]
        return found

    ways: dict[str, Search] = {"NumPy, exact": exact, "LanceDB": by_lance, "faiss": by_faiss}
    found = {
        name: [set(way(question).tolist()) for question in asked] for name, way in ways.items()
    }
    timings = side_by_side(
        {name: partial(answer_all, way, asked) for name, way in ways.items()}, ROUNDS
    )
    say("| search | median | times faster than exact | recall@10 |")
    say("| --- | ---: | ---: | ---: |")
    truth = found["NumPy, exact"]
    for name in ways:
        times = ratio(timings["NumPy, exact"].wall_s, timings[name].wall_s)
        recall = np.mean([len(a & b) / NEAREST for a, b in zip(truth, found[name], strict=True)])
        each = timings[name].wall / len(asked)
        say(f"| {name} | {each * 1e3:.2f} ms | {times:.1f} | {recall:.3f} |")


def answer_all(way: Search, asked: Points) -> None:
    """One question after the other."""
    for question in asked:
        way(question)


if __name__ == "__main__":
    main()
