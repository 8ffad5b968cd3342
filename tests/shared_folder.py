"""What is expensive to build is built once a test run, by whichever process needs it first."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def built_once(
    factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]
) -> Iterator[Path]:
    """The folder ``name``, which ``build`` fills the first time. pytest-xdist's processes share it;
    none of them enters the context while another one is in it.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker's own folder lies in the run's
    folder, built = root / name, root / f"{name}.built"
    with FileLock(root / f"{name}.lock"):
        if not built.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            build(folder)
            built.touch()
        yield folder
