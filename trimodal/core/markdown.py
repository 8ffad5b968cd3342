"""Jinja2 templates of Markdown. Every value is escaped, and a name that a template asks for and
that is not there is an error.
"""

import re

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


def markdown_templates(package: str) -> Environment:
    """The Markdown templates in a package's folder ``templates``; the filter ``code`` is
    :func:`code_span`.
    """
    environment = Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=escape_markdown,  # what it returns is Markup, which HTML's escaping leaves alone
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = code_span
    return environment
