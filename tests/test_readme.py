"""The README tells the truth about files and commands."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from trimodal.overlay import find_overlay

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
