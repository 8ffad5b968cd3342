"""Overlays: every key exists, comments are kept, the result loads."""

import shutil
import stat
from pathlib import Path

import pytest
import yaml
from configs import SECTIONS
from ruamel.yaml import YAML

from trimodal.cli import main
from trimodal.core.config import ConfigError, load_section
from trimodal.overlay import apply_overlay, find_overlay, list_overlays

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted(
    path.relative_to(ROOT / "params").as_posix() for path in (ROOT / "params").rglob("*.yaml")
)
CASE = ROOT.parent / "shared" / "cases" / "overlay_on_plain_yaml" / "params.yaml"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_its_values_and_nothing_else(params: Path, name: str) -> None:
    before = yaml.safe_load(params.read_text())
    overlay = yaml.safe_load((ROOT / "params" / name).read_text())
    changed = apply_overlay(params, ROOT / "params" / name)
    after = yaml.safe_load(params.read_text())
    for section, values in before.items():
        assert after[section] == values | overlay.get(section, {})
    assert all(old != new for old, new in changed.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_params_with_an_overlay_are_valid(params: Path, name: str) -> None:
    apply_overlay(params, ROOT / "params" / name)
    for section, cls in SECTIONS.items():
        load_section(params, section, cls)


@pytest.mark.parametrize("folder", ["params", "params/recipes"])
def test_every_overlay_sets_the_same_keys_so_that_none_leaves_a_trace_of_another(
    folder: str,
) -> None:
    overlays = [yaml.safe_load(path.read_text()) for path in (ROOT / folder).glob("*.yaml")]
    keys = [{(s, key) for s, values in o.items() for key in values} for o in overlays]
    assert all(one == keys[0] for one in keys)


def test_comments_and_order_are_kept(params: Path) -> None:
    before = params.read_text()
    apply_overlay(params, ROOT / "params" / "paper.yaml")
    after = params.read_text()
    replaced = before[before.index("    sounds:") : before.index("  frames_per_video")]
    comments = [
        [line.split("#")[1] for line in text.splitlines() if "#" in line]
        for text in (before.replace(replaced, ""), after)
    ]
    assert comments[0] == comments[1]
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


def test_the_papers_recipe_is_that_of_the_papers_scale() -> None:
    scale, recipe = (
        yaml.safe_load((ROOT / "params" / name).read_text())
        for name in ("paper.yaml", "recipes/paper.yaml")
    )
    defaults = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in recipe.items():
        assert values.items() <= (defaults[section] | scale.get(section, {})).items()


def test_overlays_are_found_by_name_in_folders(tmp_path: Path) -> None:
    for name in ("a", "b", "recipes/b", "recipes/c", "more/d", "recipes/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(f"# What {name} is.\n# And why.\na: {{}}\n")
    for name, found in {"a": "a", "b": "b", "recipes/b": "recipes/b", "c": "recipes/c"}.items():
        assert find_overlay(tmp_path, name) == tmp_path / f"{found}.yaml"
    assert list_overlays(tmp_path) == {
        "a": "What a is.", "b": "What b is.", "more/d": "What more/d is.",
        "recipes/b": "What recipes/b is.", "c": "What recipes/c is.",
        "recipes/d": "What recipes/d is.",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'d' is ambiguous: more/d or recipes/d"):
        find_overlay(tmp_path, "d")
    for name in ("huge", "../params", "recipes", ""):
        with pytest.raises(ConfigError, match=r"no such overlay: '.*' \(known: a, b, more/d"):
            find_overlay(tmp_path, name)


def test_overlays_stack_and_are_written_once_if_all_are_right(
    params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "params", "params")
    before = params.read_bytes()
    (tmp_path / "params/wrong.yaml").write_text("train: {pace: 1}")
    for names, told in ((["real", "wrong"], "no key 'train.pace'"), ([], "--list")):
        monkeypatch.setattr("sys.argv", ["trimodal", "scale", *names])
        with pytest.raises(SystemExit):
            main()
        assert told in capsys.readouterr().err
        assert params.read_bytes() == before
    monkeypatch.setattr("sys.argv", ["trimodal", "scale", "real", "ours"])
    main()
    said = capsys.readouterr().out.splitlines()
    after = yaml.safe_load(params.read_text())
    assert after["train"]["epochs"] == 40
    assert after["captions"]["image_px"] == 144
    assert said[-1].startswith("applied params/real.yaml, params/recipes/ours.yaml: ")
    assert "train.epochs: 14 -> 40" in said  # not by way of the first overlay's
    assert not [line for line in said if line.startswith("train.learning_rate:")]
    monkeypatch.setattr("sys.argv", ["trimodal", "scale", "--list"])
    main()
    listed = capsys.readouterr().out
    assert "\nours           The best on Flickr8k" in listed
    assert "\nrecipes/paper  The paper's model" in listed


def test_a_mapping_of_ones_own_names_is_replaced_whole(tmp_path: Path) -> None:
    """Test sets of one's own come instead of the demo's, and what stands below stays."""
    params, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    params.write_text(
        "evaluate:\n  sets:          # by name\n    demo: {kind: videos}  # its\n    more:\n"
        "      kind: images   # too\n\n  # how\n  steps: 20\n"
    )
    overlay.write_text("evaluate:\n  sets:\n    mine: {kind: videos} # mine\n")
    changed = apply_overlay(params, overlay)
    assert params.read_text() == (
        "evaluate:\n  sets:          # by name\n    mine: {kind: videos}\n\n  # how\n  steps: 20\n"
    )
    assert list(changed) == ["evaluate.sets"]
    assert apply_overlay(params, overlay) == {}


def test_a_list_with_comments_below_is_replaced_alone(tmp_path: Path) -> None:
    params, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    params.write_text("a:\n  splits:\n  - one\n  # how\n  steps: 20\n\n# the end\nb: {}\n")
    overlay.write_text("a: {splits: [two]}")
    apply_overlay(params, overlay)
    assert params.read_text() == (
        "a:\n  splits:\n  - two\n  # how\n  steps: 20\n\n# the end\nb: {}\n"
    )


def test_a_list_with_a_comment_replaces_one_in_block_form(tmp_path: Path) -> None:
    """The overlay's comment and place are not the params file's."""
    params, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    params.write_text(
        "a:\n  splits:    # its\n  - one\nb:\n  page: https://x/{id}\n  px: 3   # height\n"
    )
    overlay.write_text("a:\n  splits: [one, two]  # both\n\nb:\n  px: 4\n")
    apply_overlay(params, overlay)
    assert yaml.safe_load(params.read_text()) == {
        "a": {"splits": ["one", "two"]},
        "b": {"page": "https://x/{id}", "px": 4},
    }
    assert "  splits:    # its\n  - one\n  - two\nb:" in params.read_text()
    assert "px: 4   # height" in params.read_text()


@pytest.mark.parametrize("name", OVERLAYS)
def test_params_rewritten_by_another_tool_take_an_overlay_twice(params: Path, name: str) -> None:
    plain = YAML()
    plain.dump(yaml.safe_load(params.read_text()), params)  # lists in block form, no comment
    for _ in range(2):
        apply_overlay(params, ROOT / "params" / name)
        for section, cls in SECTIONS.items():
            load_section(params, section, cls)


@pytest.mark.skipif(not CASE.exists(), reason="../shared/cases is missing")
def test_the_case_of_an_overlay_on_plain_yaml(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_bytes(CASE.read_bytes())
    expected = yaml.safe_load(CASE.read_text())
    real = yaml.safe_load((ROOT / "params" / "real.yaml").read_text())
    overlay = tmp_path / "real.yaml"  # without the keys that the case is too old for
    known = {
        section: {key: value for key, value in values.items() if key in expected[section]}
        for section, values in real.items()
        if section in expected and section != "evaluate"
    }
    overlay.write_text(yaml.safe_dump(known))
    apply_overlay(params, overlay)
    for section, values in yaml.safe_load(overlay.read_text()).items():
        expected[section] |= values
    assert yaml.safe_load(params.read_text()) == expected


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "text",
    [
        "a:\n  b: 1   # one\n  c: [x]  # list\n\nd:\n  e: 2\n",
        "a: {b: 1, c: [x]} # flow\nd:\n  e: 2\n",
        "{a: {b: 1, c: [x]}, d: {e: 2}}\n",
        "a:\n  b: 1\n  c:\n    - x\nd:\n  e: 2",  # no line end at the end
        "a: &section\n  b: &one 1\n  c: [x]\nd:\n  e: 2\n",
        "---\na:\n  b: 1\n  c: [x]\nd:\n  e: 2\n...\n",
        "a:\n  b: |\n    one\n    more\n  c: [x]\nd:\n  e: 2\n",
    ],
)
def test_forms_of_yaml_keep_their_byte_order_mark_and_line_ends(
    text: str, end: str, start: str, tmp_path: Path
) -> None:
    params, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    params.write_bytes((start + text.replace("\n", end)).encode())
    overlay.write_text("a:\n  b: 5    # five\n  c: [y, z] # two\n")
    apply_overlay(params, overlay)
    written = params.read_bytes().decode()
    assert yaml.safe_load(written) == {"a": {"b": 5, "c": ["y", "z"]}, "d": {"e": 2}}
    assert written.startswith("\ufeff") == bool(start)
    assert written.count("\r\n") == (written.count("\n") if end == "\r\n" else 0)
    assert "\r\r" not in written


@pytest.mark.parametrize(
    "text",
    [
        "a:\n\tb: 1\n",  # a tab
        "a:\n  b: 1\n  b: 2\n",  # a key twice
        "a: &x\n  b: 1\nc: *x\n",  # an alias
        "a: {b: 1\n",
        "a:\n  b: 1\n---\na:\n  b: 2\n",
    ],
)
def test_params_that_are_refused_stay_as_they_are_and_the_error_is_a_line(
    text: str, tmp_path: Path
) -> None:
    params, overlay = tmp_path / "params.yaml", tmp_path / "overlay.yaml"
    params.write_text(text)
    overlay.write_text("a:\n  b: 5\n")
    with pytest.raises(ConfigError) as caught:
        apply_overlay(params, overlay)
    assert str(caught.value).startswith(f"{params}: not valid YAML: ")
    assert "\n" not in str(caught.value)
    assert params.read_text() == text


def test_text_that_reads_differently_never_replaces_the_file(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = params.read_bytes()
    monkeypatch.setattr("trimodal.overlay._dumped", lambda _: "train:\n  seed: 1\n")
    with pytest.raises(ConfigError, match="cannot be written in its form"):
        apply_overlay(params, ROOT / "params" / "paper.yaml")
    assert params.read_bytes() == before


def test_mode_and_link_of_the_file_are_kept(params: Path, tmp_path: Path) -> None:
    params.chmod(0o660)
    link = tmp_path / "link.yaml"
    link.symlink_to(params)
    apply_overlay(link, ROOT / "params" / "paper.yaml")
    assert link.is_symlink()
    assert stat.S_IMODE(params.stat().st_mode) == 0o660
    assert yaml.safe_load(params.read_text())["download"]["source"] == "files"
