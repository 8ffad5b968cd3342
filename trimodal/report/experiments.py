"""Series of DVC experiments, and the results of any revision."""

import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trimodal.core.config import read_yaml
from trimodal.core.files import check_writable, write_json
from trimodal.core.fingerprint import git_revision
from trimodal.core.progress import clock, log, start_logging
from trimodal.core.records import DataError
from trimodal.report.comparison import Run, compare, compare_variants, pooled, run_from
from trimodal.report.comparison_table import comparison_table
from trimodal.report.dvc_command import (
    LOGS,
    ExperimentError,
    alone,
    ask_dvc,
    clear_leftovers,
    ending_with_children,
    last_line,
    run_dvc,
)
from trimodal.report.series import PARAMS, STAGES, Series, overrides, read_series

_WITHOUT_RANKS = ("zero_shot", "localisation")
WORKSPACE = "workspace"  # DVC's name for the files as they are now


def result_files(test_set: str | None) -> tuple[str, str]:
    """Where ``evaluate`` leaves a test set's ranks and its audit; by default those of the first set
    that ranks anything; raises ExperimentError if there is none.
    """
    if test_set is None:
        sets = read_yaml(PARAMS).get("evaluate", {}).get("sets", {})
        ranking = (name for name, of in sets.items() if of.get("kind") not in _WITHOUT_RANKS)
        test_set = next(ranking, None)
    if test_set is None:
        raise ExperimentError(f"{PARAMS}: evaluate.sets has no set that ranks anything")
    return f"data/evaluation/{test_set}/ranks.parquet", f"data/evaluation/{test_set}/audit.json"


def run_at(revision: str, test_set: str | None = None) -> Run:
    """The evaluated run of a commit, a tag, a DVC experiment's name, or ``workspace``.

    Raises ExperimentError for an unknown revision and for results that are not in DVC's cache,
    DataError for results of another format.
    """
    names = result_files(test_set)
    ranks, audit = (_content(name, revision) for name in names)
    try:
        table = pq.read_table(io.BytesIO(ranks), page_checksum_verification=True)
        return run_from(revision, table, json.loads(audit))
    except (ValueError, KeyError, OSError) as error:
        raise DataError(
            f"{revision}: {' or '.join(names)} was written by another version or is damaged: "
            f"{error}"
        ) from error


def _content(path: str, revision: str) -> bytes:
    if revision == WORKSPACE:
        return Path(path).read_bytes()
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        with dvc.api.open(path, rev=revision, mode="rb") as file:
            content: bytes = file.read()
            return content
    except (DvcException, OSError) as error:
        raise ExperimentError(f"{revision}: no {path}: {error}") from error


def compare_revisions(first: str, second: str, test_set: str | None = None) -> str:
    """Markdown: two revisions' metrics, differences (second minus first, as those of ``dvc metrics
    diff FIRST SECOND``) and paired tests.
    """
    return compare(run_at(first, test_set), run_at(second, test_set))


def run_series(path: Path, seeds: Sequence[int] | None = None) -> str:
    """Runs an experiment for each variant and seed of the series in ``path`` (of table1.yaml:
    ``table1-fixed-s1``, ...), one after the other, each on the commit's code with the workspace's
    changes; writes the series' JSON and returns its tables as Markdown. ``seeds`` come instead of
    the file's. Stages that have run before come from DVC's run cache, so a run that was interrupted
    goes on where it was. No process outlives this call.

    Raises ConfigError and PairingError, before anything runs, for a series that cannot be run, and
    ExperimentError if DVC cannot run an experiment, after it has tried the others.
    """
    series = read_series(path, seeds)
    check_writable(series.result_path)
    start_logging()
    folds = series.folds or {"": {}}
    names = {
        (variant, seed, fold): "-".join(filter(None, (path.stem, variant, fold, f"s{seed}")))
        for seed, variant, fold in product(series.seeds, series.variants, folds)
    }
    ours = re.compile("|".join(map(re.escape, names.values())))
    runs: dict[tuple[str, int], list[Run]] = {}
    failures: list[str] = []
    start = time.monotonic()
    with alone(), ending_with_children():
        clear_leftovers(ours)
        existing = _experiment_names()
        if stale := _stale_stages():
            log.info(
                f"{', '.join(stale)}: out of date, and each experiment will run them anew; to run "
                "them once, end this with Ctrl-C and run dvc repro first"
            )
        try:
            for number, ((variant, seed, fold), name) in enumerate(names.items(), 1):
                if name in existing:
                    ask_dvc("exp", "remove", name)
                place = f"{number} of {len(names)}: {name}"
                log.info(f"{place} begins; its output: {LOGS / f'{name}.log'}")
                params = {**series.variants[variant].params, **folds[fold]}
                problem = _run(name, overrides(params, seed))
                elapsed = clock(time.monotonic() - start)
                log.info(f"{place} {problem or 'is done'}; {elapsed} since the start")
                if problem:
                    failures.append(f"{name} {problem}")
                else:
                    runs.setdefault((variant, seed), []).append(_results(name, series))
        finally:
            clear_leftovers(ours)
    if failures:
        raise ExperimentError(f"experiments failed: {'; '.join(failures)}; see {LOGS}/NAME.log")
    pooled_runs = {key: pooled(of_folds) for key, of_folds in runs.items()}
    comparison = {"git": git_revision(), **compare_variants(series, pooled_runs)}
    write_json(series.result_path, comparison)
    return comparison_table(comparison)


def _stale_stages() -> list[str]:
    """Those that are not as params, code and sources are now, and that DVC's run cache does not
    keep, because their outputs persist.
    """
    changed = json.loads(ask_dvc("status", "--json"))
    stages = read_yaml(STAGES)["stages"]
    return [name for name in changed if name in stages and _persists(stages[name])]


def _persists(stage: Mapping[str, Any]) -> bool:
    outs = [out for out in stage.get("outs", []) if isinstance(out, dict)]
    options = [given for out in outs for given in out.values()]
    return any(of.get("persist") and of.get("cache", True) for of in options)


def _run(name: str, settings: list[str]) -> str:
    """Runs an experiment; returns what went wrong, or ''."""
    log_file = LOGS / f"{name}.log"
    code = run_dvc(
        log_file, "exp", "run", "--temp", "--name", name,
        *(word for setting in settings for word in ("--set-param", setting)),
    )  # fmt: skip
    if code < 0:
        return f"was killed by signal {-code}"
    if code or name not in _experiment_names():
        return f"failed: {last_line(log_file)}"
    return ""


def _results(name: str, series: Series) -> Run:
    """Raises ExperimentError, before the other experiments run, if a score is missing."""
    run = run_at(name, series.test_set)
    if missing := [score for score in series.scores if score not in run.ranks]:
        ranks, _ = result_files(series.test_set)
        raise ExperimentError(
            f"{name}: {ranks} has no score '{missing[0]}' (known: {', '.join(run.ranks)})"
        )
    return run


def _experiment_names() -> set[str]:
    """Names of the current commit's experiments."""
    return set(ask_dvc("exp", "list", "--name-only").split())
