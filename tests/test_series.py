"""Series of experiments are checked as files before anything runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import SECTIONS
from repository import ROOT

from trimodal.core.config import ConfigError, parse_section, read_yaml
from trimodal.overlay import apply_overlay
from trimodal.report import series as module
from trimodal.report.series import Series, find_series, overrides, read_series
from trimodal.report.significance import PairingError

GOOD: dict[str, Any] = {
    "title": "text to video",
    "seeds": [2, 1],
    "metrics": ["R@1"],
    "scores": {"image": {"name": "image alone"}},
    "variants": {
        "one": {"params": {"loss.margin_mode": "fixed", "train.epochs": 3}},
        "two": {"name": "the second", "builds_on": "one", "params": {"train.epochs": 5}},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "params", "params")
    shutil.copytree(ROOT / "experiments", "experiments", ignore=shutil.ignore_patterns("*.py"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, name)
    return tmp_path


def read(content: Any, name: str = "mine.yaml") -> Series:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_series(Path(name))


@pytest.mark.usefixtures("folder")
def test_variants_have_all_their_values() -> None:
    series = read(GOOD)
    assert series.seeds == [1, 2]
    assert series.result_path == Path("metrics/mine.json")
    assert series.variants["two"].params == {"loss.margin_mode": "fixed", "train.epochs": 5}
    assert series.variants["two"].against == "one"
    assert series.variants["one"].name == "one"
    assert read_series(Path("mine.yaml"), [7]).seeds == [7]


@pytest.mark.usefixtures("folder")
def test_a_recipe_is_an_overlays_values() -> None:
    series = read(GOOD | {"variants": {"a": {"recipe": "ours", "params": {"loss.margin": 0.1}}}})
    recipe = yaml.safe_load((ROOT / "params/recipes/ours.yaml").read_text())
    expected = {
        f"{s}.{key}": value for s, values in recipe.items() for key, value in values.items()
    }
    assert series.variants["a"].params == expected | {"loss.margin": 0.1}


def variants(**others: Any) -> dict[str, Any]:
    return GOOD | {"variants": GOOD["variants"] | others}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- 1", "mine.yaml: not a mapping of keys to values"),
        ("a: [", "mine.yaml: not valid YAML"),
        (GOOD | {"pace": 1}, "mine.yaml.pace: unknown key (known: folds, metrics, result, scores"),
        (GOOD | {"metrics": ["R@2"]}, "mine.yaml.metrics.0: Input should be 'R@1', 'R@5'"),
        (GOOD | {"seeds": []}, "mine.yaml: seeds: empty, or one of them is given twice"),
        (GOOD | {"seeds": [1, 1]}, "mine.yaml: seeds: empty, or one of them is given twice"),
        (GOOD | {"seeds": [True]}, "mine.yaml.seeds.0: Input should be a valid integer"),
        (GOOD | {"variants": {}}, "mine.yaml: variants: empty"),
        (GOOD | {"variants": {"a b": {}}}, "mine.yaml: 'a b': a name has only letters, digits"),
        (GOOD | {"result": "../x"}, "mine.yaml: '../x': a name has only letters"),
        (GOOD | {"result": "retrieval"}, "mine.yaml: metrics/retrieval.json is a stage's: set"),
        (GOOD | {"test_set": "mine"}, "evaluate.sets has no 'mine'"),
        (
            GOOD | {"scores": {"image": {"name": "i", "against": "sound"}}},
            "mine.yaml: scores.image.against: there is no 'sound'",
        ),
        (variants(x={"against": "y"}), "mine.yaml: variants.x.against: there is no 'y'"),
        (
            variants(x={"builds_on": "y"}, y={"builds_on": "x"}),
            "mine.yaml: variants.y.builds_on: 'x' leads back to itself",
        ),
        (variants(x={"against": "x"}), "mine.yaml: variants.x.against: 'x' leads back to"),
        (variants(x={"seed": 1}), "mine.yaml.variants.x.seed: unknown key"),
        (variants(x={"recipe": "../real"}), "variants.x.recipe: no params/recipes/../real.yaml"),
        (variants(x={"recipe": "best"}), "variants.x.recipe: no params/recipes/best.yaml (known: "),
        *(
            (variants(x={"params": {key: value}}), f"mine.yaml: variants.x.params.{key}: {told}")
            for key, value, told in (
                ("loss.margins", 1, "params.yaml has no key 'loss.margins'"),
                ("loss.kind.name", 1, "params.yaml has no key 'loss.kind.name'"),
                ("loss", "x", "a section of params.yaml; name the keys in it"),
                ("train.seed", 3, "the series' seeds are its own key"),
                ("machine.workers", 3, "changes no result"),
                ("loss.margin", "0.1", "'0.1' is a text; params.yaml has a number"),
                ("augment.flip", 1, "1 is a number; params.yaml has a switch"),
                ("captions.coco", "a\nb", "'a\\nb': DVC takes no \", \\ or $ and no line end"),
                ("captions.coco", "${x}", "'${x}': DVC takes no"),
            )
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_wrong_series_is_named_by_file_and_key(content: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["params.yaml", "params/recipes/ours.yaml"])
@pytest.mark.usefixtures("folder")
def test_params_and_recipes_without_sections_are_named(name: str) -> None:
    Path(name).write_text("- 1\n")
    with pytest.raises(ConfigError, match=f"^{name}: not a mapping of sections to values"):
        read(GOOD | {"variants": {"a": {"recipe": "ours"}}})


@pytest.mark.usefixtures("folder")
def test_seeds_that_are_none_are_refused() -> None:
    with pytest.raises(PairingError, match="seed -1: not from 0"):
        read(GOOD | {"seeds": [-1]})


def test_series_are_found_by_name(folder: Path) -> None:
    assert find_series("table1") == Path("experiments/table1.yaml")
    assert find_series("experiments/choices.yaml") == Path("experiments/choices.yaml")
    with pytest.raises(
        ConfigError, match=r"no such series: 'best' .*: choices, clips, flickr8k, table1"
    ):
        find_series("best")
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["table1", "choices", "flickr8k", "clips"])
def test_every_variant_of_the_committed_series_is_valid(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_check_test_set", lambda *_: None)  # an overlay's
    for overlay in {"clips": ["flickr8k", "more/clips"]}.get(name, []):
        apply_overlay(folder / "params.yaml", folder / f"params/{overlay}.yaml")
    committed = yaml.safe_load((folder / "params.yaml").read_text())
    for variant in read_series(folder / f"experiments/{name}.yaml").variants.values():
        for section, cls in SECTIONS.items():
            changes = {
                key.partition(".")[2]: value
                for key, value in variant.params.items()
                if key.startswith(f"{section}.")
            }
            parse_section(committed[section] | changes, section, cls)


def test_dvc_reads_the_values_that_are_meant(tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    values = {"a.text": "x, [y] {z}=1 'é'", "a.on_off": True, "a.none": None, "a.list": [1, "p q"],
              "a.small": 1e-05, "a.number": "12"}  # fmt: skip
    path = tmp_path / "params.yaml"
    before = {key.partition(".")[2]: 0 for key in values}
    path.write_text(json.dumps({"a": before, "train": {"seed": 1}}))
    apply_overrides(path, overrides(values, 7))
    after = read_yaml(path)
    assert after["train"] == {"seed": 7}
    assert after["a"] == {key.partition(".")[2]: value for key, value in values.items()}
