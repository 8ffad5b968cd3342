"""Renders this room's Jinja2 templates. Every value is escaped by the template's format, HTML or
Markdown; a name that the template asks for and that is not there is an error.
"""

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_SYNTAX = re.compile(r"[\\`*|\[\]]")
_START_OF_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_START_OF_ENTITY = re.compile(r"&(?=[A-Za-z#])")


def escape_markdown(value: object) -> Markup:
    """A value as plain text on one line of Markdown: it starts no emphasis, link, code or HTML and
    ends no table cell. Markup (a macro's output, a code span) is returned as it is.
    """
    if isinstance(value, Markup):
        return value
    line = _SYNTAX.sub(r"\\\g<0>", _one_line(value))
    line = _START_OF_TAG.sub("&lt;", _START_OF_ENTITY.sub("&amp;", line))
    return Markup(line)  # noqa: S704 - escaped here


def code_span(value: object) -> Markup:
    """A value as inline code in Markdown, outside tables; its own backticks do not end it."""
    text = _one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return Markup(f"{fence}{padding}{text}{padding}{fence}")  # noqa: S704 - literal in code


def _one_line(value: object) -> str:
    return " ".join(str(value).splitlines())


def _environment(finalize: Callable[[object], object] | None) -> Environment:
    return Environment(
        loader=PackageLoader("trimodal.report"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


_HTML = _environment(None)
_MARKDOWN = _environment(escape_markdown)  # what it returns is Markup, which HTML leaves alone
_MARKDOWN.filters["code"] = code_span


def render(template: str, **values: Any) -> str:
    """The text of ``templates/<template>`` (``*.html.j2`` or ``*.md.j2``) with these values.

    Raises jinja2.UndefinedError for a value that the template lacks.
    """
    environment = _HTML if template.endswith(".html.j2") else _MARKDOWN
    return environment.get_template(template).render(values)
