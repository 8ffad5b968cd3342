"""Overlays: every key exists, comments are kept, the result loads."""

import shutil
from pathlib import Path

import pytest
import yaml
from configs import SECTIONS

from trimodal.core.config import ConfigError, load_section
from trimodal.overlay import apply_overlay

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "params").glob("*.yaml")])
def test_an_overlay_changes_its_values_and_nothing_else(params: Path, name: str) -> None:
    before = yaml.safe_load(params.read_text())
    overlay = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
    changed = apply_overlay(params, ROOT / "params" / f"{name}.yaml")
    after = yaml.safe_load(params.read_text())
    for section, values in before.items():
        assert after[section] == values | overlay.get(section, {})
    assert all(old != new for old, new in changed.values())


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "params").glob("*.yaml")])
def test_params_with_an_overlay_are_valid(params: Path, name: str) -> None:
    apply_overlay(params, ROOT / "params" / f"{name}.yaml")
    for section, cls in SECTIONS.items():
        load_section(params, section, cls)


def test_every_overlay_sets_the_same_keys_so_that_none_leaves_a_trace_of_another() -> None:
    overlays = [yaml.safe_load(path.read_text()) for path in (ROOT / "params").glob("*.yaml")]
    keys = [{(s, key) for s, values in o.items() for key in values} for o in overlays]
    assert all(one == keys[0] for one in keys)


def test_comments_and_order_are_kept(params: Path) -> None:
    before = params.read_text()
    apply_overlay(params, ROOT / "params" / "paper.yaml")
    after = params.read_text()
    assert [line.split("#")[1] for line in before.splitlines() if "#" in line] == [
        line.split("#")[1] for line in after.splitlines() if "#" in line
    ]
    assert list(yaml.safe_load(after)) == list(yaml.safe_load(before))


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ("nowhere: {a: 1}", "nowhere"),
        ("train: {pace: 1}", "train.pace"),
        ("", "not a mapping"),
        ("train: [", "not valid YAML"),
    ],
)
def test_an_unknown_key_is_an_error_and_changes_nothing(
    params: Path, tmp_path: Path, overlay: str, named: str
) -> None:
    before = params.read_text()
    path = tmp_path / "overlay.yaml"
    path.write_text(overlay)
    with pytest.raises(ConfigError, match=named):
        apply_overlay(params, path)
    assert params.read_text() == before


def test_an_unknown_overlay_is_an_error_that_lists_the_known(params: Path) -> None:
    with pytest.raises(ConfigError, match="known: paper, real"):
        apply_overlay(params, ROOT / "params" / "huge.yaml")
