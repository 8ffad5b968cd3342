"""What is shared by all tests: one thread for torch, one tiny training set, the same examples of
the property tests in every run.
"""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from model_fixtures import Tool, make_tool
from report_fixtures import Evaluated, make_evaluated
from training_fixtures import TinyData, make_tiny_data

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    return make_tiny_data(tmp_path_factory.mktemp("tiny_data"))


@pytest.fixture(scope="session")
def tool(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return make_tool(tiny_data, tmp_path_factory.mktemp("model") / "trimodal.safetensors")


@pytest.fixture(scope="session")
def evaluated(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return make_evaluated(tiny_data, tmp_path_factory.mktemp("evaluated"))
