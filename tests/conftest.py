"""What is shared by all tests: one thread for torch, one tiny training set, the same examples of
the property tests in every run.
"""

import gc
import os
from collections.abc import Iterator
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import trimodal  # noqa: F401 - before torch (trimodal/core/runtime.py)

if TYPE_CHECKING:  # xdist's controller, which runs no test, loads this file too
    from model_fixtures import Tool
    from report_fixtures import Evaluated
    from training_fixtures import TinyData

gc.disable()  # until all is imported
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=50
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    import torch
    import torch._dynamo  # what each process's first optimizer imports: so forked ones have it

    gc.freeze()  # a million objects of modules and tests, which each collection would look at
    gc.enable()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# What takes seconds to import among what the tests' own modules need.
LOADED_ONCE = ["pytest", "training_fixtures", "trimodal.download.download"]


@pytest.fixture(scope="session", autouse=True)
def _workers_are_forked_from_a_loaded_process() -> Iterator[None]:
    """Python's fork server does not get this process's sys.path: without an environment variable it
    cannot preload a module of the tests, and each worker would import all that it needs itself.
    """
    ensure_running, here = ForkServer.ensure_running, os.getpid()

    def ensure_loaded(self: ForkServer) -> None:
        if os.getpid() != here:  # a stage in a forked process has a fork server of its own
            ensure_running(self)
            return
        tests = Path(__file__).parent
        path = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(path))
            patch.setattr(self, "_preload_modules", [*LOADED_ONCE, *self._preload_modules])
            ensure_running(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForkServer, "ensure_running", ensure_loaded)
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> "TinyData":
    from training_fixtures import make_tiny_data

    return make_tiny_data(tmp_path_factory.mktemp("tiny_data"))


@pytest.fixture(scope="session")
def tool(tiny_data: "TinyData", tmp_path_factory: pytest.TempPathFactory) -> "Tool":
    from model_fixtures import make_tool

    return make_tool(tiny_data, tmp_path_factory.mktemp("model") / "trimodal")


@pytest.fixture(scope="session")
def evaluated(tiny_data: "TinyData", tmp_path_factory: pytest.TempPathFactory) -> "Evaluated":
    from report_fixtures import make_evaluated

    return make_evaluated(tiny_data, tmp_path_factory.mktemp("evaluated"))
