"""Renders this room's Jinja2 templates. Every value is escaped by the template's format, HTML or
Markdown; a name that the template asks for and that is not there is an error.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from trimodal.core.markdown import markdown_templates

_MARKDOWN = markdown_templates("trimodal.report")
_HTML = Environment(
    loader=PackageLoader("trimodal.report"),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """The text of ``templates/<template>`` (``*.html.j2`` or ``*.md.j2``) with these values.

    Raises jinja2.UndefinedError for a value that the template lacks.
    """
    environment = _HTML if template.endswith(".html.j2") else _MARKDOWN
    return environment.get_template(template).render(values)
