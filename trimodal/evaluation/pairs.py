"""Test sets of two modalities, searched in both directions: captions and images, captions and
sounds, sounds and images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trimodal.core.coverage import check_coverage
from trimodal.core.files import write_json, write_table
from trimodal.core.progress import log, summary_line
from trimodal.core.records import DataError
from trimodal.evaluation.audit import check_collapse, check_modality, geometry_of_rows
from trimodal.evaluation.cache import matrix_of, read_cached, vector_column, write_cached
from trimodal.evaluation.config import Duplicates
from trimodal.evaluation.embeddings import Matrix
from trimodal.evaluation.hubs import hub_metrics
from trimodal.evaluation.measures import Measured, mean_of, measure
from trimodal.evaluation.metrics import Metrics, rsums
from trimodal.evaluation.results import METRICS, RANKS
from trimodal.evaluation.retrieval import (
    Ranking,
    Truth,
    rank_queries,
    similarity,
    truth_of,
)
from trimodal.evaluation.task import Task, counted
from trimodal.training.leaks import Leaks


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows of modality ``first``, (queries, dim), each of which belongs to the row ``owner``,
    (queries,), of modality ``second``, (items, dim). Items are in the order of their first query,
    and each has one. ``sentences`` are those of the queries, empty where they are no text.
    """

    modalities: tuple[str, str]
    queries: Sequence[str]
    items: Sequence[str]
    owner: npt.NDArray[np.int64]
    sentences: Sequence[str]
    first: Matrix
    second: Matrix

    def __post_init__(self) -> None:
        if len({len(self.queries), len(self.owner), len(self.first)}) > 1:
            raise ValueError("pairs: every query needs an owner and a row")
        if not len(self.items) == len(self.second) == len(set(self.owner.tolist())):
            raise ValueError("pairs: every item needs a query and a row")

    def truth(self, duplicates: Duplicates) -> Truth:
        """Which items are right for each query, (queries, items)."""
        return truth_of(self.owner, self.sentences, any_duplicate=duplicates == "any")

    def of_items(self, items: slice) -> "Pairs":
        """Some of the items, and their queries."""
        chosen = np.arange(len(self.items))[items]
        kept = np.flatnonzero(np.isin(self.owner, chosen)).tolist()
        return replace(
            self,
            queries=[self.queries[row] for row in kept],
            items=self.items[items],
            owner=self.owner[kept] - chosen[0],
            sentences=[self.sentences[row] for row in kept] if self.sentences else [],
            first=self.first[kept],
            second=self.second[items],
        )


def write_pairs(path: Path, pairs: Pairs, identity: str, left_out: Mapping[str, int]) -> None:
    """Writes one row for each query: query_id, item_id, its embedding and its item's."""
    first, second = pairs.modalities
    columns = {
        "query_id": list(pairs.queries),
        "item_id": [pairs.items[row] for row in pairs.owner],
        first: vector_column(pairs.first),
        second: vector_column(pairs.second[pairs.owner]),
    }
    write_cached(path, pa.table(columns), identity, {"left_out": dict(left_out)})


def read_pairs(
    path: Path, identity: str, modalities: tuple[str, str], sentence_of: Mapping[str, str]
) -> tuple[Pairs, Counter[str]] | None:
    """What :func:`write_pairs` wrote under this ``identity``, and what was left out; else None.
    ``sentence_of`` has the sentences by query, empty where they are no text.
    """
    cached = read_cached(path, identity)
    if cached is None:
        return None
    row_of: dict[str, int] = {}
    names, queries = cached.table["item_id"].to_pylist(), cached.table["query_id"].to_pylist()
    owner = np.array([row_of.setdefault(name, len(row_of)) for name in names], np.int64)
    first_row = np.unique(owner, return_index=True)[1]
    pairs = Pairs(
        modalities=modalities,
        queries=queries,
        items=list(row_of),
        owner=owner,
        sentences=[sentence_of[query] for query in queries] if sentence_of else [],
        first=matrix_of(cached.table[modalities[0]]),
        second=matrix_of(cached.table[modalities[1]])[first_row],
    )
    return pairs, Counter(cached.facts["left_out"])


def paired(
    modalities: tuple[str, str],
    items: Sequence[str],
    captions: Sequence[Sequence[str]],
    first: Matrix,
    second: Matrix,
) -> Pairs:
    """Captions and the items that they describe: ``first`` has a row for each caption in order."""
    counts = [len(of_item) for of_item in captions]
    return Pairs(
        modalities=modalities,
        queries=[query for name, count in zip(items, counts, strict=True)
                 for query in query_ids(name, count)],
        items=items,
        owner=np.repeat(np.arange(len(items)), counts),
        sentences=[caption for of_item in captions for caption in of_item],
        first=first,
        second=second,
    )  # fmt: skip


def query_ids(item: str, count: int) -> list[str]:
    """The names of an item's captions."""
    return [f"{item}#{number}" for number in range(count)]


def check_pairs(task: Task, what: str, pairs_found: int, left_out: Counter[str]) -> None:
    """Raises DataError if fewer items than ``evaluate.min_coverage`` or than two are usable."""
    check_coverage(
        f"evaluate {task.name}",
        what,
        pairs_found,
        left_out,
        required=task.config.min_coverage,
        param="evaluate.min_coverage",
    )
    if pairs_found < 2:
        raise DataError(f"evaluate {task.name}: at least 2 {what} are needed, not {pairs_found}")


def write_pair_results(
    task: Task,
    pairs: Pairs,
    *,
    duplicates: Duplicates,
    folds: int,
    leaks: Leaks,
    left_out: Counter[str],
    facts: Mapping[str, Any],
    bank: Matrix | None = None,
) -> None:
    """Writes the audit; then, if the embeddings have not collapsed, metrics and ranks. ``bank`` are
    training captions for QB-Norm, (captions, dim).
    """
    config = task.config
    parts = dict(zip(pairs.modalities, (pairs.first, pairs.second), strict=True))
    geometry = geometry_of_rows(parts)
    task.write_audit(facts, pair_counts(pairs), leak_counts(leaks), counted(left_out),
                     {"duplicates": duplicates, "geometry": geometry})  # fmt: skip
    check_collapse(
        geometry,
        min_effective_rank=config.min_effective_rank,
        max_mean_cosine=config.max_mean_cosine,
    )
    metrics = pair_metrics(
        pairs, duplicates=duplicates, folds=folds, resamples=config.bootstrap_resamples
    )
    if pairs.sentences:
        one, other = pairs.modalities
        metrics[f"{one}_to_{other}"] = hub_metrics(
            pairs.first,
            bank,
            lambda text: similarity(text, pairs.second),
            pairs.truth(duplicates),
            config.bootstrap_resamples,
        )
    _write_ranks(task.out / RANKS, pairs, duplicates)
    write_json(task.out / METRICS, metrics)
    text = ", ".join(
        f"{name.replace('_', ' ')} R@1 {of['R@1']:.1f}, R@10 {of['R@10']:.1f}"
        for name, of in metrics["directions"].items()
    )
    done = f"evaluate {task.name}: {len(pairs.queries)} queries, {len(pairs.items)} items: {text}"
    log.info(summary_line(done, left_out))


def pair_metrics(
    pairs: Pairs, *, duplicates: Duplicates = "own", folds: int = 0, resamples: int = 0
) -> Metrics:
    """Both directions and their rsum; with ``folds`` the means over galleries of so many items, and
    ``all_items``, the same without folds. Items that do not fill the last fold are only in that.
    Raises DataError if there are fewer items than a fold.
    """
    measured = _measured(pairs, duplicates, resamples)
    if not folds:
        return _summaries(measured)
    count = len(pairs.items) // folds
    if not count:
        raise DataError(f"evaluate: folds of {folds} of {len(pairs.items)} items")
    parts = [
        _measured(pairs.of_items(slice(n * folds, (n + 1) * folds)), duplicates, resamples)
        for n in range(count)
    ]
    of_folds = {name: mean_of([part[name] for part in parts]) for name in measured}
    return _summaries(of_folds) | {"folds": count, "all_items": _summaries(measured)}


def _summaries(measured: Mapping[str, Measured]) -> Metrics:
    directions = {name: of.summary() for name, of in measured.items()}
    return {"directions": directions, "rsum": rsums(measured)}


def _measured(pairs: Pairs, duplicates: Duplicates, resamples: int) -> dict[str, Measured]:
    return {
        name: measure(ranking, resamples) for name, ranking in _rankings(pairs, duplicates).items()
    }


def _rankings(pairs: Pairs, duplicates: Duplicates) -> dict[str, Ranking]:
    one, other = pairs.modalities
    first, second, truth = pairs.first, pairs.second, pairs.truth(duplicates)
    return {
        f"{one}_to_{other}": rank_queries(lambda rows: similarity(first[rows], second), truth),
        f"{other}_to_{one}": rank_queries(
            lambda rows: similarity(second[rows], first), truth.T.tocsr()
        ),
    }


def _write_ranks(path: Path, pairs: Pairs, duplicates: Duplicates) -> None:
    """A row for each query of either direction: the rank among all items."""
    there, back = _rankings(pairs, duplicates).items()
    directions = [there[0]] * len(pairs.queries) + [back[0]] * len(pairs.items)
    table = {
        "direction": directions,
        "query_id": [*pairs.queries, *pairs.items],
        "rank": np.concatenate([there[1].ranks, back[1].ranks]),
    }
    write_table(path, pa.table(table))


def pair_counts(pairs: Pairs) -> dict[str, int]:
    """Counts of queries and items for the audit."""
    counts = {"queries": len(pairs.queries), "gallery": len(pairs.items)}
    if pairs.sentences:
        counts["distinct_sentences"] = len({sentence.strip() for sentence in pairs.sentences})
    rows = np.unique(pairs.second, axis=0, return_counts=True)[1]
    return counts | {"items_with_identical_embedding": int(rows[rows > 1].sum())}


def leak_counts(leaks: Leaks) -> dict[str, int]:
    """Counts of the items that are in the training data too, for the audit."""
    return {
        **{f"items_in_training_{reason}": len(names) for reason, names in leaks.by_reason.items()},
        "items_of_unknown_origin": len(leaks.unknown_origin),
    }


def check_pair_rows(pairs: Pairs) -> None:
    """Raises EmbeddingError for rows that are not finite or all zeros."""
    check_modality(pairs.modalities[0], pairs.first, pairs.queries)
    check_modality(pairs.modalities[1], pairs.second, pairs.items)
