"""The report's templates: escaping in Markdown, missing values, packaging."""

import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from repository import ROOT

from trimodal.core.markdown import code_span, escape_markdown
from trimodal.report.rendering import render
from trimodal.report.tables import Table

TEMPLATES = ROOT / "trimodal" / "report" / "templates"


def test_hostile_cells_are_text_in_markdown() -> None:
    rows = [("<script>alert(1)</script>", "a | b\r\nc"), ("<!-- d", "&lt; & `e` *f*")]
    table = Table(header=("sentence", "5"), rows=rows, our_rows=frozenset({1}))
    assert render("table.md.j2", table=table).splitlines() == [
        "| sentence | 5 |",
        "| --- | ---: |",
        "| &lt;script>alert(1)&lt;/script> | a \\| b c |",
        "| **&lt;!-- d** | &amp;lt; & \\`e\\` \\*f\\* |",
    ]


@pytest.mark.parametrize("text", ["p < 0.001", "R@1", "+0.4 (95 % CI -0.2..+1.0)", "a_b & c"])
def test_harmless_text_stays_readable_in_markdown(text: str) -> None:
    assert escape_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "span"),
    [("data/x", "`data/x`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("a\nb", "`a b`")],
)
def test_code_spans_hold_any_text(text: str, span: str) -> None:
    assert code_span(text) == span


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="table"):
        render("table.md.j2")


def test_rows_have_the_headers_cells() -> None:
    with pytest.raises(ValueError, match=r"2 cells in .*, 1 in the header"):
        Table(header=("a",), rows=[("b", "c")])


def test_templates_are_packaged(tmp_path: Path) -> None:
    """As setuptools builds the package: what pyproject.toml lists and nothing more."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q"]
    build = ["egg_info", "-e", str(tmp_path), "build_py", "-d", str(tmp_path / "built")]
    subprocess.run([*command, *build], cwd=ROOT, check=True, capture_output=True, timeout=120)
    packaged = tmp_path / "built" / "trimodal" / "report" / "templates"
    assert {path.name for path in packaged.iterdir()} == {p.name for p in TEMPLATES.iterdir()}
    assert any(path.suffix == ".css" for path in packaged.iterdir())
    for card in ("data/templates/dataset_card.md.j2", "models/templates/model_card.md.j2"):
        assert (tmp_path / "built" / "trimodal" / card).exists()
