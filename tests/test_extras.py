"""A base install embeds sentences, pictures and sounds; what needs an extra says how to get it."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dependencies import ROOT, asked_for, plain
from model_fixtures import Tool
from test_dependencies import LISTED
from training_fixtures import RATE_HZ, TinyData

from trimodal.core import extras
from trimodal.core.extras import MODULES, MissingExtraError, imports_of, require
from trimodal.media.audio_windows import Waveform

WITHIN = ("base", "dev")  # what pytest itself needs is of dev
# Rooms of the stages: they ask for all of `pipeline` when they are imported, evaluation through
# training, since its adapter for MTEB has an extra of its own.
GATED = ("download", "preprocess", "training", "report", "evaluation")
# Imported by trimodal.search.store, after LanceDB; the doctor imports rooms of stages.
AFTER_GUARDED = ("search/graph.py", "search/nearest.py", "doctor.py")
DISTRIBUTIONS = packages_distributions()


def modules_of_extras() -> set[str]:
    return {
        module
        for module, names in DISTRIBUTIONS.items()
        if all(plain(name) in LISTED and LISTED[plain(name)][2] not in WITHIN for name in names)
    }


@contextmanager
def base_install(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if no package of an extra were installed; trimodal's modules are imported again."""
    absent, find = modules_of_extras(), PathFinder.find_spec
    assert {"dvc", "lancedb", "sklearn", "scipy", "matplotlib", "yt_dlp", "librosa"} <= absent

    def find_installed(name: str, *arguments: Any) -> ModuleSpec | None:
        return None if name in absent else find(name, *arguments)

    def concerned(name: str) -> bool:
        return name.partition(".")[0] in absent | {"trimodal"}

    before = {name: module for name, module in sys.modules.items() if concerned(name)}
    for name in before:
        del sys.modules[name]
    patch.setattr(PathFinder, "find_spec", find_installed)
    # Checks of shapes have the classes of the modules that were imported first.
    unhooked = [finder for finder in sys.meta_path if "jaxtyping" not in type(finder).__module__]
    assert len(unhooked) < len(sys.meta_path)
    patch.setattr(sys, "meta_path", unhooked)
    try:
        yield
    finally:
        patch.undo()
        for name in filter(concerned, list(sys.modules)):
            del sys.modules[name]
        sys.modules.update(before)


def test_a_base_install_embeds_text_images_and_sounds(
    tool: Tool, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tiny_data.av_dir.parent / "clips" / "0.mp4"
    picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    samples = np.sin(np.arange(4 * RATE_HZ) * 0.3)
    rate_hz = tiny_data.mel.sample_rate_hz
    with base_install(monkeypatch):
        import trimodal
        from trimodal.media.audio_windows import Waveform as FreshWaveform

        model = trimodal.Trimodal.from_pretrained(tool.path, device="cpu")
        assert not isinstance(model, type(tool.model))
        text = model.embed_text(["a grey bird"])
        images = model.embed_images([picture])
        sounds = model.embed_audio([clip, FreshWaveform(samples, rate_hz)])
    np.testing.assert_array_equal(text, tool.model.embed_text(["a grey bird"]))
    np.testing.assert_array_equal(images, tool.model.embed_images([picture]))
    expected = tool.model.embed_audio([clip, Waveform(samples, rate_hz)])
    np.testing.assert_array_equal(sounds, expected)


# What needs an extra: the extra, and the code that asks for it. `model` is a loaded one.
NEEDS = {
    "model.index(folder)": "search",
    "model.search('a grey bird')": "search",
    "importlib.import_module('trimodal.search.server')": "search",
    "importlib.import_module('trimodal.search.guard')": "search",
    "importlib.import_module('trimodal.overlay')": "pipeline",
    "importlib.import_module('trimodal.doctor')": "pipeline",
    "importlib.import_module('trimodal.report.experiments')": "pipeline",
    "importlib.import_module('trimodal.training.train')": "pipeline",
    "importlib.import_module('trimodal.evaluation.evaluate')": "pipeline",
    "importlib.import_module('trimodal.evaluation.mteb')": "mteb",
    "importlib.import_module('trimodal.search.export').export_encoders(model, folder)": "onnx",
    "importlib.import_module('trimodal.core.storage').storage_path('s3://bucket/a')": "s3",
    "backbones.build_image_backbone('resnet18', 64, 'imagenet')": "imagenet",
    "backbones.build_image_backbone('efficientnet_lite0', 64, 'imagenet')": "imagenet",
    "backbones.build_image_backbone('timm:resnet18', 64, 'none')": "towers",
    "backbones.build_image_backbone('open_clip:RN50/openai', 64, 'none')": "towers",
    "model.embed_audio([audio.Waveform(np.zeros(9000), 44_100)])": "librosa",
}


def test_what_needs_an_extra_says_how_to_install_it(
    tool: Tool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    said = {}
    with base_install(monkeypatch):
        names: dict[str, Any] = {"importlib": importlib, "np": np, "folder": tmp_path / "videos"}
        names["backbones"] = importlib.import_module("trimodal.models.backbones")
        names["audio"] = importlib.import_module("trimodal.media.audio_windows")
        names["model"] = importlib.import_module("trimodal").Trimodal.from_pretrained(
            tool.path, device="cpu"
        )
        user_error = importlib.import_module("trimodal.core.errors").UserError
        for code in NEEDS:
            try:
                eval(code, names)  # noqa: S307 - the lines above
            except user_error as error:
                said[code] = str(error)
    for code, extra in NEEDS.items():
        assert re.fullmatch(rf".+ pip install 'trimodal\[{extra}\]'", said.get(code, "nothing")), (
            code
        )


def test_modules_are_those_of_the_packages_of_their_extra() -> None:
    """No package is asked for in vain, and none is forgotten."""
    asked = asked_for()
    for extra, modules in MODULES.items():
        brought = {plain(name) for module in modules for name in DISTRIBUTIONS[module]}
        named = {plain(requirement.name) for requirement in asked[extra]}
        assert named <= brought, extra
        assert all(GROUP_OF[name] not in WITHIN for name in brought), extra


GROUP_OF = {name: group for name, (_, _, group) in LISTED.items()}


def unguarded(path: Path) -> Iterator[str]:
    """Imports of an extra's packages in a module that are not within ``imports_of`` of it."""
    extras_of = {
        module: {extra for extra in MODULES if module in MODULES[extra]}
        for modules in MODULES.values() for module in modules
    }  # fmt: skip

    def walk(node: ast.AST, within: str) -> Iterator[str]:
        if isinstance(node, ast.With) and ast.unparse(node.items[0]).startswith("imports_of("):
            within = ast.literal_eval(node.items[0].context_expr.args[0])  # type: ignore[attr-defined]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        for name in imported:
            wanted = extras_of.get(name.partition(".")[0])
            if wanted and within not in wanted:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}"  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            yield from walk(child, within)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "")


def test_imports_of_extras_are_guarded_where_no_room_asks_for_them() -> None:
    gated = {ROOT / "trimodal" / name for name in (*GATED, *AFTER_GUARDED)}
    paths = [p for p in (ROOT / "trimodal").rglob("*.py") if not gated & {p, *p.parents}]
    guarded = [p for p in paths if "imports_of(" in p.read_text(encoding="utf-8")]
    assert len(guarded) > 8
    assert [line for path in paths for line in unguarded(path)] == []
    for room in set(GATED) - {"evaluation"}:
        assert 'require("pipeline")' in (ROOT / "trimodal" / room / "__init__.py").read_text()


def test_what_has_no_release_for_this_python_is_said_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        extras, "missing_packages", lambda *names: [n for n in names if n == "gensim"]
    )
    with pytest.raises(MissingExtraError, match=r"gensim is not installed: pip install"):
        require("pipeline")
    monkeypatch.setattr(extras, "_NO_RELEASE_FROM", {"gensim": (3, 11)})
    require("pipeline")
    monkeypatch.setitem(sys.modules, "gensim", None)
    with (
        pytest.raises(MissingExtraError, match=r"^gensim has no release for Python 3\.11: use an"),
        imports_of("pipeline"),
    ):
        import gensim  # noqa: F401


def test_another_missing_module_is_a_bug_and_stays_one() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, imports_of("search"):
        import no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_a_stage_without_its_extra_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with base_install(monkeypatch):
        command = ["extract", "--params", "params.yaml", "--clips", "clips", "--out", "av"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            importlib.import_module("pipeline.extract").main()
    told = f"{end.value.code} {capfd.readouterr().err}"
    assert "is not installed: pip install 'trimodal[pipeline]'" in told
    assert "Traceback" not in told
