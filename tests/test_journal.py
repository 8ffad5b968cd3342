"""Shards are made once: found again if nothing changed, rebuilt if anything did."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from configs import MACHINE
from data_fixtures import contents

from trimodal.core.shards import ShardResult
from trimodal.core.storage import file_state
from trimodal.parallel import journal
from trimodal.parallel.journal import make_shards
from trimodal.parallel.pool import WorkerError


@dataclass(frozen=True)
class Letters:
    """A shard of the letters of some files."""

    path: Path
    sources: tuple[Path, ...]

    def made_of(self) -> Any:
        return [[source.name, file_state(source)] for source in self.sources]


def spell(job: Letters) -> ShardResult:
    """Makes the shard and notes that it did."""
    with (job.path.parent.parent / "made").open("a") as log:
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


def make(jobs: Sequence[Letters], form: Any = "form", workers: int = 1) -> list[ShardResult]:
    machine = replace(MACHINE, workers=workers)
    return list(make_shards(spell, jobs, jobs[0].path.parent, form=form, machine=machine))


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], list[str]]:
    """Which shards were made since the last call."""

    def since() -> list[str]:
        log = tmp_path / "made"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(names)

    return since


ALL = ["s-0.tar", "s-1.tar", "s-2.tar"]
Made = Callable[[], list[str]]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_finished_is_found(
    workers: int, jobs: list[Letters], made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    first = make(jobs, workers=workers)
    assert made() == ALL
    before = contents(jobs[0].path.parent)
    caplog.set_level("INFO", "trimodal")
    again = make(jobs, workers=workers)
    assert made() == []
    assert [(d.rows, d.left_out, d.examples, d.bytes) for d in again] == [
        (d.rows, d.left_out, d.examples, d.bytes) for d in first
    ]
    assert all(done.found for done in again)
    assert not any(done.found for done in first)
    assert contents(jobs[0].path.parent) == before
    assert caplog.messages[-1].endswith("3 of 3 shards were finished by an earlier run")


def test_a_run_that_stops_goes_on(jobs: list[Letters], made: Made) -> None:
    running: Iterator[ShardResult] = make_shards(
        spell, jobs, jobs[0].path.parent, form="form", machine=MACHINE
    )
    next(running), next(running)
    running.close()
    assert made() == ALL[:2]
    make(jobs)
    assert made() == ALL[2:]


def rewrite(job: Letters) -> None:
    job.sources[0].write_text("xyz")


def touch(job: Letters) -> None:
    os.utime(job.sources[0], ns=(1, 1))


def remove(job: Letters) -> None:
    job.path.unlink()


def damage(job: Letters) -> None:
    job.path.write_text("a?")


def forget(job: Letters) -> None:
    (job.path.parent / journal.FOLDER / f"{job.path.stem}.json").unlink()


def misremember(job: Letters) -> None:
    (job.path.parent / journal.FOLDER / f"{job.path.stem}.json").write_text('{"key": 3')


@pytest.mark.parametrize("change", [rewrite, touch, remove, damage, forget, misremember])
def test_only_a_shard_that_a_change_touches_is_made_again(
    change: Callable[[Letters], None], jobs: list[Letters], made: Made
) -> None:
    make(jobs)
    made()
    change(jobs[1])
    make(jobs)
    assert made() == ["s-1.tar"]
    assert jobs[1].path.read_text() == "".join(s.read_text() for s in jobs[1].sources)


def test_other_params_or_code_make_all_anew(jobs: list[Letters], made: Made) -> None:
    make(jobs)
    made()
    make(jobs, form="another")
    assert made() == ALL


def test_what_another_run_left_is_removed(jobs: list[Letters]) -> None:
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


def test_a_crashed_worker_ends_the_run_and_what_was_finished_stays(
    jobs: list[Letters], made: Made
) -> None:
    jobs[2].sources[0].write_text("CRASH")
    with pytest.raises(WorkerError, match=r"died of signal 11 \(Segmentation fault\)"):
        make(jobs, workers=2)
    made()
    jobs[2].sources[0].write_text("mended")
    make(jobs)
    again = made()
    assert "s-2.tar" in again
    assert len(again) <= 2  # the other worker's shard was under way


def test_a_shard_made_after_a_crash_is_noted(jobs: list[Letters], made: Made) -> None:
    jobs[2].sources[0].write_text("CRASH")

    def on_crash(job: Letters, error: WorkerError) -> ShardResult:
        assert error.crashed
        job.path.write_text("replaced")
        return ShardResult(rows=[], left_out=Counter(crash=1), examples={}, bytes=7)

    for attempt in range(2):
        out = jobs[0].path.parent
        done = list(make_shards(spell, jobs, out, form="", machine=MACHINE, on_crash=on_crash))
        assert [sum(d.left_out.values()) for d in done] == [2, 2, 1]
        assert made() == (ALL if attempt == 0 else [])


def test_what_is_retryable_is_tried_again(jobs: list[Letters], made: Made) -> None:
    for _ in range(2):
        list(
            make_shards(
                spell, jobs, jobs[0].path.parent, form="", machine=MACHINE, retryable={"odd"}
            )
        )
        assert made() == ALL
