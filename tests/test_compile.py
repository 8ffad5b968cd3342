"""torch.compile as ``train.compile``, and the GPU benchmark's script on a CPU."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainer_fixtures import CONFIG, LOSS, batches, network

from benchmarks import gpu
from trimodal.models import devices
from trimodal.models.devices import DeviceError, should_compile
from trimodal.training.distributed import SINGLE_PROCESS
from trimodal.training.trainer import Trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_auto_compiles_on_a_gpu_with_a_compiler_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "compile_problem", lambda _: "")
    assert should_compile("auto", GPU) == (True, "")
    assert should_compile("on", CPU) == (True, "")
    assert should_compile("auto", CPU) == should_compile("off", GPU) == (False, "")
    monkeypatch.setattr(devices, "compile_problem", lambda _: "there is no C compiler")
    assert should_compile("auto", GPU) == (False, "there is no C compiler")
    with pytest.raises(DeviceError, match=r"train\.compile is on, but there is no C compiler"):
        should_compile("on", CPU)


@pytest.mark.parametrize(
    ("missing", "problem"), [("gcc", "no C compiler"), ("g++", r"no C\+\+ compiler")]
)
def test_a_missing_compiler_is_named(
    missing: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = {"gcc": {"cc", "gcc", "clang"}, "g++": {"c++", "g++", "clang++"}}[missing]
    monkeypatch.setattr(shutil, "which", lambda name: None if name in lacks else f"/bin/{name}")
    with pytest.raises(DeviceError, match=problem):
        should_compile("on", CPU)


def test_the_trainer_compiles_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(devices, "compile_problem", lambda _: "")
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    Trainer(network(), replace(CONFIG, compile="on"), LOSS, SINGLE_PROCESS)
    assert compiled == ["VisionNet", "VisionNet", "TextNet"]
    compiled.clear()
    Trainer(network(), replace(CONFIG, compile="auto"), LOSS, SINGLE_PROCESS)
    assert compiled == []


@pytest.mark.nightly
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_steps_are_those_of_the_networks() -> None:
    plain, compiled = (
        Trainer(network(), replace(CONFIG, compile=choice), LOSS, SINGLE_PROCESS)  # type: ignore[arg-type]
        for choice in ("off", "on")
    )
    for _ in range(2):
        expected, found = (trainer.step(*batches(5)) for trainer in (plain, compiled))
        torch.testing.assert_close(found.image_audio, expected.image_audio, rtol=1e-3, atol=1e-4)


def test_the_gpu_script_measures_every_candidate_and_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _: None)
    monkeypatch.setattr(devices, "compile_problem", lambda _: "")
    scale = gpu.read_scale("demo", 2, tmp_path)
    small = replace(
        scale, model=replace(scale.model, width=2), augment=replace(scale.augment, crop_px=32)
    )
    table = gpu.measure("demo", small, CPU, steps=1, rounds=1)
    for candidate in gpu.CANDIDATES:
        assert f"| {candidate.name} | " in table
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu.BEGIN}\nold\n{gpu.END}\nafter\n")
    gpu.write_into_page(table, page)
    assert page.read_text() == f"before\n{gpu.BEGIN}\n\n{table}\n\n{gpu.END}\nafter\n"


def test_the_page_has_the_place_of_the_table() -> None:
    page = gpu.PAGE.read_text(encoding="utf-8")
    assert page.count(gpu.BEGIN) == page.count(gpu.END) == 1
