"""The paper's comparison as DVC experiments, and the results of any revision.

``dvc`` runs as a command: its Python interface for experiments is not public.
"""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from trimodal.core.errors import UserError
from trimodal.core.files import write_json
from trimodal.core.fingerprint import git_revision
from trimodal.core.records import DataError
from trimodal.report.comparison import Run, compare, run_from, table1
from trimodal.report.comparison_table import comparison_table
from trimodal.report.significance import PairingError

RANKS = "data/evaluation/ranks.parquet"
AUDIT = "metrics/audit.json"
RESULT = Path("metrics/comparison.json")
MODES = ("fixed", "variable")
WORKSPACE = "workspace"  # DVC's name for the files as they are now
_QUEUE_SECONDS = 600
_RUN_SECONDS = 20 * 86_400  # a whole table at the paper's scale


class ExperimentError(UserError, RuntimeError):
    """An experiment that DVC could not run, or a revision without results."""


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
    """Queues and runs an experiment for each margin mode and seed (``table1-fixed-s1``, ...), each
    on the commit's code with the workspace's changes; writes ``metrics/comparison.json`` and
    returns the table. Stages that have run before come from DVC's run cache.

    Raises ExperimentError if DVC cannot run an experiment, PairingError for fewer than two seeds.
    """
    if len(set(seeds)) < 2:
        raise PairingError("an interval over seeds needs at least two different seeds")
    names = {
        (mode, seed): f"table1-{mode}-s{seed}" for seed in sorted(set(seeds)) for mode in MODES
    }
    existing = _experiment_names()
    for (mode, seed), name in names.items():
        if name in existing:
            _dvc("exp", "remove", name)
        _dvc(
            "exp", "run", "--queue", "--name", name,
            "--set-param", f"loss.margin_mode={mode}", "--set-param", f"train.seed={seed}",
        )  # fmt: skip
    _dvc("exp", "run", "--run-all", "--jobs", "1", seconds=_RUN_SECONDS)
    if failed := sorted(set(names.values()) - _experiment_names()):
        raise ExperimentError(f"experiments failed: {', '.join(failed)}; see `dvc queue logs NAME`")
    comparison = table1({key: run_at(name) for key, name in names.items()})
    write_json(RESULT, {"git": git_revision(), **comparison})
    return comparison_table(comparison)


def _experiment_names() -> set[str]:
    """Names of the current commit's experiments."""
    return set(_dvc("exp", "list", "--name-only").split())


def _dvc(*words: str, seconds: float = _QUEUE_SECONDS) -> str:
    """Runs dvc and returns its standard output."""
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        stdout=subprocess.PIPE, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    if process.returncode:
        raise ExperimentError(f"dvc {' '.join(words)} failed:\n{process.stdout[-2000:]}")
    return process.stdout
