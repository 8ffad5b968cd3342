"""Applies an overlay to ``params.yaml``, keeping its comments."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trimodal.core.config import ConfigError, read_yaml
from trimodal.core.files import atomic_path


def apply_overlay(params_path: Path, overlay_path: Path) -> dict[str, tuple[Any, Any]]:
    """Writes the overlay's values into the params file, keeping its comments and order.

    Returns the changes: 'section.key' -> (before, after). Raises ConfigError for an overlay that
    does not exist or has a key that is not in the params file.
    """
    if not overlay_path.is_file():
        known = ", ".join(sorted(path.stem for path in overlay_path.parent.glob("*.yaml")))
        raise ConfigError(f"{overlay_path}: no such overlay (known: {known or 'none'})")
    params, overlay = _sections(params_path), _sections(overlay_path)
    changed: dict[str, tuple[Any, Any]] = {}
    for section, values in overlay.items():
        if section not in params:
            raise ConfigError(f"{overlay_path}: {params_path} has no section '{section}'")
        _apply(values, params[section], section, changed, f"{overlay_path}: {params_path}")
    yaml = YAML()
    yaml.width = 4096
    with atomic_path(params_path) as temporary:
        yaml.dump(params, temporary)
    return changed


def _apply(
    values: dict[str, Any],
    target: dict[str, Any],
    section: str,
    changed: dict[str, tuple[Any, Any]],
    files: str,
) -> None:
    """Writes values into a section of the params and its nested sections."""
    for key, value in values.items():
        if key not in target:
            raise ConfigError(f"{files} has no key '{section}.{key}'")
        if isinstance(value, dict) and isinstance(target[key], dict):
            _apply(value, target[key], f"{section}.{key}", changed, files)
        elif target[key] != value:
            changed[f"{section}.{key}"] = (target[key], value)
            target[key] = value


def _sections(path: Path) -> Any:
    """A YAML file's sections with comments; raises ConfigError, naming it, for any other file."""
    yaml = YAML()
    yaml.preserve_quotes = True
    read_yaml(path)  # refuses what ruamel.yaml fails on
    try:
        content = yaml.load(path)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"{path}: not a mapping of sections to values")
    return content
