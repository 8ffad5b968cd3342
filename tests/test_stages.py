"""dvc.yaml as a drawing that can be trusted: deps complete, imports one way, commands true."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def module_path(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def imports_of(path: Path) -> set[str]:
    """Names of the project's modules that a file imports, lazy imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name for name in names if name.split(".")[0] in ("trimodal", "pipeline")}
    return {name for name in found if module_path(name).is_file()}


def closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += imports_of(module_path(current))
    return {module_path(name).relative_to(ROOT).as_posix() for name in seen}


def rooms_of(modules: set[str]) -> set[str]:
    return {"/".join(name.split("/")[:2]) for name in modules if name.startswith("trimodal/")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_rooms_of_the_import_closure(stage: str) -> None:
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("trimodal/", "pipeline/"))}
    assert deps == {f"pipeline/{stage}.py"} | rooms_of(closure(f"pipeline.{stage}"))


def test_packages_hold_only_docstrings() -> None:
    for path in [*ROOT.glob("trimodal/*/**/__init__.py"), ROOT / "pipeline" / "__init__.py"]:
        assert len(ast.parse(path.read_text()).body) <= 1, path


def test_rooms_import_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_command_names_what_the_stage_reads_and_leaves(stage: str) -> None:
    spec = STAGES[stage]
    leaves = [*spec.get("outs", []), *spec.get("metrics", []), *spec.get("plots", [])]
    for out in leaves:
        path = out if isinstance(out, str) else next(iter(out))
        named = any(path == word or path.startswith(f"{word}/") for word in spec["cmd"].split())
        beside = path.replace(".json", ".safetensors") in spec["cmd"].split()
        assert named or beside, f"{stage}: {path} is not in its command"


def test_entry_points_hold_no_logic() -> None:
    for stage in STAGES:
        lines = (ROOT / "pipeline" / f"{stage}.py").read_text().splitlines()
        assert len(lines) <= 60, stage


NO_DEPENDENCIES = {
    "download": {"workers"},
    "extract": {"timeout_seconds", "workers"},
    "captions": {"workers"},
    "train": {"checkpoint_every", "loader_workers", "device", "devices"},
    "evaluate": {"device", "devices"},
}


@pytest.mark.parametrize("stage", NO_DEPENDENCIES)
def test_all_params_of_a_stage_count_but_those_that_change_no_result(stage: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    declared = {p.split(".")[1] for p in STAGES[stage]["params"] if p.startswith(f"{stage}.")}
    assert set(params[stage]) - declared == NO_DEPENDENCIES[stage]


def test_only_the_decibel_and_the_window_do_not_make_new_shards() -> None:
    from dataclasses import fields

    from trimodal.media.mel import MelConfig

    declared = {p.removeprefix("mel.") for p in STAGES["extract"]["params"] if "mel." in p}
    assert {field.name for field in fields(MelConfig)} - declared == {"decibel", "window_seconds"}
