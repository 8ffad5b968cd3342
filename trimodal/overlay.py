"""Applies overlays to ``params.yaml``, keeping its comments."""

import io
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from trimodal.core.config import ConfigError, parse_yaml, read_yaml
from trimodal.core.extras import imports_of
from trimodal.core.files import atomic_path

with imports_of("pipeline"):
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.error import CommentMark, YAMLError
    from ruamel.yaml.tokens import CommentToken

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
# Mappings whose keys are the user's own: an overlay that has one replaces all of it.
_WHOLE = ("evaluate.sets",)
_COMMENT_AT = {CommentedMap: 2, CommentedSeq: 0}  # of the four comments that an item can have
Changes = dict[str, tuple[Any, Any]]


def list_overlays(folder: Path) -> dict[str, str]:
    """What each overlay of ``folder`` is, its first comment line, by the name that finds it."""
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    stems = Counter(path.stem for path in paths)
    return {
        path.stem
        if path.parent == folder or stems[path.stem] == 1
        else path.relative_to(folder).with_suffix("").as_posix(): _first_comment(path)
        for path in paths
    }


def find_overlay(folder: Path, name: str) -> Path:
    """The file of an overlay: ``<folder>/<name>.yaml``, or else the one file of this name in a
    folder below (``ours`` is recipes/ours.yaml).

    Raises ConfigError, which lists what there is, for an unknown name, and for one of two files.
    """
    names = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")}
    found = {name} & names or {other for other in names if other.endswith(f"/{name}")}
    if len(found) > 1:
        raise ConfigError(f"{folder}: '{name}' is ambiguous: {' or '.join(sorted(found))}")
    if not found:
        known = ", ".join(list_overlays(folder)) or "none"
        raise ConfigError(f"{folder}: no such overlay: '{name}' (known: {known})")
    return folder / f"{found.pop()}.yaml"


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return next((line[1:].strip() for line in lines if line.startswith("#")), "")


def apply_overlay(params_path: Path, *overlay_paths: Path) -> Changes:
    """Writes the overlays' values, in this order, into the params file, keeping its comments,
    order, line ends and mode. The text is read again before it replaces the file, once.

    Returns the changes: 'section.key' -> (before, after). Raises ConfigError, and leaves the file
    as it is, if an overlay has a key that is not in the params file, and for a params file that
    cannot be written so.
    """
    params_path = params_path.resolve()  # a link stays one
    params, expected = _sections(params_path), read_yaml(params_path)
    changed: Changes = {}
    for overlay_path in overlay_paths:
        files = f"{overlay_path}: {params_path}"
        for key, (before, after) in _apply(_sections(overlay_path), params, "", files).items():
            changed[key] = (changed.get(key, (before, after))[0], after)
        _apply(read_yaml(overlay_path), expected, "", files)
    text = _dumped(params)
    if repr(parse_yaml(text, params_path)) != repr(expected):
        raise ConfigError(
            f"{params_path}: cannot be written in its form with "
            f"{' and '.join(map(str, overlay_paths))}; start from the repository's params.yaml"
        )
    before = params_path.read_bytes().decode("utf-8")
    if 2 * before.count("\r\n") > before.count("\n"):
        text = text.replace("\n", "\r\n")
    text = _BOM * before.startswith(_BOM) + text
    mode = stat.S_IMODE(params_path.stat().st_mode)
    with atomic_path(params_path, mode) as temporary:
        temporary.write_bytes(text.encode())
    return {key: (before, after) for key, (before, after) in changed.items() if before != after}


def _apply(values: dict[str, Any], target: dict[str, Any], section: str, files: str) -> Changes:
    """Writes values into the params, or a section of them, and its nested sections."""
    changed: Changes = {}
    for key, value in values.items():
        name = f"{section}.{key}" if section else str(key)
        if key not in target:
            what = "key" if section else "section"
            raise ConfigError(f"{files} has no {what} '{name}'")
        if isinstance(value, dict) and isinstance(target[key], dict) and name not in _WHOLE:
            changed |= _apply(value, target[key], name, files)
        elif target[key] != value:
            changed[name] = (target[key], value)
            new = _in_form_of(target[key], value)
            _keep_what_follows(target[key], new)
            target[key] = new
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


def _keep_what_follows(old: Any, new: Any) -> None:
    """Lines of comments and blank lines below a mapping or list in block form, which ruamel.yaml
    has with its last item, go to the last item of the one that replaces it.
    """
    kept, place = _last_item(old), _last_item(new)
    if kept is None or place is None:
        return
    tokens = kept[0].ca.items.get(kept[1])
    token = tokens[_COMMENT_AT[type(kept[0])]] if tokens else None
    below = token.value.partition("\n")[2] if token else ""
    if below:
        comment: list[CommentToken | None] = [None] * 4
        comment[_COMMENT_AT[type(place[0])]] = CommentToken(f"\n{below}", CommentMark(0))
        place[0].ca.items[place[1]] = comment


def _last_item(value: Any) -> tuple[Any, Any] | None:
    """The mapping or list in block form that the last line of ``value`` is in, and the key."""
    found = None
    while isinstance(value, CommentedMap | CommentedSeq) and value and not value.fa.flow_style():
        key = next(reversed(value)) if isinstance(value, CommentedMap) else len(value) - 1
        found, value = (value, key), value[key]
    return found


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
