"""A series of experiments, read from a small YAML file (experiments/table1.yaml is one): variants
of params.yaml, which of them are compared, and by what.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from trimodal.core.config import SECTION, ConfigError, parse_section, read_yaml
from trimodal.core.links import stage_outputs
from trimodal.report.significance import check_seeds

PARAMS, STAGES = Path("params.yaml"), Path("dvc.yaml")
FOLDER, RECIPES, METRICS = Path("experiments"), Path("params/recipes"), Path("metrics")
Value = bool | int | float | str | list[bool | int | float | str] | None
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # what git takes in a reference, and more
_FOR_DVC = re.compile(r"[^\"\\$\x00-\x1f]*")  # texts that its --set-param takes as they are
_SEED = "train.seed"


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Variant:
    """Values by 'section.key'. First come those of ``builds_on``, another variant, then those of
    ``recipe`` (a file in params/recipes), then ``params``. It is compared with ``against``, or else
    with what it builds on. ``name`` is what tables call it.
    """

    name: str = ""
    builds_on: str | None = None
    recipe: str | None = None
    params: Mapping[str, Value] = field(default_factory=dict)
    against: str | None = None


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Score:
    """What test items are ranked by: a column ``rank_...`` of ranks.parquet, and the other score
    that it is compared with in each variant.
    """

    name: str
    against: str | None = None


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Series:
    """The file's content. :func:`read_series` fills in ``params`` and ``against`` of the variants,
    and ``result``, the stem of the JSON in metrics (by default the file's own).

    With ``folds`` each variant is run once a fold, with the fold's values by 'section.key' (other
    training and test items, say), and the ranks of all folds' queries are taken together:
    cross-validation, if the folds are.
    """

    title: str
    seeds: list[int]
    metrics: list[Literal["R@1", "R@5", "R@10", "MeanR"]]
    scores: Mapping[str, Score]
    variants: Mapping[str, Variant]
    folds: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    test_set: str | None = None
    result: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a list without entries or with one twice."""
        for key in ("seeds", "metrics", "scores", "variants"):
            values = list(getattr(self, key))
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: empty, or one of them is given twice")

    @property
    def result_path(self) -> Path:
        """The JSON file with the series' results."""
        return METRICS / f"{self.result}.json"


def find_series(name: str) -> Path:
    """A file's path, or the stem of one in experiments/; raises ConfigError, which lists those."""
    for path in (Path(name), FOLDER / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml"))) or "none"
    raise ConfigError(f"no such series: '{name}' (a file, or in {FOLDER}/: {known})")


def read_series(path: Path, seeds: Sequence[int] | None = None) -> Series:
    """The series in a file, with other seeds if they are given, checked against params.yaml.

    Raises ConfigError, which names file and key, and PairingError for seeds that are none.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a mapping of keys to values")
    series = parse_section(content, str(path), Series)
    chosen = list(series.seeds if seeds is None else seeds)
    check_seeds(chosen)
    result = series.result or path.stem
    for name in (path.stem, result, *series.variants, *series.folds):
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{path}: '{name}': a name has only letters, digits, - and _")
    if str(METRICS / f"{result}.json") in stage_outputs(STAGES):
        raise ConfigError(f"{path}: metrics/{result}.json is a stage's: set another 'result'")
    _check_references(series.scores, ("against",), f"{path}: scores")
    _check_references(series.variants, ("builds_on", "against"), f"{path}: variants")
    params = _sections(PARAMS)
    _check_test_set(series.test_set, params, path)
    folds = {
        name: _checked(values, params, f"{path}: folds.{name}")
        for name, values in series.folds.items()
    }
    filled = {
        name: replace(
            variant,
            name=variant.name or name,
            params=_changes(series.variants, name, params, f"{path}: variants"),
            against=variant.against or variant.builds_on,
        )
        for name, variant in series.variants.items()
    }
    return replace(series, variants=filled, folds=folds, seeds=sorted(chosen), result=result)


def overrides(params: Mapping[str, Value], seed: int) -> list[str]:
    """For ``dvc exp run --set-param``, in the grammar of Hydra."""
    values = {**params, _SEED: seed}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _check_references(named: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raises ConfigError for a name that is not there, and for one that leads to itself."""
    for key in keys:
        for start in named:
            seen, name = [start], getattr(named[start], key)
            while name is not None:
                if name not in named:
                    raise ConfigError(f"{where}.{seen[-1]}.{key}: there is no '{name}'")
                if name in seen:
                    raise ConfigError(f"{where}.{seen[-1]}.{key}: '{name}' leads back to itself")
                seen.append(name)
                name = getattr(named[name], key)


def _check_test_set(name: str | None, params: Any, path: Path) -> None:
    sets = params.get("evaluate", {}).get("sets", {})
    if name is not None and name not in sets:
        known = ", ".join(sets) or "none"
        raise ConfigError(f"{path}: test_set: {PARAMS}: evaluate.sets has no '{name}': {known}")


def _changes(
    variants: Mapping[str, Variant], name: str, params: Any, where: str
) -> dict[str, Value]:
    """All values of a variant, each checked against params.yaml."""
    variant = variants[name]
    changes: dict[str, Value] = {}
    if variant.builds_on is not None:
        changes |= _changes(variants, variant.builds_on, params, where)
    if variant.recipe is not None:
        changes |= _recipe(variant.recipe, f"{where}.{name}.recipe")
    changes |= variant.params
    return _checked(changes, params, f"{where}.{name}.params")


def _checked(values: Mapping[str, Value], params: Any, where: str) -> dict[str, Value]:
    for key, value in values.items():
        _check_value(key, value, params, f"{where}.{key}")
    return dict(values)


def _recipe(name: str, where: str) -> dict[str, Value]:
    """An overlay's values by 'section.key'."""
    recipes = {path.stem: path for path in RECIPES.glob("*.yaml")}
    if name not in recipes:
        known = ", ".join(sorted(recipes)) or "none"
        raise ConfigError(f"{where}: no {RECIPES}/{name}.yaml (known: {known})")
    sections = _sections(recipes[name])
    return {f"{s}.{key}": value for s, values in sections.items() for key, value in values.items()}


def _sections(path: Path) -> dict[str, dict[str, Any]]:
    content = read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"{path}: not a mapping of sections to values")
    return content


def _check_value(key: str, value: Value, params: Any, where: str) -> None:
    before = params
    for part in key.split("."):
        if not isinstance(before, dict) or part not in before:
            raise ConfigError(f"{where}: {PARAMS} has no key '{key}'")
        before = before[part]
    if isinstance(before, dict):
        raise ConfigError(f"{where}: a section of {PARAMS}; name the keys in it")
    if key == _SEED:
        raise ConfigError(f"{where}: the series' seeds are its own key")
    if key.startswith("machine."):
        raise ConfigError(f"{where}: changes no result, and DVC would run nothing")
    kinds = _kind(before), _kind(value)
    if None not in kinds and kinds[0] != kinds[1]:
        raise ConfigError(f"{where}: {value!r} is a {kinds[1]}; {PARAMS} has a {kinds[0]}")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not _FOR_DVC.fullmatch(text):
            raise ConfigError(f'{where}: {text!r}: DVC takes no ", \\ or $ and no line end')


def _kind(value: Any) -> str | None:
    kinds = {bool: "switch", int: "number", float: "number", str: "text", list: "list"}
    return kinds.get(type(value))
