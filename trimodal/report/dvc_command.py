"""DVC as a command that ends when this process does, and what a killed one leaves.

An experiment runs in a folder of its own (``dvc exp run --temp``), as a child of this process.
DVC's queue would hand it to a daemon and wait for ever for one that a power cut ended.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import psutil
from filelock import FileLock, Timeout

from trimodal.core.console import show
from trimodal.core.errors import UserError
from trimodal.core.files import remove
from trimodal.core.progress import log

_QUESTION_SECONDS = 600
_RUN_SECONDS = 20 * 86_400  # a training run at the paper's scale, with room
_GRACE_SECONDS = 20  # for DVC to remove the experiment's folder
_TEMPORARY = Path(".dvc/tmp")
LOGS = _TEMPORARY / "trimodal"


class ExperimentError(UserError, RuntimeError):
    """An experiment that DVC could not run, or a revision without results."""


def ask_dvc(*words: str) -> str:
    """Runs a short dvc command and returns its standard output; raises ExperimentError if it fails
    or does not end.
    """
    command = f"dvc {' '.join(words)}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            capture_output=True,
            text=True,
            timeout=_QUESTION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"{command} took over {_QUESTION_SECONDS} s") from error
    if done.returncode:
        raise ExperimentError(f"{command} failed:\n{(done.stdout + done.stderr)[-2000:].strip()}")
    return done.stdout


def run_dvc(log_file: Path, *words: str) -> int:
    """Runs a long dvc command, whose output goes to ``log_file``; returns its exit code, negative
    for a signal. Raises ExperimentError if it takes over 20 days.
    """
    try:
        with log_file.open("wb") as output:
            return subprocess.run(
                [sys.executable, "-m", "dvc", *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,  # signals come from here alone
                timeout=_RUN_SECONDS, check=False,
            ).returncode  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"dvc {' '.join(words)} took over {_RUN_SECONDS} s") from error


@contextmanager
def ending_with_children() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the processes that this one has started, and then the block
    with exit code 128 + the signal's number. For the main thread.
    """

    def leave(number: int, _: Any) -> NoReturn:
        show(f"trimodal: ended by {signal.strsignal(number)}; run it again to go on", error=True)
        _end(psutil.Process().children(recursive=True))
        sys.exit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(processes: list[psutil.Process]) -> None:
    """Ends processes as Ctrl-C does, so that DVC tidies up, and those that remain by force."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    for process in psutil.wait_procs(processes, _GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def alone() -> Iterator[None]:
    """Only one process of a repository is in the block; raises ExperimentError in all others, and
    outside a DVC repository.
    """
    if not _TEMPORARY.parent.is_dir():
        raise ExperimentError("no DVC repository here: run it in the repository's root")
    LOGS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOGS / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ExperimentError("trimodal experiments runs already in this repository") from error
    try:
        yield
    finally:
        lock.release()


def clear_leftovers(names: "re.Pattern[str]") -> None:
    """Removes what a killed run of experiments with these names left: processes that outlived it,
    folders, and entries of DVC's stash and queue. Experiments that are done stay, and so does all
    that has other names. Raises ExperimentError if a worker of DVC's queue is running one of them.
    """
    for info in _TEMPORARY.glob("exps/**/run/*/*.run"):
        with suppress(OSError, ValueError, KeyError):  # cut off in the middle
            content = json.loads(info.read_text())
            if names.fullmatch(content["name"] or ""):
                _remove_run(info, Path(content["root_dir"]))
    try:
        _clear_dvc(names)
    except (OSError, ValueError, KeyError) as error:
        log.info(f"DVC's queue ({_TEMPORARY / 'exps'}) is damaged, which changes nothing: {error}")


def _remove_run(info: Path, folder: Path) -> None:
    """Ends the processes of an experiment that work in its folder, and removes it."""
    if folder.is_relative_to(_TEMPORARY.resolve()):
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # One at a terminal is a person's.
                if Path(process.cwd()).is_relative_to(folder) and process.terminal() is None:
                    process.kill()
                    process.wait(_GRACE_SECONDS)
        remove(folder)
    remove(info.parent)


def _clear_dvc(names: "re.Pattern[str]") -> None:
    from dvc.repo import Repo
    from dvc.repo.experiments.queue.remove import remove_tasks

    with Repo() as repo:
        stash = repo.experiments.tempdir_queue.stash
        stash.remove_revs([e for e in stash.stash_revs.values() if names.fullmatch(e.name or "")])
        if not (_TEMPORARY / "exps/celery/broker").exists():
            return
        queue = repo.experiments.celery_queue
        tasks = [
            (message.headers["id"], entry)
            for message, entry in chain(queue._iter_queued(), queue._iter_processed())
            if names.fullmatch(entry.name or "")
        ]
        running = queue._get_running_task_ids() if tasks else set()
        for task, entry in tasks:
            if task in running:
                raise ExperimentError(
                    f"a worker of DVC's queue is running {entry.name}: wait for it, or end it with "
                    f"dvc queue kill {entry.name}"
                )
            queue.celery.backend.mark_as_failure(task, None)  # one without an end is not removed
        # Twice: of a task that is still in the stash, the first call removes only that entry.
        for _ in range(2 if tasks else 0):
            remove_tasks(queue, [entry for _, entry in tasks])


def last_line(log_file: Path) -> str:
    """The last line that is not empty."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
