"""dvc.yaml as a drawing that can be trusted: deps complete, imports one way, commands true."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# From records and timing up to training and search: a module imports only from what stands before
# it here.
ORDER = [
    "records",
    "timing",
    "config",
    "coverage",
    "places",
    "files",
    "archives",
    "progress",
    "workers",
    "ray_engine",
    "engine",
    "journal",
    "devices",
    "distributed",
    "launch",
    "batch_norm",
    "tables",
    "retrieval",
    "geometry",
    "losses",
    "contrastive",
    "mel",
    "spectrogram",
    "images",
    "pictures",
    "shards",
    "media",
    "frames",
    "sound",
    "manifest",
    "text",
    "backbones",
    "sources.rows",
    "sources.coco",
    "sources.flickr30k",
    "sources.karpathy",
    "sources.msrvtt",
    "sources.vggsound",
    "sources.word2vec",
    "demo.oracle",
    "demo.scenes",
    "demo.sprites",
    "demo.backdrops",
    "demo.sound",
    "demo.captions",
    "demo.draw",
    "demo.world",
    "demo.render",
    "demo.annotations",
    "av_index",
    "leaks",
    "model",
    "acquire.inspection",
    "acquire.rendering",
    "acquire.collection",
    "acquire.youtube",
    "acquire.harvest",
    "download",
    "splits",
    "extract",
    "image_sources",
    "image_shards",
    "caption_table",
    "captions",
    "loaders",
    "batches",
    "checkpoint",
    "embedding",
    "hearing",
    "encoder",
    "store",
    "moments",
    "index",
    "search",
    "server",
    "export",
    "audit",
    "grad_cache",
    "trainer",
    "resume",
    "training",
    "tested",
    "figures",
    "report_page",
    "model_card",
    "significance",
    "comparison_table",
    "measures",
    "evaluation",
    "report",
    "comparison",
    "experiments",
    "scale",
    "estimate",
    "doctor",
    "cli",
]


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


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_import_closure(stage: str) -> None:
    deps = STAGES[stage]["deps"]
    files = {dep for dep in deps if dep.endswith(".py")}
    folders = [f"{dep}/" for dep in deps if dep.startswith("trimodal/") and (ROOT / dep).is_dir()]
    in_folders = {name for name in closure(f"pipeline.{stage}") if name.startswith(tuple(folders))}
    assert files == closure(f"pipeline.{stage}") - in_folders
    assert bool(folders) == bool(in_folders)


@pytest.mark.parametrize("stage", STAGES)
def test_package_data_that_a_stage_reads_is_a_dep(stage: str) -> None:
    reads_stop_words = "trimodal/text.py" in closure(f"pipeline.{stage}")
    assert ("trimodal/stopwords.txt" in STAGES[stage]["deps"]) == reads_stop_words


def test_packages_hold_only_docstrings() -> None:
    for path in [*ROOT.glob("trimodal/**/__init__.py"), ROOT / "pipeline" / "__init__.py"]:
        assert len(ast.parse(path.read_text()).body) <= 1, path


def test_every_module_has_its_place_in_the_order() -> None:
    modules = {
        path.relative_to(ROOT / "trimodal").with_suffix("").as_posix().replace("/", ".")
        for path in ROOT.glob("trimodal/**/*.py")
        if path.name != "__init__.py"
    }
    assert modules == set(ORDER)


def test_imports_point_one_way() -> None:
    rank = {f"trimodal.{name}": place for place, name in enumerate(ORDER)}
    for module, place in rank.items():
        for imported in imports_of(module_path(module)):
            assert rank[imported] < place, f"{module} imports {imported}"


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

    from trimodal.mel import MelConfig

    declared = {p.removeprefix("mel.") for p in STAGES["extract"]["params"] if "mel." in p}
    assert {field.name for field in fields(MelConfig)} - declared == {"decibel", "window_seconds"}
