"""dvc.yaml as a drawing that can be trusted: deps complete, imports one way, commands true."""

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from trimodal.evaluation.config import EvaluateConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import WindowConfig

ROOT = Path(__file__).parents[1]
# A stage of `foreach` as what it does for each item.
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = {name: spec.get("do", spec) for name, spec in DVC["stages"].items()}


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
    """Of ``check``, which reads the sections of nearly all rooms, it is the whole library."""
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("trimodal", "pipeline/"))}
    rooms = {"trimodal"} if stage == "check" else rooms_of(closure(f"pipeline.{stage}"))
    assert deps == {f"pipeline/{stage}.py"} | rooms


def outputs(stage: str) -> set[str]:
    spec = STAGES[stage]
    leaves = [*spec.get("outs", []), *spec.get("metrics", []), *spec.get("plots", [])]
    paths = {out if isinstance(out, str) else next(iter(out)) for out in leaves}
    return {path.removesuffix("/${key}") for path in paths}


def upstream(stage: str) -> set[str]:
    """The stages whose outputs a stage depends on, directly or not."""
    found: set[str] = set()
    for other in STAGES:
        if any(
            Path(dep).is_relative_to(out) for dep in STAGES[stage]["deps"] for out in outputs(other)
        ):
            found |= {other} | upstream(other)
    return found


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("check", "links")])
def test_sources_are_linked_before_any_stage_reads_them(stage: str) -> None:
    assert "links" in upstream(stage)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "check"])
def test_params_are_checked_before_dvc_removes_outputs_of_any_stage(stage: str) -> None:
    """And are the whole file: so that a mistake in any section counts, machine's too."""
    assert "check" in upstream(stage)
    assert "params.yaml" in STAGES["check"]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_is_for(stage: str) -> None:
    assert len(STAGES[stage]["desc"]) > 30


def test_dvcs_run_cache_keeps_the_model() -> None:
    """Experiments that were run before are not trained again: DVC keeps no run with an output that
    persists, nor with one outside of its cache that is no metric or plot.
    """
    assert STAGES["train"]["outs"] == ["models/trimodal"]


def test_plots_and_artifacts_name_outputs() -> None:
    """Curves of each epoch are among the folder of DVCLive; titles and axes are in words."""
    outs = {out for stage in STAGES for out in outputs(stage)}
    assert {of["path"] for of in DVC["artifacts"].values()} <= outs
    for plot in DVC["plots"]:
        (props,) = plot.values()
        for path in props["y"]:
            assert any(Path(path).is_relative_to(out) for out in outs), path
            assert (ROOT / path).is_file()
        assert props.keys() >= {"title", "x_label", "y_label"}


def test_metrics_that_dvc_compares_are_two_files() -> None:
    metrics = [path for spec in STAGES.values() for out in spec.get("metrics", []) for path in out]
    assert metrics == ["metrics/train/metrics.json", "metrics/retrieval.json"]


def test_packages_hold_only_docstrings() -> None:
    """And what they need to be installed; except data's, whose functions are for other programs,
    and cli's, where the command is.
    """
    asks = ["from trimodal.core.extras import require", "require('pipeline')"]
    packages = {*ROOT.glob("trimodal/*/**/__init__.py"), ROOT / "pipeline" / "__init__.py"}
    others = {ROOT / f"trimodal/{name}/__init__.py" for name in ("cli", "data")}
    for path in packages - others:
        code = [ast.unparse(statement) for statement in ast.parse(path.read_text()).body[1:]]
        assert code in ([], asks), path


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
        assert named, f"{stage}: {path} is not in its command"


def test_entry_points_hold_no_logic() -> None:
    for stage in STAGES:
        lines = (ROOT / "pipeline" / f"{stage}.py").read_text().splitlines()
        assert len(lines) <= 60, stage


def test_dvc_yaml_is_short_enough_to_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 230


SECTIONS = set(yaml.safe_load((ROOT / "params.yaml").read_text()))


@pytest.mark.parametrize("stage", STAGES)
def test_what_changes_no_result_is_tracked_by_no_stage(stage: str) -> None:
    tracked = {key.split(".")[0] for key in STAGES[stage].get("params", [])}
    assert tracked <= SECTIONS - {"machine"}


@pytest.mark.parametrize("section", sorted(SECTIONS - {"machine"}))
def test_every_other_section_is_tracked_whole(section: str) -> None:
    assert [stage for stage, spec in STAGES.items() if section in spec.get("params", [])]


def test_evaluating_a_set_tracks_that_set_and_all_that_the_sets_share() -> None:
    shared = {field.name for field in fields(EvaluateConfig)} - {"sets"}
    assert set(STAGES["evaluate"]["params"]) == {
        "leaks", "evaluate.sets.${key}", *(f"evaluate.{name}" for name in shared),
    }  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_tracks_the_sections_that_it_reads(stage: str) -> None:
    """But ``machine``; the report reads single keys, for the model card."""
    tree = ast.parse((ROOT / "pipeline" / f"{stage}.py").read_text())
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and "section" in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
        and isinstance(node.args[0], ast.Constant)
    }
    tracked = {key for key in STAGES[stage].get("params", []) if "." not in key}
    keywise = {"evaluate"} if stage == "evaluate" else set()
    assert tracked == read - {"machine"} - keywise
    assert ("machine" in read) == (stage not in ("check", "links", "metrics", "report"))


@pytest.mark.parametrize(
    ("section", "stages"),
    [
        ("loss", {"train"}),
        ("evaluate", {"metrics"}),
        ("window", {"train"}),
        ("mel", {"extract", "train"}),
    ],
)
def test_a_change_reaches_no_stage_that_it_does_not_concern(section: str, stages: set[str]) -> None:
    """A window is cut when a sample is read, so that a longer one needs no new shards."""
    reads = {stage for stage, spec in STAGES.items() if section in spec.get("params", [])}
    assert reads == stages


def test_what_shapes_a_window_is_no_part_of_what_is_stored() -> None:
    mel, window = ({field.name for field in fields(cls)} for cls in (MelConfig, WindowConfig))
    assert window == {"seconds", "decibel"}
    assert not mel & window
