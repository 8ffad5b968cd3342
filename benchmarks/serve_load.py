"""The search page under load: ``python -m benchmarks.serve_load`` (run `make repro` before).

Writes a store of synthetic moments (:mod:`benchmarks.vector_search`), in videos of a minute, starts
``trimodal serve`` on it, and asks it the demo's test sentences: by one client and by many at once,
each of which waits for an answer before it asks again. Prints Markdown rows: answers a second, the
median latency and its 95th percentile, the server's CPU time for an answer, answers that were none,
and the server's resident memory after a tenth of the questions, when all that is loaded on demand
is there, and after the last one. The clients take a part of the same cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import local
from urllib.parse import urlencode, urlsplit

import psutil

from benchmarks.measuring import ROOT, TIMEOUT_SECONDS, describe_machine, say
from benchmarks.vector_search import MODEL, make_embeddings, write_store
from trimodal.core.arguments import Distinct, positive
from trimodal.sources.msrvtt import read_queries

SENTENCES = ROOT / "data/world/MSRVTT_JSFUSION_test.csv"
HITS = 12  # as the page asks for
IDLE_SECONDS = 2  # of a client; uvicorn closes a connection after five


@dataclass(frozen=True, kw_only=True)
class Load:
    """What so many clients met: wall seconds of all questions and of each answer, the number of
    failures, CPU seconds of the server, and its resident bytes at first and at last.
    """

    clients: int
    wall_s: float
    answers_s: list[float]
    failures: int
    cpu_s: float
    first_bytes: int
    last_bytes: int


def main() -> None:
    """Writes the store, asks a fresh server for each number of clients, prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--moments", type=positive, default=100_000)
    parser.add_argument("--clients", type=positive, nargs="+", action=Distinct, default=[1, 50])
    parser.add_argument("--questions", type=positive, default=10_000)
    args = parser.parse_args()
    sentences = [query.sentence for query in read_queries(SENTENCES)[0]]
    with TemporaryDirectory(prefix="serve-") as name:
        folder = Path(name)
        make_embeddings(folder, args.moments)
        store = write_store(folder, "store")
        store.compact()
        store.seal()
        say(f"{describe_machine()}; {args.moments:,} moments; {args.questions:,} questions\n")
        say("| clients | answers/s | median | 95 % | the server's CPU time an answer | failures | "
            "memory after a tenth | ... at the end |")  # fmt: skip
        say(f"|{' ---: |' * 8}")
        for clients in args.clients:
            with served(folder / "store") as (server, port):
                questions = list(islice(cycle(sentences), args.questions))
                say(row(asked(server, port, questions, clients)))


@contextmanager
def served(store: Path) -> Iterator[tuple[psutil.Popen, int]]:
    """A running server and its port."""
    command = [sys.executable, "-m", "trimodal", "serve", "--no-token", "--port", "0"]
    server = psutil.Popen(
        [*command, "--model", str(MODEL), "--store", str(store)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = next(word for word in server.stdout.readline().split() if "://" in word)
        yield server, urlsplit(address).port or 0
    finally:
        server.terminate()
        server.wait(TIMEOUT_SECONDS)


def asked(server: psutil.Popen, port: int, questions: Sequence[str], clients: int) -> Load:
    """Asks all questions, by so many clients at once."""
    warm = len(questions) // 10
    connections = local()

    def ask(question: str) -> tuple[float, bool]:
        if not hasattr(connections, "own"):
            connections.own = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        began = time.perf_counter()
        if began - getattr(connections, "ended", began) > IDLE_SECONDS:
            connections.own.close()
        good = is_answered(connections.own, question)
        connections.ended = time.perf_counter()
        return connections.ended - began, good

    with ThreadPoolExecutor(clients) as pool:
        outcomes = list(pool.map(ask, questions[:warm]))
        first_bytes, first_cpu_s = server.memory_info().rss, sum(server.cpu_times()[:2])
        began = time.perf_counter()
        timed = list(pool.map(ask, questions[warm:]))
        wall_s = time.perf_counter() - began
    return Load(
        clients=clients,
        wall_s=wall_s,
        answers_s=[seconds for seconds, _ in timed],
        failures=sum(not good for _, good in outcomes + timed),
        cpu_s=sum(server.cpu_times()[:2]) - first_cpu_s,
        first_bytes=first_bytes,
        last_bytes=server.memory_info().rss,
    )


def is_answered(connection: HTTPConnection, question: str) -> bool:
    """Whether the server answers with as many hits as were asked for."""
    try:
        connection.request("POST", f"/api/search?{urlencode({'text': question, 'top': HITS})}")
        response = connection.getresponse()
        content = response.read()
        return response.status == 200 and len(json.loads(content)["hits"]) == HITS
    except (HTTPException, OSError):
        connection.close()
        return False


def row(load: Load) -> str:
    """A line of the table."""
    count = len(load.answers_s)
    late = statistics.quantiles(load.answers_s, n=20)[-1]
    return (
        f"| {load.clients} | {count / load.wall_s:,.0f} | "
        f"{1000 * statistics.median(load.answers_s):.1f} ms | {1000 * late:.1f} ms | "
        f"{1000 * load.cpu_s / count:.1f} ms | {load.failures} | "
        f"{load.first_bytes / 1e6:,.0f} MB | {load.last_bytes / 1e6:,.0f} MB |"
    )


if __name__ == "__main__":
    main()
