"""The C libraries' settings are made before PyTorch is loaded, wherever a process begins."""

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from trimodal import cli
from trimodal.core.runtime import SPIN_COUNT, share_cores, uncollected
from trimodal.search.api import Trimodal

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Those that load PyTorch themselves; download, captions and report leave it to workers, or alone.
COMMANDS = (
    *(
        f"-m {STAGES[stage].get('do', STAGES[stage])['cmd'].split('-m ')[1]}"
        for stage in ("extract", "train", "evaluate")
    ),
    "-m trimodal search bark --model {here}/model --store {here}/store",
    "-m trimodal index {here}/videos --model {here}/model",
    "-m trimodal serve --model {here}/model --store {here}/store",
    "-m trimodal export onnx folder --model {here}/model",
    "-m trimodal export pairs folder",
    "-m benchmarks.margin_loss",
    "-m benchmarks.training_step",
    "-c 'import trimodal.features.stage'",
    "-c 'from trimodal import Trimodal'",
    "-c 'import trimodal.losses.ranking'",
    "conftest",
    # What a worker process unpickles first.
    "-c 'import trimodal.parallel.pool, torch'",
)
# Runs each command in a forked process, which ends where it imports PyTorch.
RUN_UNTIL_TORCH = """
import ctypes, os, runpy, shlex, sys
import av, PIL.Image, pyarrow.parquet, pydantic, regex, tqdm, yaml  # fast: without PyTorch

class AtTorch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            getenv = ctypes.CDLL(None).getenv
            getenv.restype = ctypes.c_char_p
            print((getenv(b"GOMP_SPINCOUNT") or b"unset").decode(), flush=True)
            os._exit(0)

assert not {"trimodal", "torch"} & set(sys.modules)
sys.meta_path.insert(0, AtTorch())
for command in sys.stdin.read().splitlines():
    print(command, end=" -> ", flush=True)
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    sys.argv = shlex.split(command)[1:]
    try:
        if command.startswith("-m"):
            runpy.run_module(sys.argv[0], run_name="__main__")
        elif command.startswith("-c"):
            exec(sys.argv[0])
        else:
            sys.path.insert(0, "tests")
            import conftest, torch
    finally:
        print("has not imported PyTorch", flush=True)
        os._exit(1)
"""
# Prints how much of 64 MB the process keeps when they are freed.
FREE = """
import re, sys
import trimodal
def resident_kb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = resident_kb()
block = b"x" * (64 << 20)
del block
print((resident_kb() - before) >> 10)
"""


def pretend(here: Path) -> None:
    """As far as commands look before they import PyTorch: a model, an index, a video."""
    for name in ("model/config.json", "store/about.lance/x", "videos/a.mp4"):
        (here / name).parent.mkdir(parents=True)
        (here / name).touch()


def python(code: str, environment: Mapping[str, str], commands: str = "") -> str:
    """What the code prints in a fresh Python in this repository's root, without these settings but
    with those of ``environment``.
    """
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GOMP_", "OMP_", "MALLOC_", "GLIBC_TUNABLES"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code], input=commands, cwd=ROOT, env=clean | dict(environment),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    ("environment", "expected", "commands"),
    [({}, str(SPIN_COUNT), COMMANDS), ({"OMP_WAIT_POLICY": "ACTIVE"}, "unset", COMMANDS[-3:])],
)
def test_every_command_has_the_spin_count_before_torch_is_loaded(
    environment: dict[str, str], expected: str, commands: Sequence[str], tmp_path: Path
) -> None:
    pretend(tmp_path)
    commands = [command.replace("{here}", str(tmp_path)) for command in commands]
    printed = python(RUN_UNTIL_TORCH, environment, "\n".join(commands))
    assert printed.splitlines() == [f"{command} -> {expected}" for command in commands]


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {}])
def test_what_the_user_has_set_stays(own: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    share_cores()
    found = {name: os.environ[name] for name in names if name in os.environ}
    assert found == (own or {"GOMP_SPINCOUNT": str(SPIN_COUNT)})


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("environment", "kept_mb"),
    [
        ({}, 64),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, 0),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, 0),
        ({"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=1000"}, 64),
    ],
)
def test_freed_memory_is_kept_unless_the_user_has_set_malloc(
    environment: dict[str, str], kept_mb: int
) -> None:
    assert abs(int(python(FREE, environment)) - kept_mb) < 8


def test_the_collector_is_off_within_the_block_and_as_before_after_it() -> None:
    frozen = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        assert gc.get_freeze_count() == frozen
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_search_loads_and_answers_without_the_collector(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on: list[bool] = []
    pretend(tmp_path)
    places = ["--model", str(tmp_path / "model"), "--store", str(tmp_path / "store")]

    class Model:
        def search(self, *_: object, **__: object) -> list[object]:
            on.append(gc.isenabled())
            return []

    monkeypatch.setattr(Trimodal, "from_pretrained", lambda *_: Model())
    monkeypatch.setattr("sys.argv", ["trimodal", "search", "bark", *places])
    cli.main()
    assert on == [False]
    assert gc.isenabled()
