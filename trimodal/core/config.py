"""Strict reading of ``params.yaml``: one frozen pydantic dataclass for each section, without
defaults or extra keys.

A section's class is next to the code that it configures, declared as
``@dataclass(frozen=True, kw_only=True, config=SECTION)`` of ``pydantic.dataclasses``.
"""

import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trimodal.core.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic_core import ErrorDetails

Section = TypeVar("Section", bound="DataclassInstance")

SECTION = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
Share = Annotated[float, Field(ge=0, le=1)]
JpegQuality = Annotated[int, Field(ge=1, le=95)]
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class ConfigError(UserError, ValueError):
    """A params section that does not match its dataclass; the message names file and key."""


class Params:
    """A params file, read once.

    Raises ConfigError for a file that is not YAML.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, read_yaml(path)

    def section(self, name: str, cls: type[Section]) -> Section:
        """Section ``name`` as the dataclass ``cls``.

        Raises ConfigError for a section or key that is missing, unknown, of the wrong type or out
        of range.
        """
        content = self._content
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise ConfigError(f"{self._path}: section '{name}' is missing")
        return parse_section(content[name], f"{self._path}: {name}", cls)


def load_section(params_path: Path, name: str, cls: type[Section]) -> Section:
    """One section of a params file; see :class:`Params`."""
    return Params(params_path).section(name, cls)


def read_yaml(path: Path) -> Any:
    """A YAML file's content; raises ConfigError as :func:`parse_yaml`."""
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """The content of YAML text; raises ConfigError, naming the file, for anything else. Aliases
    (``*name``) are refused, because a few lines of them can expand beyond any memory, and tags
    (``!!timestamp``), because PyYAML breaks on some.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: invalid dates and numbers.
        in_a_line = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {in_a_line}") from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        if self.peek_event().tag is not None:  # type: ignore[no-untyped-call]
            raise yaml.YAMLError("tags (!name) are not supported")
        return super().compose_node(parent, index)


# DVC writes 0.00001 as YAML 1.2 has it, which PyYAML takes for a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_section(section: dict[str, Any], where: str, cls: type[Section]) -> Section:
    """Validates a mapping against the dataclass ``cls``; see :meth:`Params.section`."""
    try:
        content = json.dumps(section, default=str)
        section_of: TypeAdapter[Section] = _adapter(cls)
        return section_of.validate_json(content, strict=True)
    except (TypeError, RecursionError, UnicodeEncodeError) as error:
        raise ConfigError(f"{where}: not plain keys and values: {error}") from error
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError(_message(where, problems, json.loads(content), cls)) from error


@cache
def _adapter(cls: type[Section]) -> TypeAdapter[Section]:
    return TypeAdapter(cls)


def _message(
    where: str, problems: "list[ErrorDetails]", section: dict[str, Any], cls: type[Section]
) -> str:
    """The first problem as text; unknown keys come before all others."""
    unknown = [problem for problem in problems if problem["type"] in _UNKNOWN]
    first = (unknown or problems)[0]
    path = _path(first, section)
    key = ".".join((where, *path))
    if unknown:
        known = f" (known: {', '.join(sorted(f.name for f in fields(cls)))})"
        return f"{key}: unknown key{known if len(path) == 1 else ''}"
    if first["type"] == "value_error":  # concerns several keys; the message names them
        return f"{key}: {first['ctx']['error']}"
    if first["type"] == "missing":
        return f"{key}: {first['msg']}"
    # A value that matches no member of a union has one problem per member.
    same = dict.fromkeys(p["msg"] for p in problems if _path(p, section) == path)
    others = [message.removeprefix("Input should be ") for message in same][1:]
    return f"{key}: {' or '.join([first['msg'], *others])}, not {first['input']!r}"


def _path(problem: "ErrorDetails", section: dict[str, Any]) -> tuple[str, ...]:
    """The keys that lead to a problem, without pydantic's names for the members of a union."""
    path: list[str] = []
    value: Any = section
    for position, part in enumerate(problem["loc"], start=1):
        if part in value if isinstance(value, dict) else isinstance(part, int):
            value = value[part]
        elif problem["type"] != "missing" or position < len(problem["loc"]):
            continue
        path.append(str(part))
    return tuple(path)
