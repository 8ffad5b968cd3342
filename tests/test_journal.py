"""Finished shards are reused if nothing changed, and rebuilt if anything did."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from configs import MACHINE, PARAMS
from data_fixtures import contents

from trimodal.core.shards import ShardResult
from trimodal.core.storage import file_state
from trimodal.parallel import journal
from trimodal.parallel.journal import make_shards
from trimodal.parallel.pool import WorkerError


@dataclass(frozen=True)
class Letters:
    """A job for a shard of the letters of some files."""

    path: Path
    sources: tuple[Path, ...]

    def inputs(self) -> Any:
        return [[source.name, file_state(source)] for source in self.sources]


def spell(job: Letters) -> ShardResult:
    """Makes the shard and logs its name."""
    with (job.path.parent.parent / "log").open("a") as log:
        log.write(f"{job.path.name}\n")
    text = "".join(source.read_text() for source in job.sources)
    if "CRASH" in text:
        os.kill(os.getpid(), signal.SIGSEGV)
    job.path.write_text(text)
    return ShardResult(
        rows=[{"letter": letter, "weight": 0.1} for letter in text],
        left_out=Counter(odd=2),
        examples={"odd": "one"},
        bytes=len(text),
    )


@pytest.fixture
def jobs(tmp_path: Path) -> list[Letters]:
    (tmp_path / "out").mkdir()
    sources = []
    for letter in "abcdef":
        sources.append(tmp_path / f"{letter}.txt")
        sources[-1].write_text(letter)
    pairs = zip(sources[::2], sources[1::2], strict=True)
    return [Letters(tmp_path / "out" / f"s-{n}.tar", pair) for n, pair in enumerate(pairs)]


def make(
    jobs: Sequence[Letters], settings: Any = "settings", workers: int = 1
) -> list[ShardResult]:
    machine = replace(MACHINE, workers=workers)
    return list(make_shards(spell, jobs, jobs[0].path.parent, settings=settings, machine=machine))


@pytest.fixture
def rebuilt(tmp_path: Path) -> Callable[[], list[str]]:
    """The shards that were made since the last call."""

    def names_since_last_call() -> list[str]:
        log = tmp_path / "log"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(names)

    return names_since_last_call


ALL = ["s-0.tar", "s-1.tar", "s-2.tar"]
Rebuilt = Callable[[], list[str]]


@pytest.mark.parametrize("workers", [1, 2])
def test_finished_shards_are_reused(
    workers: int, jobs: list[Letters], rebuilt: Rebuilt, caplog: pytest.LogCaptureFixture
) -> None:
    first = make(jobs, workers=workers)
    assert rebuilt() == ALL
    before = contents(jobs[0].path.parent)
    caplog.set_level("INFO", "trimodal")
    again = make(jobs, workers=workers)
    assert rebuilt() == []
    assert [(r.rows, r.left_out, r.examples, r.bytes) for r in again] == [
        (r.rows, r.left_out, r.examples, r.bytes) for r in first
    ]
    assert all(result.reused for result in again)
    assert not any(result.reused for result in first)
    assert contents(jobs[0].path.parent) == before
    assert caplog.messages[-1].endswith("reused 3 of 3 shards from an earlier run")


def test_a_stopped_run_resumes(jobs: list[Letters], rebuilt: Rebuilt) -> None:
    running: Iterator[ShardResult] = make_shards(
        spell, jobs, jobs[0].path.parent, settings="settings", machine=MACHINE
    )
    next(running), next(running)
    running.close()
    assert rebuilt() == ALL[:2]
    make(jobs)
    assert rebuilt() == ALL[2:]


def rewrite(job: Letters) -> None:
    job.sources[0].write_text("xyz")


def touch(job: Letters) -> None:
    os.utime(job.sources[0], ns=(1, 1))


def remove(job: Letters) -> None:
    job.path.unlink()


def damage(job: Letters) -> None:
    job.path.write_text("a?")


def delete_record(job: Letters) -> None:
    (job.path.parent / journal.FOLDER / f"{job.path.stem}.json").unlink()


def corrupt_record(job: Letters) -> None:
    (job.path.parent / journal.FOLDER / f"{job.path.stem}.json").write_text('{"key": 3')


@pytest.mark.parametrize("change", [rewrite, touch, remove, damage, delete_record, corrupt_record])
def test_only_the_affected_shard_is_rebuilt(
    change: Callable[[Letters], None], jobs: list[Letters], rebuilt: Rebuilt
) -> None:
    make(jobs)
    rebuilt()
    change(jobs[1])
    make(jobs)
    assert rebuilt() == ["s-1.tar"]
    assert jobs[1].path.read_text() == "".join(s.read_text() for s in jobs[1].sources)


def test_other_settings_rebuild_all_shards(jobs: list[Letters], rebuilt: Rebuilt) -> None:
    make(jobs)
    rebuilt()
    make(jobs, settings="other")
    assert rebuilt() == ALL


def test_files_of_another_run_are_removed(jobs: list[Letters]) -> None:
    make(jobs)
    out = jobs[0].path.parent
    for stray in ("s-9.tar", ".s-1.tar.tmp", "index.parquet", "journal/s-9.json", "journal/.x.tmp"):
        (out / stray).write_text("of another run")
    (out / "folder").mkdir()
    (out / "folder" / "file").touch()
    make(jobs)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == [
        "journal", "journal/s-0.json", "journal/s-1.json", "journal/s-2.json", *ALL,
    ]  # fmt: skip


def test_a_crashed_worker_ends_the_run_and_finished_shards_are_kept(
    jobs: list[Letters], rebuilt: Rebuilt
) -> None:
    jobs[2].sources[0].write_text("CRASH")
    with pytest.raises(WorkerError, match=r"died of signal 11 \(Segmentation fault\)"):
        make(jobs, workers=2)
    rebuilt()
    jobs[2].sources[0].write_text("fixed")
    make(jobs)
    names = rebuilt()
    assert "s-2.tar" in names
    assert len(names) <= 2  # the other worker's shard was not finished


def test_a_shard_made_after_a_crash_is_recorded(jobs: list[Letters], rebuilt: Rebuilt) -> None:
    jobs[2].sources[0].write_text("CRASH")

    def on_crash(job: Letters, error: WorkerError) -> ShardResult:
        assert error.crashed
        job.path.write_text("replaced")
        return ShardResult(rows=[], left_out=Counter(crash=1), examples={}, bytes=7)

    for attempt in range(2):
        out = jobs[0].path.parent
        results = list(
            make_shards(spell, jobs, out, settings="", machine=MACHINE, on_crash=on_crash)
        )
        assert [sum(r.left_out.values()) for r in results] == [2, 2, 1]
        assert rebuilt() == (ALL if attempt == 0 else [])


def test_shards_with_a_retryable_reason_are_rebuilt(jobs: list[Letters], rebuilt: Rebuilt) -> None:
    for _ in range(2):
        list(
            make_shards(
                spell, jobs, jobs[0].path.parent, settings="", machine=MACHINE, retryable={"odd"}
            )
        )
        assert rebuilt() == ALL


# A job whose module records which process imported it
WORK = """
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trimodal.core.shards import ShardResult

IMPORTED_BY = os.getpid()

@dataclass(frozen=True)
class Job:
    path: Path

    def inputs(self):
        return []

def make(settings, job):
    job.path.touch()
    row = {"worker": os.getpid(), "imported_by": IMPORTED_BY}
    return ShardResult(rows=[row], left_out=Counter(), examples={}, bytes=0)
"""
RUN = """
import json
import sys
from functools import partial
from pathlib import Path

from dataclasses import replace

from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.parallel.journal import make_shards

if __name__ == "__main__":
    import work

    out = Path(sys.argv[1])
    jobs = [work.Job(out / f"s-{number}.tar") for number in range(4)]
    params = load_section(Path(sys.argv[2]), "machine", MachineConfig)
    machine = replace(params, workers=2)
    make = partial(work.make, "settings")
    results = make_shards(make, jobs, out, settings="", machine=machine)
    print(json.dumps([row for result in results for row in result.rows]))
"""


def test_the_module_that_does_the_work_is_imported_once_for_all_workers(tmp_path: Path) -> None:
    """By the forkserver; not only the journal's module, which calls it."""
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "out").mkdir()
    path = os.pathsep.join(map(str, [tmp_path, PARAMS.parent]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "out"), str(PARAMS)],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    rows = json.loads(done.stdout)
    assert len(rows) == 4
    assert len({row["imported_by"] for row in rows}) == 1
    assert not {row["imported_by"] for row in rows} & {row["worker"] for row in rows}
