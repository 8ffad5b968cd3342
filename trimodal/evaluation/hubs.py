"""Hubs of a set's sentences, and its searches with scores that are corrected for them."""

from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import logsumexp

from trimodal.core.files import read_table
from trimodal.core.records import DataError
from trimodal.core.schemas import CAPTION_SCHEMA
from trimodal.evaluation.cache import matrix_of, read_cached, vector_column, write_cached
from trimodal.evaluation.embedding import embed_sentences
from trimodal.evaluation.embeddings import Matrix
from trimodal.evaluation.hubness import NEIGHBOURS, hubness
from trimodal.evaluation.measures import measure
from trimodal.evaluation.metrics import Metrics
from trimodal.evaluation.query_bank import BETA, query_bank
from trimodal.evaluation.results import QUERY_BANK
from trimodal.evaluation.retrieval import Truth, rank_queries, row_blocks
from trimodal.evaluation.task import Task

Score = Callable[[Matrix], Matrix]  # the scores of sentences, (sentences, items), by embedding
_SEED = 0  # of the choice of captions


def bank_of(task: Task) -> Matrix | None:
    """The embeddings of ``evaluate.query_bank`` training captions, (captions, dim), drawn once for
    all; kept in the set's folder. None without a bank. All ranks call this.

    Raises DataError if there are fewer training captions.
    """
    if not task.config.query_bank:
        return None
    sentences = training_captions(task, task.config.query_bank)
    path, identity = task.out / QUERY_BANK, task.identity(captions=sentences)
    if cached := task.on_all_ranks(read_cached(path, identity)):
        return matrix_of(cached.table["text"])
    bank = embed_sentences(task.network(), sentences, task.world.device)
    if task.world.is_main:
        write_cached(path, pa.table({"text": vector_column(bank)}), identity, {})
    return bank


def training_captions(task: Task, count: int) -> list[str]:
    """``count`` different training captions, in the order of the file."""
    path = task.inputs.captions / "captions.parquet"
    table = read_table(path, CAPTION_SCHEMA, columns=["split", "caption"])
    captions = table.filter(pc.field("split") == "train")["caption"].unique().to_pylist()
    if len(captions) < count:
        raise DataError(
            f"{path}: {len(captions)} different training captions; evaluate.query_bank is {count}"
        )
    chosen = np.random.default_rng(_SEED).permutation(len(captions))[:count]
    return [captions[row] for row in sorted(chosen.tolist())]


def hub_metrics(
    text: Matrix, bank: Matrix | None, score: Score, truth: Truth, resamples: int
) -> Metrics:
    """``hubness`` of the items for the sentences ``text``, if there are more than ten; with a
    ``bank``, the measures of ``query_bank`` (QB-Norm) and of ``dual_softmax_uses_test_queries``,
    whose temperature is the inverse of QB-Norm's beta.
    """
    metrics: Metrics = {}
    if truth.shape[1] > NEIGHBOURS:
        metrics["hubness"] = hubness(_blocks(text, score))
    if bank is None:
        return metrics
    of_bank = query_bank(_blocks(bank, score))
    log_sums = reduce(
        np.logaddexp,
        (logsumexp(BETA * scores.astype(np.float64), axis=0) for scores in _blocks(text, score)),
    )

    def dual_softmax(rows: slice) -> np.ndarray:
        scores = score(text[rows]).astype(np.float64)
        return np.asarray(scores * np.exp(BETA * scores - log_sums))

    searches: dict[str, Callable[[slice], np.ndarray]] = {
        "query_bank": lambda rows: of_bank.normalise(score(text[rows])),
        "dual_softmax_uses_test_queries": dual_softmax,
    }
    for name, scores_of in searches.items():
        metrics[name] = measure(rank_queries(scores_of, truth), resamples).summary()
    return metrics


def _blocks(rows: Matrix, score: Score) -> Iterator[Matrix]:
    return (score(rows[block]) for block in row_blocks(len(rows)))
