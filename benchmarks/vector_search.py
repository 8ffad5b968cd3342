"""Search among many moments: ``python -m benchmarks.vector_search`` (run `make repro` before).

The moments are synthetic: each is a random mean of the trained demo model's embeddings of four test
videos (weights drawn from a Dirichlet distribution), so that they fill the part of the space that
the model uses. The queries are the embeddings of the test sentences, at audio weight 0.2. Exact
search by NumPy, LanceDB's approximate index, which a store at a URL has, the store's graph and
faiss's HNSW index alone answer all queries in turn, in one process; each index is built in a fresh
process. 1,000,000 moments need 12 GB of memory, 14 GB of disk and about half an hour, most of it
for LanceDB's index; with ``--indices graph faiss`` a quarter of an hour and 4 GB less of each.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measuring import (
    ROOT,
    TIMEOUT_SECONDS,
    describe_machine,
    drop_from_cache,
    in_child,
    peak_bytes,
    ratio,
    say,
    side_by_side,
)
from trimodal.core.arguments import Distinct, positive
from trimodal.models.checkpoint import read_checkpoint
from trimodal.search.graph import Graph, graph_name, update_graph
from trimodal.search.nearest import build_index, nearest, open_for_queries
from trimodal.search.store import MomentStore
from trimodal.search.tables import FRAME_BITS, About, IndexedVideo

EMBEDDING_DIM = 256
AUDIO_WEIGHT = 0.2
NEAREST = 10
VIDEOS = 4  # averaged for a moment
CONCENTRATION = 0.5  # of the Dirichlet distribution
CHUNK = 50_000
MOMENTS_PER_VIDEO = 60
MODEL = ROOT / "models/trimodal"
HNSW_LINKS, HNSW_WIDTH, HNSW_SEARCH = 20, 150, 80  # as in LanceDB's index
ROUNDS = 5
Embeddings = npt.NDArray[np.float32]
Search = Callable[[Embeddings], npt.NDArray[np.int64]]


def main() -> None:
    """Makes the embeddings, builds both indexes, times the queries, prints the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=positive, default=1_000_000)
    parser.add_argument(
        "--indices", nargs="+", action=Distinct, choices=list(BUILDS), default=list(BUILDS)
    )
    args = parser.parse_args()
    rows = args.rows
    with TemporaryDirectory(prefix="vectors-") as name:
        folder = Path(name)
        queries = make_embeddings(folder, rows)
        say(f"{describe_machine()}; {rows:,} moments of {2 * EMBEDDING_DIM} dimensions\n")
        say("| index | build time | of it writing | on disk | extra peak memory |")
        say("| --- | ---: | ---: | ---: | ---: |")
        for kind in args.indices:
            written, built, peak = in_child(BUILDS[kind], folder)
            size = size_of(folder / kind)
            say(
                f"| {kind} | {built:.0f} s | {written:.0f} s | {size / 1e9:.2f} GB "
                f"| {peak / 1e9:.2f} GB |"
            )
        say("\n| first answer, from opening the store | approximate | ... nothing cached | exact |")
        say("| --- | ---: | ---: | ---: |")
        for kind in (kind for kind in args.indices if kind != "faiss"):
            times = [
                in_child(first_query, folder / kind, queries[0], exact=exact, cached=cached)
                for exact, cached in ((False, True), (False, False), (True, True))
            ]
            say(f"| {kind} | {' | '.join(f'{seconds:.2f} s' for seconds in times)} |")
            say(f"| ... the whole command | {command_seconds(folder / kind):.2f} s | | |")
        say("")
        compare_search(folder, queries, args.indices)


def make_embeddings(folder: Path, rows: int) -> Embeddings:
    """Writes ``embeddings.npy``, (rows, 512), and returns the queries, (queries, 256)."""
    table = pq.read_table(ROOT / "data/evaluation/msrvtt/embeddings.parquet")
    image, text = (matrix(table[name]) for name in ("image", "text"))
    silent = np.array(table["audio"].is_null())
    audio = image.copy()
    audio[~silent] = matrix(table["audio"].drop_null())
    embeddings = np.lib.format.open_memmap(
        folder / "embeddings.npy", "w+", np.float32, (rows, 2 * EMBEDDING_DIM)
    )
    rng = np.random.default_rng(1)
    for start in range(0, rows, CHUNK):
        part = embeddings[start : start + CHUNK]
        chosen = rng.integers(0, len(image), (len(part), VIDEOS))
        weights = rng.dirichlet([CONCENTRATION] * VIDEOS, len(part)).astype(np.float32)
        for first, videos in ((0, unit(image)), (EMBEDDING_DIM, unit(audio))):
            mean = np.einsum("mv,mvd->md", weights, videos[chosen])
            part[:, first : first + EMBEDDING_DIM] = unit(mean)
    embeddings.flush()
    return text


def matrix(column: pa.ChunkedArray) -> Embeddings:
    """A column of embeddings as an array (rows, 256)."""
    flat = column.combine_chunks().flatten().to_numpy()
    return np.array(flat, np.float32).reshape(-1, EMBEDDING_DIM)


def unit(rows: Embeddings) -> Embeddings:
    """The rows scaled to length 1."""
    norms: Embeddings = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / norms


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def build_lance(folder: Path) -> tuple[float, float, int]:
    """Seconds of writing, seconds in all, and peak bytes above those before."""
    before, began = peak_bytes(), time.perf_counter()
    store = write_store(folder, "LanceDB")
    written = time.perf_counter() - began
    build_index(store.table)
    built = time.perf_counter() - began
    store.seal()
    return written, built, peak_bytes() - before


def build_graph(folder: Path) -> tuple[float, float, int]:
    """As :func:`build_lance`, with the graph beside the table."""
    before, began = peak_bytes(), time.perf_counter()
    store = write_store(folder, "graph")
    written = time.perf_counter() - began
    name = graph_name(store.identity, int(store.table.version))
    update_graph(folder / "graph", name, store.table)
    built = time.perf_counter() - began
    store.seal()
    return written, built, peak_bytes() - before


def write_store(folder: Path, name: str) -> MomentStore:
    """A store of all moments, as of the demo's model; neither compacted nor indexed."""
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    about = About(model=read_checkpoint(MODEL).weights)
    store = MomentStore.create(str(folder / name), about, EMBEDDING_DIM)
    chunk = CHUNK // MOMENTS_PER_VIDEO * MOMENTS_PER_VIDEO
    for start in range(0, len(embeddings), chunk):
        part = np.array(embeddings[start : start + chunk])
        places = [divmod(row, MOMENTS_PER_VIDEO) for row in range(start, start + len(part))]
        files = [
            IndexedVideo(
                file=number, folder=str(folder), path=f"{number}", bytes=0, modified_ns=0,
                moments=moments, has_audio=True, aspect=1.0, problem="",
            )
            for number, moments in Counter(number for number, _ in places).items()
        ]  # fmt: skip
        store.add(files, [(number, frame + 1, b"", b"") for number, frame in places], part)
    return store


def build_faiss(folder: Path) -> tuple[float, float, int]:
    """As :func:`build_lance`; the index contains the embeddings, so no table is written."""
    import faiss  # not at the top: a first answer takes the time to import it, too

    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    before, began = peak_bytes(), time.perf_counter()
    kind = f"HNSW{HNSW_LINKS}_SQ8"
    index = faiss.index_factory(embeddings.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    faiss.ParameterSpace().set_index_parameter(index, "efConstruction", HNSW_WIDTH)
    index.train(np.array(embeddings[:CHUNK]))
    for start in range(0, len(embeddings), CHUNK):
        index.add(np.array(embeddings[start : start + CHUNK]))
    (folder / "faiss").mkdir()
    faiss.write_index(index, str(folder / "faiss/index"))
    return 0.0, time.perf_counter() - began, peak_bytes() - before


def first_query(store: Path, query: Embeddings, *, exact: bool, cached: bool) -> float:
    """Seconds from opening the store to the first result, in a process that has imported LanceDB;
    with the store's files in the page cache or without.
    """
    for file in () if cached else filter(Path.is_file, store.rglob("*")):
        drop_from_cache(file)
    began = time.perf_counter()
    MomentStore.open(str(store)).search(query, AUDIO_WEIGHT, NEAREST, exact=exact)
    return time.perf_counter() - began


def command_seconds(store: Path) -> float:
    """Seconds of a whole search by the command, imports and the model included."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "trimodal", "search", "--model", str(MODEL),
         "--store", str(store), "--text", "a dog barks"],
        cwd=ROOT, check=True, capture_output=True, timeout=TIMEOUT_SECONDS,
    )  # fmt: skip
    return time.perf_counter() - began


def compare_search(folder: Path, queries: Embeddings, indices: Sequence[str]) -> None:
    """Prints time and recall of each method; each answers all queries one by one, in turn."""
    queries = np.concatenate([(1 - AUDIO_WEIGHT) * queries, AUDIO_WEIGHT * queries], axis=1)
    queries = queries.astype(np.float32)
    embeddings = np.load(folder / "embeddings.npy", allow_pickle=False)

    def exact(query: Embeddings) -> npt.NDArray[np.int64]:
        scores = embeddings @ query
        best = np.argpartition(-scores, NEAREST)[:NEAREST]
        return best[np.argsort(-scores[best])]

    searches = {"LanceDB": by_lance, "graph": by_graph, "faiss": by_faiss}
    methods: dict[str, Search] = {"NumPy, exact": exact}
    methods |= {kind: searches[kind](folder / kind) for kind in indices}
    results = {
        name: [set(search(query).tolist()) for query in queries] for name, search in methods.items()
    }
    timings = side_by_side(
        {name: partial(answer_all, search, queries) for name, search in methods.items()}, ROUNDS
    )
    say("| search | median | speed-up over exact | recall@10 |")
    say("| --- | ---: | ---: | ---: |")
    truth = results["NumPy, exact"]
    for name in methods:
        times = ratio(timings["NumPy, exact"].wall_s, timings[name].wall_s)
        recall = np.mean([len(a & b) / NEAREST for a, b in zip(truth, results[name], strict=True)])
        each = timings[name].wall / len(queries)
        say(f"| {name} | {each * 1e3:.2f} ms | {times:.1f} | {recall:.3f} |")


def by_lance(store: Path) -> Search:
    """LanceDB's approximate search."""
    table = open_for_queries(str(store))
    return lambda query: rows_of(nearest(table, query, NEAREST)[0])


def by_graph(store: Path) -> Search:
    """The store's graph."""
    (made,) = store.glob("graph-*")
    graph = Graph(made)
    return lambda query: rows_of(graph.nearest(query, NEAREST)[0])


def by_faiss(folder: Path) -> Search:
    """faiss's index alone."""
    import faiss

    index = faiss.read_index(str(folder / "index"))
    faiss.ParameterSpace().set_index_parameter(index, "efSearch", HNSW_SEARCH)

    def search(query: Embeddings) -> npt.NDArray[np.int64]:
        rows: npt.NDArray[np.int64] = index.search(query[None], NEAREST)[1][0]
        return rows

    return search


def rows_of(moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows of the embeddings that moments are of."""
    return (moments >> FRAME_BITS) * MOMENTS_PER_VIDEO + (moments & (1 << FRAME_BITS) - 1) - 1


def answer_all(search: Search, queries: Embeddings) -> None:
    """Runs one query after the other."""
    for query in queries:
        search(query)


BUILDS = {"LanceDB": build_lance, "graph": build_graph, "faiss": build_faiss}

if __name__ == "__main__":
    main()
