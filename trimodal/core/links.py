"""Links, in the folder of a DVC experiment, to files that only the repository has.

``dvc exp run --temp`` and DVC's queue run an experiment in a clone of the repository below its
``.dvc/tmp/exps``. What git and DVC track is there; sources that params.yaml names by relative
paths, in the repository or beside it, are not.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimodal.core.config import ConfigError, read_yaml

_EXPERIMENTS = (".dvc", "tmp", "exps")
_SPECIAL = re.compile(r"[\\*?\[ ]")  # in the patterns of .gitignore


def repository_of(folder: Path) -> Path | None:
    """The repository that an experiment in ``folder`` (absolute) belongs to; None for any other
    folder.
    """
    for parent in folder.parents:
        if parent.parts[-3:] == _EXPERIMENTS:
            return parent.parents[2]
    return None


def stage_outputs(stages_path: Path) -> Iterator[str]:
    """Paths of the outputs, metrics and plots of the stages in ``stages_path`` (dvc.yaml); of a
    stage for each item the folder of its outputs.
    """
    for stage in read_yaml(stages_path)["stages"].values():
        for kind in ("outs", "metrics", "plots"):
            for output in stage.get("do", stage).get(kind, []):
                path: str = output if isinstance(output, str) else next(iter(output))
                yield path.removesuffix("/${key}")


def link_sources(params_path: Path, stages_path: Path, folder: Path) -> list[Path]:
    """Links what the experiment in ``folder`` (absolute) lacks and its repository has of each
    relative path in the params, and returns the links; in a repository itself makes none. Outputs
    of the stages in ``stages_path`` (dvc.yaml) are never linked, and git in the experiment does not
    see the links.

    Raises ConfigError for a path so far above the repository that a link would be outside of DVC's
    temporary folder, or that a link tracked by git hides.
    """
    repository = repository_of(folder)
    if repository is None:
        return []
    clone = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), folder)
    outputs = [folder / name for name in stage_outputs(stages_path)]
    links = []
    named = set(_texts(read_yaml(params_path), ""))
    for key, name in sorted(named, key=lambda pair: (len(Path(pair[1]).parts), pair)):
        # False for a text that is too long for a path, which Path.exists is not.
        if not os.path.exists(repository / name) or Path(name).is_absolute():  # noqa: PTH110
            continue
        place = Path(os.path.normpath(folder / name))
        if folder.is_relative_to(place) or any(_overlap(place, output) for output in outputs):
            continue
        try:
            if place.is_relative_to(clone):
                links += _link_inside(place, repository / name, clone)
            else:
                links += _link_above(os.path.relpath(place, folder), folder, repository)
        except ConfigError as error:
            what = "an experiment in a folder of its own cannot reach"
            raise ConfigError(f"{params_path}: {key}: {what} '{name}', {error}") from error
    return links


def _link_inside(place: Path, source: Path, clone: Path) -> list[Path]:
    if any(path.is_symlink() and not path.exists() for path in _from(clone, place)):
        raise ConfigError("a relative link that git tracks: write its absolute path")
    missing = list(_missing(place, source))
    for one, its_source in missing:
        _link(one, its_source)
        _hide_from_git(one, clone)
    return [one for one, _ in missing]


def _link_above(name: str, folder: Path, repository: Path) -> list[Path]:
    """Links the first folder below the one that ``name`` climbs to."""
    climb = Path(name).parts.count(os.pardir)
    first = Path(*Path(name).parts[: climb + 1])
    place, source = (Path(os.path.normpath(root / first)) for root in (folder, repository))
    if repository.joinpath(*_EXPERIMENTS) not in place.parents:
        raise ConfigError("too far above the repository: write its absolute path")
    if place.exists() and place.samefile(source):
        return []
    if place.exists() and not place.is_symlink():
        raise ConfigError(f"because {place} is in the way: write its absolute path")
    _link(place, source)
    return [place]


def _missing(place: Path, source: Path) -> Iterator[tuple[Path, Path]]:
    """What ``place`` lacks of ``source``: git may track a part of a folder."""
    if not place.exists():
        yield place, source
    elif place.is_dir() and not place.is_symlink() and source.is_dir():
        for entry in sorted(source.iterdir()):
            yield from _missing(place / entry.name, entry)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """All texts in the params with their keys; of 'kind:path' also the part that may be a path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value
        if ":" in value:
            yield key, value.partition(":")[2]


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _from(folder: Path, place: Path) -> Iterator[Path]:
    """``place`` and its parents up to ``folder``, without it."""
    while place != folder:
        yield place
        place = place.parent


def _link(place: Path, source: Path) -> None:
    """Makes the link, instead of one that is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    temporary.replace(place)


def _hide_from_git(place: Path, clone: Path) -> None:
    pattern = _SPECIAL.sub(r"\\\g<0>", place.relative_to(clone).as_posix())
    exclude = clone / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    with exclude.open("a", encoding="utf-8") as file:
        file.write(f"/{pattern}\n")
