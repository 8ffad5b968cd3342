"""Strict reading of ``params.yaml``: one frozen dataclass a section, no defaults, no extras."""

import json
import math
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
    try:
        params = yaml.safe_load(params_path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{params_path}: not valid YAML: {error}") from error
    if not isinstance(params, dict) or not isinstance(params.get(name), dict):
        raise ConfigError(f"{params_path}: section '{name}' is missing")
    return parse_section(params[name], f"{params_path}: {name}", cls)


def parse_section(section: dict[str, Any], where: str, cls: type[Section]) -> Section:
    """Validates a mapping against the dataclass ``cls``; see :func:`load_section`."""
    known = {field.name for field in fields(cls)}
    if unknown := sorted(str(key) for key in section if key not in known):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key (known: {', '.join(sorted(known))})")
    for key, value in section.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}.{key}: {value} is not a finite number")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(section, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{key}: {first['msg']}") from error
