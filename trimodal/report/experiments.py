"""The paper's comparison as DVC experiments, and the results of any revision."""

import io
import json
import re
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq

from trimodal.core.config import read_yaml
from trimodal.core.files import check_writable, write_json
from trimodal.core.fingerprint import git_revision
from trimodal.core.progress import clock, log, start_logging
from trimodal.core.records import DataError
from trimodal.report.comparison import Run, compare, run_from, table1
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
from trimodal.report.significance import PairingError, check_seeds

RANKS = "data/evaluation/ranks.parquet"
AUDIT = "metrics/audit.json"
RESULT = Path("metrics/comparison.json")
MODES = ("fixed", "variable")
WORKSPACE = "workspace"  # DVC's name for the files as they are now
_OURS = re.compile(rf"table1-({'|'.join(MODES)})-s\d+")


def run_at(revision: str) -> Run:
    """The evaluated run of a commit, a tag, a DVC experiment's name, or ``workspace``.

    Raises ExperimentError for an unknown revision and for results that are not in DVC's cache,
    DataError for results of another format.
    """
    ranks, audit = _content(RANKS, revision), _content(AUDIT, revision)
    try:
        table = pq.read_table(io.BytesIO(ranks), page_checksum_verification=True)
        return run_from(revision, table, json.loads(audit))
    except (ValueError, KeyError, OSError) as error:
        raise DataError(
            f"{revision}: {RANKS} or {AUDIT} was written by another version or is damaged: {error}"
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


def compare_revisions(first: str, second: str) -> str:
    """Markdown: two revisions' metrics, differences and paired tests."""
    return compare(run_at(first), run_at(second))


def run_table1(seeds: Sequence[int]) -> str:
    """Runs an experiment for each margin mode and seed (``table1-fixed-s1``, ...), one after the
    other, each on the commit's code with the workspace's changes; writes
    ``metrics/comparison.json`` and returns the table. Stages that have run before come from DVC's
    run cache, so a run that was interrupted goes on where it was. No process outlives this call.

    Raises PairingError, before anything runs, for fewer than two seeds, and ExperimentError if DVC
    cannot run an experiment, after it has tried the others.
    """
    check_seeds(seeds)
    if len(seeds) < 2:
        raise PairingError("an interval over seeds needs at least two different seeds")
    check_writable(RESULT)
    start_logging()
    names = {(mode, seed): f"table1-{mode}-s{seed}" for seed, mode in product(sorted(seeds), MODES)}
    failures: list[str] = []
    start = time.monotonic()
    with alone(), ending_with_children():
        clear_leftovers(_OURS)
        existing = _experiment_names()
        try:
            for number, ((mode, seed), name) in enumerate(names.items(), 1):
                if name in existing:
                    ask_dvc("exp", "remove", name)
                place = f"{number} of {len(names)}: {name}"
                log.info(f"{place} begins; its output: {LOGS / f'{name}.log'}")
                problem = _run(name, mode, seed)
                elapsed = clock(time.monotonic() - start)
                log.info(f"{place} {problem or 'is done'}; {elapsed} since the start")
                failures += [f"{name} {problem}"] * bool(problem)
        finally:
            clear_leftovers(_OURS)
    if failures:
        raise ExperimentError(f"experiments failed: {'; '.join(failures)}; see {LOGS}/NAME.log")
    comparison = table1({key: run_at(name) for key, name in names.items()})
    write_json(RESULT, {"git": git_revision(), **comparison})
    return comparison_table(comparison)


def _run(name: str, mode: str, seed: int) -> str:
    """Runs an experiment; returns what went wrong, or ''."""
    params = {"loss.margin_mode": mode, "train.seed": seed, **_test_set()}
    log_file = LOGS / f"{name}.log"
    code = run_dvc(
        # Sources are not in the experiment's folder; unchanged stages that read them are skipped.
        log_file, "exp", "run", "--temp", "--allow-missing", "--name", name,
        *(word for key, value in params.items() for word in ("--set-param", f"{key}={value}")),
    )  # fmt: skip
    if code < 0:
        return f"was killed by signal {-code}"
    if code or name not in _experiment_names():
        return f"failed: {last_line(log_file)}"
    return ""


def _test_set() -> dict[str, str]:
    """The test captions, which ``evaluate`` reads, by a path that holds in the experiment's folder
    too, unless an earlier stage makes them.
    """
    params = read_yaml(Path("params.yaml"))
    test_csv = Path(params.get("evaluate", {}).get("test_csv", ""))
    if params.get("download", {}).get("source", "demo") == "demo" or not test_csv.is_file():
        return {}
    return {"evaluate.test_csv": str(test_csv.resolve())}


def _experiment_names() -> set[str]:
    """Names of the current commit's experiments."""
    return set(ask_dvc("exp", "list", "--name-only").split())
