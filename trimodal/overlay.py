"""Applies an overlay to ``params.yaml``, keeping its comments."""

import io
import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from trimodal.core.config import ConfigError, parse_yaml, read_yaml
from trimodal.core.files import atomic_path

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
Changes = dict[str, tuple[Any, Any]]


def apply_overlay(params_path: Path, overlay_path: Path) -> Changes:
    """Writes the overlay's values into the params file, keeping its comments, order, line ends and
    mode. The text is read again before it replaces the file.

    Returns the changes: 'section.key' -> (before, after). Raises ConfigError, and leaves the file
    as it is, for an overlay that does not exist or has a key that is not in the params file, and
    for a params file that cannot be written so.
    """
    if not overlay_path.is_file():
        known = ", ".join(sorted(path.stem for path in overlay_path.parent.glob("*.yaml")))
        raise ConfigError(f"{overlay_path}: no such overlay (known: {known or 'none'})")
    params_path = params_path.resolve()  # a link stays one
    params, overlay = _sections(params_path), _sections(overlay_path)
    files = f"{overlay_path}: {params_path}"
    changed = _apply(overlay, params, "", files)
    expected = read_yaml(params_path)
    _apply(read_yaml(overlay_path), expected, "", files)
    text = _dumped(params)
    if repr(parse_yaml(text, params_path)) != repr(expected):
        raise ConfigError(
            f"{params_path}: cannot be written in its form with {overlay_path}; start from the "
            "repository's params.yaml"
        )
    before = params_path.read_bytes().decode("utf-8")
    if 2 * before.count("\r\n") > before.count("\n"):
        text = text.replace("\n", "\r\n")
    text = _BOM * before.startswith(_BOM) + text
    mode = stat.S_IMODE(params_path.stat().st_mode)
    with atomic_path(params_path, mode) as temporary:
        temporary.write_bytes(text.encode())
    return changed


def _apply(values: dict[str, Any], target: dict[str, Any], section: str, files: str) -> Changes:
    """Writes values into the params, or a section of them, and its nested sections."""
    changed: Changes = {}
    for key, value in values.items():
        name = f"{section}.{key}" if section else str(key)
        if key not in target:
            what = "key" if section else "section"
            raise ConfigError(f"{files} has no {what} '{name}'")
        if isinstance(value, dict) and isinstance(target[key], dict):
            changed |= _apply(value, target[key], name, files)
        elif target[key] != value:
            changed[name] = (target[key], value)
            target[key] = _in_form_of(target[key], value)
    return changed


def _in_form_of(old: Any, value: Any) -> Any:
    """A value of the overlay without its comments, lists in the form (flow or block) of what they
    replace: ruamel.yaml writes text that is no YAML for some comments beside another form.
    """
    if isinstance(value, dict):
        plain: Any = CommentedMap((key, _in_form_of(None, item)) for key, item in value.items())
    elif isinstance(value, list):
        plain = CommentedSeq(_in_form_of(None, item) for item in value)
    else:
        return value
    form = old if isinstance(old, CommentedMap | CommentedSeq) else value
    if isinstance(form, CommentedMap | CommentedSeq) and form.fa.flow_style():
        plain.fa.set_flow_style()
    return plain


def _dumped(params: Any) -> str:
    yaml = YAML()
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(params, stream)
    return stream.getvalue()


def _sections(path: Path) -> Any:
    """A YAML file's sections with comments; raises ConfigError, naming it, for any other file."""
    yaml = YAML()
    yaml.preserve_quotes = True
    read_yaml(path)  # refuses what ruamel.yaml fails on
    try:
        content = yaml.load(path.read_text(encoding="utf-8"))  # with \n for all line ends
    except (YAMLError, ValueError) as error:
        problem = " ".join(str(error).split("To suppress")[0].split())
        raise ConfigError(f"{path}: not valid YAML: {problem}") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ConfigError(f"{path}: not a mapping of sections to values")
    return content
