"""``python -m module``, and ``dvc`` with its stages, in processes forked from this one, which has
PyTorch loaded already; a new interpreter would take seconds to import it.
"""

import logging
import multiprocessing
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from repository import ROOT


class Forked:
    """As much of subprocess.Popen as tests of stages use."""

    def __init__(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None,
        preexec_fn: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.args = [sys.executable, "-m", module, *arguments]
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        self._process = multiprocessing.get_context("fork").Process(
            target=_run,
            args=(
                self.args,
                cwd,
                dict(os.environ if env is None else env) | {"PYTHONPATH": str(ROOT)},
                preexec_fn,
                self._out,
                self._err,
            ),
        )
        self._process.start()
        self.pid = self._process.ident

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Waits, and returns what was written to standard output and error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        texts = []
        for file in (self._out, self._err):
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        return texts[0], texts[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._process.join()
        self._out.close()
        self._err.close()


def run_dvc(*arguments: str, cwd: Path, env: dict[str, str]) -> str:
    """``dvc`` with these arguments, which must succeed; returns what it and its stages printed."""
    with Forked("dvc", *arguments, cwd=cwd, env=env, preexec_fn=_fork_stages) as dvc:
        out, err = dvc.communicate(timeout=300)
    assert dvc.returncode == 0, f"dvc {arguments}:\n{out}\n{err}"
    return out


def _fork_stages() -> None:
    """DVC, in this process, runs the commands of dvc.yaml as forks and not through a shell."""
    from dvc.logger import setup
    from dvc.stage import run as runner
    from dvc.stage.exceptions import StageCmdFailedError

    for name in ("dvc", "dvc_objects", "dvc_data"):  # another test may have imported DVC, with
        logging.getLogger(name).handlers.clear()  # the standard output of that time
    setup()

    def run(_executable: str, command: str, *, cwd: str, env: dict[str, str], **_: object) -> None:
        python, option, module, *arguments = shlex.split(command)
        assert (python, option) == ("python", "-m")
        stage = multiprocessing.get_context("fork").Process(
            target=_become, args=([python, option, module, *arguments], Path(cwd), env)
        )
        stage.start()
        stage.join()
        if stage.exitcode:
            raise StageCmdFailedError(command, stage.exitcode)

    runner._run = run


def _run(
    command: list[str], cwd: Path, environment: dict[str, str],
    preexec_fn: Callable[[], None] | None, out: IO[bytes], err: IO[bytes],
) -> None:  # fmt: skip
    for number, file in ((1, out), (2, err)):
        os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    _become(command, cwd, environment, preexec_fn)


def _become(
    command: list[str], cwd: Path, environment: dict[str, str],
    preexec_fn: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """What a new interpreter would do; multiprocessing turns SystemExit into the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    _forget_fork_server()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # as TMPDIR says now
    os.chdir(cwd)
    if preexec_fn:
        preexec_fn()
    _, _, module, *arguments = command
    sys.argv, sys.orig_argv = [module, *arguments], command
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _forget_fork_server() -> None:
    """Workers shall be below this process and not below its parent."""
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None
