"""The README tells the truth about files and commands, and its examples print what it shows."""

import hashlib
import json
import re
import shlex
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml

from trimodal.cli import main
from trimodal.core.errors import UserError
from trimodal.overlay import find_overlay
from trimodal.search.store import MomentStore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def tree() -> list[str]:
    """The paths of the README's tree, folders with a slash behind."""
    block = README.split("```text\n")[1].split("```")[0]
    paths, parents = [], []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        path = "".join([*parents[:depth], name])
        if name.endswith("/"):
            parents[depth:] = [name]
        paths.append(path)
    return paths


def test_the_tree_names_what_is_there() -> None:
    made = {"data/", "models/"}
    for path in tree():
        assert path in made or (ROOT / path).exists(), path


def test_every_room_is_in_the_tree() -> None:
    rooms = {f"trimodal/{path.parent.name}/" for path in ROOT.glob("trimodal/*/__init__.py")}
    assert rooms <= set(tree())


def test_every_line_of_the_tree_says_what_the_file_is() -> None:
    block = README.split("```text\n")[1].split("```")[0]
    for line in block.splitlines():
        assert re.fullmatch(r" *\S+ {2,}\S.*", line), line


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    subprocess.run(["make", "--dry-run", command.split()[1]], cwd=ROOT, check=True)


def test_make_help_tells_every_target() -> None:
    help_ = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert help_.startswith("make help ")
    phony = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"\bmake {target}\b", help_), target


@pytest.mark.parametrize("command", [c for c in commands() if "-S " in c])
def test_overrides_name_real_params(command: str) -> None:
    section, key = command.split("-S ")[1].split("=")[0].split(".")
    assert key in yaml.safe_load((ROOT / "params.yaml").read_text())[section]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("trimodal scale")])
def test_overlays_exist(command: str) -> None:
    for name in command.split()[2:]:
        assert name == "--list" or find_overlay(ROOT / "params", name).is_file()


def test_the_picture_shows_every_stage() -> None:
    picture = README.split("```mermaid\n")[1].split("```")[0]
    assert set(re.findall(r"<b>(\w+)</b>", picture)) == set(STAGES)


def test_the_result_table_is_that_of_the_committed_run() -> None:
    committed = (ROOT / "metrics/report/table.md").read_text().splitlines()
    shown = [line for line in README.splitlines() if line.startswith("| ") and "R@1" not in line]
    rows = [line for line in shown if line.count("|") == committed[0].count("|")]
    assert sum("**ours" in row for row in rows) == 2
    assert set(rows) <= set(committed)


MODEL, CLIPS, INDEX = (
    ROOT / name for name in ("models/trimodal", "data/clips/demo", "data/search")
)


@pytest.fixture(scope="module")
def demo() -> MomentStore:
    """The index of the demo's clips by the committed run's model; without these, the numbers are
    others.
    """
    for path in (MODEL, CLIPS, INDEX):
        if not path.is_dir():
            pytest.skip(f"no {path.relative_to(ROOT)}: make repro, trimodal index data/clips/demo")
    outs = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]["train"]["outs"]
    committed = next(out["md5"] for out in outs if out["path"] == "models/trimodal")
    if dvc_md5(MODEL) != committed:
        pytest.skip("models/trimodal is not of the committed run")
    weights = json.loads((MODEL / "config.json").read_text())["weights"]
    try:
        store = MomentStore.open(str(INDEX))
    except UserError as error:
        pytest.skip(str(error))
    folders = {video.folder for video in store.files()}
    if store.about.model != weights or folders != {str(CLIPS.resolve())}:
        pytest.skip("data/search is not of data/clips/demo and models/trimodal")
    return store


def dvc_md5(folder: Path) -> str:
    """What DVC calls a folder of files."""
    files = [(path.name, hashlib.md5(path.read_bytes())) for path in sorted(folder.iterdir())]  # noqa: S324
    listed = [{"md5": md5.hexdigest(), "relpath": name} for name, md5 in files]
    return f"{hashlib.md5(json.dumps(listed).encode()).hexdigest()}.dir"  # noqa: S324


def examples() -> dict[str, str]:
    """What the commands of the README print, by command."""
    blocks = re.findall(r"```console\n(\$ .*?)```", README, re.DOTALL)
    pairs = [part.partition("\n") for block in blocks for part in block.split("$ ")[1:]]
    return {command.split("#")[0].strip(): printed for command, _, printed in pairs}


def test_the_search_prints_what_is_shown(
    demo: MomentStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Path(demo.location) == INDEX
    monkeypatch.chdir(ROOT)
    ((command, printed),) = [item for item in examples().items() if " search " in item[0]]
    monkeypatch.setattr("sys.argv", shlex.split(command))
    main()
    assert capsys.readouterr().out == printed


def test_the_index_has_as_many_moments_as_are_shown(demo: MomentStore) -> None:
    videos = demo.files()
    problems = sum(bool(video.problem) for video in videos)
    assert examples()["trimodal index data/clips/demo"].startswith(
        f"{demo.moments} moments; videos: {len(videos)} new, 0 changed, 0 unchanged, 0 deleted, "
        f"{problems} with problems\n"
    )


def test_the_python_example_prints_what_is_shown(
    demo: MomentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Path(demo.location) == INDEX
    monkeypatch.chdir(ROOT)
    code = README.split("```python\n")[1].split("```")[0]
    shown = [line.removeprefix("# ") for line in code.splitlines() if line.startswith("#")]
    assert len(shown) == 3
    printed = StringIO()
    with redirect_stdout(printed):
        exec(code, {})  # noqa: S102
    assert printed.getvalue().splitlines() == shown
