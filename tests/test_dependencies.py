"""docs/dependencies.md lists what constraints.txt pins, with what the installed packages say."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from dependencies import BILL, FLAGGED, GROUPS, PAGE, asked_for, licence_of, note_of, pins, plain

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.split("| --- |")[-1].splitlines()[1:]
]
LISTED = {name: (version, licence, group) for name, version, licence, group, _ in ROWS}


def test_the_page_lists_what_is_pinned() -> None:
    assert {name: version for name, (version, _, _) in LISTED.items()} == pins()


def test_the_bill_of_materials_is_the_page() -> None:
    bill = json.loads(BILL.read_text(encoding="utf-8"))
    assert bill["specVersion"] == "1.6"
    listed = {}
    for component in bill["components"]:
        name, version = component["name"], component["version"]
        assert component["purl"] == f"pkg:pypi/{name}@{version}"
        listed[name] = version, component["licenses"][0]["license"]["name"]
    assert listed == {
        name: (version, licence.removesuffix(" (note)"))
        for name, (version, licence, _) in LISTED.items()
    }


def test_everything_that_the_project_asks_for_is_listed_as_such() -> None:
    for group, requirements in asked_for().items():
        for requirement in requirements:
            listed = LISTED[plain(requirement.name)][2]
            assert GROUPS.index(listed) <= GROUPS.index(group), requirement


def test_licences_are_those_that_the_installed_packages_state() -> None:
    seen = 0
    for name, (version, licence, _) in LISTED.items():
        try:
            package = distribution(name)
        except PackageNotFoundError:  # those of `make audit`, or of another system
            continue
        if package.version == version:
            assert licence.removesuffix(" (note)") == licence_of(package), name
            seen += 1
    assert seen > 100


def test_a_licence_that_asks_for_something_has_its_note() -> None:
    flagged = [name for name, (_, licence, _) in LISTED.items() if FLAGGED.search(licence)]
    assert {"gensim", "mutagen", "pygit2", "certifi", "cuda-toolkit"} <= set(flagged)
    for name in [*flagged, "av", "imageio-ffmpeg"]:
        assert LISTED[name][1].endswith("(note)"), name
        assert note_of(name) in TEXT
        assert re.search(rf"^- \*\*.*\b{re.escape(name)}\b.*\*\*: ", TEXT, re.MULTILINE), name


class Stated:
    """A package with metadata of one's own."""

    def __init__(self, **fields: str) -> None:
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}
        self.metadata = self

    def get(self, name: str) -> str | None:
        return self.fields.get(name)

    def get_all(self, name: str) -> list[str] | None:
        return self.fields[name].split(";") if name in self.fields else None


BSD = "License :: OSI Approved :: BSD License"


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT", "License": "old"}, "MIT"),
        ({"License": "GPLv2 | EPLv1"}, "GPLv2 or EPLv1"),
        ({"License": "Copyright 2020\nall of its text", "Classifier": BSD}, "BSD License"),
        ({"License": "UNKNOWN", "Classifier": f"Topic :: Any;{BSD}"}, "BSD License"),
        ({"Classifier": "License :: OSI Approved"}, "not stated"),
        ({}, "not stated"),
    ],
)
def test_licence_of_reads_what_metadata_can_say(fields: dict[str, str], licence: str) -> None:
    assert licence_of(Stated(**fields)) == licence  # type: ignore[arg-type]
