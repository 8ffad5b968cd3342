"""Strict reading of ``params.yaml``: one frozen dataclass a section, no defaults, no extras."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Section = TypeVar("Section", bound="DataclassInstance")


class ConfigError(ValueError):
    """A params section that does not fit its dataclass; the message names file and key."""


def load_section(params_path: Path, name: str, cls: type[Section]) -> Section:
    """Reads section ``name`` of a params file into the dataclass ``cls``.

    Raises ConfigError for a section or key that is missing, unknown, of the wrong type or out of
    range.
    """
    params = read_yaml(params_path)
    if not isinstance(params, dict) or not isinstance(params.get(name), dict):
        raise ConfigError(f"{params_path}: section '{name}' is missing")
    return parse_section(params[name], f"{params_path}: {name}", cls)


def read_yaml(path: Path) -> Any:
    """A YAML file's content; raises ConfigError, naming the file, for anything else. Aliases
    (``*name``) are not read: a few lines of them stand for more than any memory holds. Nor are tags
    (``!!timestamp``): PyYAML breaks on some.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: text that is no UTF-8, and dates and numbers that are none.
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) stands in it")
        if self.peek_event().tag is not None:  # type: ignore[no-untyped-call]
            raise yaml.YAMLError("a tag (!name) stands in it")
        return super().compose_node(parent, index)


def parse_section(section: dict[str, Any], where: str, cls: type[Section]) -> Section:
    """Validates a mapping against the dataclass ``cls``; see :func:`load_section`."""
    known = {field.name for field in fields(cls)}
    if unknown := sorted(str(key) for key in section if key not in known):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key (known: {', '.join(sorted(known))})")
    for key, value in _leaves(section):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}.{key}: {value} is not a finite number")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(section, default=str), strict=True)
    except (TypeError, RecursionError, UnicodeEncodeError) as error:
        raise ConfigError(f"{where}: not plain keys and values: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{key}: {first['msg']}") from error


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings and lists with their dotted keys."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, key)
    else:
        yield key, value
