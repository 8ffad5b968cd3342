"""Index and export killed at random moments, and the index's files damaged at random (nightly)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from media_fixtures import write_steps
from model_fixtures import Tool, make_tool
from training_fixtures import TinyData

from trimodal.core.errors import UserError
from trimodal.core.files import read_json
from trimodal.search.api import VideoHit
from trimodal.search.export import FILES
from trimodal.search.store import MomentStore

pytestmark = pytest.mark.nightly
KILLS, DAMAGES = 5, 60


def run(tool: Tool, scratch: Path, *words: str, kill_after: float | None = None) -> str:
    """A command's output; it and its workers are killed after some seconds if these are given."""
    model = ["--model", str(tool.path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "trimodal", *words, *model],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )  # fmt: skip
    try:
        return process.communicate(timeout=kill_after)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "killed"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        write_steps(folder / f"{number}.mp4", seconds=4 + number % 3)
    return folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for sockets."""
    with TemporaryDirectory(prefix="k") as name:
        yield Path(name)


def test_killed_runs_leave_nothing_and_lose_nothing(
    tool: Tool, videos: Path, tmp_path: Path, short: Path
) -> None:
    rng = np.random.default_rng(4)
    scratch, store = short, tmp_path / "store"
    index = ("index", str(videos), "--store", str(store))
    started = time.monotonic()
    whole = run(tool, scratch, "index", str(videos), "--store", str(tmp_path / "undisturbed"))
    seconds = time.monotonic() - started
    outputs = [
        run(tool, scratch, *index, kill_after=rng.uniform(0.2, 1.0) * seconds) for _ in range(KILLS)
    ]
    assert "killed" in outputs
    last = run(tool, scratch, *index)
    assert last.split(";")[0] == whole.split(";")[0] == "39 moments"
    assert last.endswith("0 with problems\n")
    stores = [MomentStore.open(str(tmp_path / name)) for name in ("undisturbed", "store")]
    named = [[(v.path, v.moments, v.has_audio) for v in each.files()] for each in stores]
    assert named[0] == named[1]
    assert {path.name for path in scratch.iterdir()} <= {".ses"}  # onnxruntime's own


def test_a_killed_export_is_whole_or_none(tool: Tool, tiny_data: TinyData, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    tools = [tool, make_tool(tiny_data, tmp_path / "other.safetensors", seed=8)]
    scratch, folder = tmp_path / "scratch", tmp_path / "out" / "exported"
    scratch.mkdir()
    started = time.monotonic()
    run(tool, scratch, "export", "onnx", str(folder))
    seconds = time.monotonic() - started
    kills = 0
    for number in range(KILLS):
        output = run(
            tools[number % 2], scratch, "export", "onnx", str(folder),
            kill_after=rng.uniform(0.5, 1.1) * seconds,
        )  # fmt: skip
        kills += output == "killed"
        if folder.exists():
            assert {path.name for path in folder.iterdir()} == FILES
            model = read_json(folder / "encoders.json")["weights"]
            assert model in {each.model.fingerprint for each in tools}
    assert kills
    run(tool, scratch, "export", "onnx", str(folder))
    assert read_json(folder / "encoders.json")["weights"] == tool.model.fingerprint
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]
    assert {path.name for path in scratch.iterdir()} <= {".ses"}  # onnxruntime's own


def test_a_damaged_index_is_refused_or_answers_as_before(
    tool: Tool, videos: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    tool.model.index(videos, tmp_path / "whole", workers=1)

    def answer(store: Path) -> list[VideoHit]:
        return tool.model.search("a red dog", store=store, top=8, exact=True)

    expected, refusals = answer(tmp_path / "whole"), list[str]()
    for number in range(DAMAGES):
        store = Path(shutil.copytree(tmp_path / "whole", tmp_path / f"{number}"))
        files = sorted(path for path in store.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        if rng.random() < 0.3 or not content:
            file.unlink()
        elif rng.random() < 0.4:
            file.write_bytes(content[: rng.integers(len(content))])
        else:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            file.write_bytes(content)
        try:
            assert answer(store) == expected, file
        except UserError as error:
            refusals.append(str(error))
        shutil.rmtree(store)
    assert len(refusals) > DAMAGES // 2
    assert all("delete it and index again" in line and "\n" not in line for line in refusals)
