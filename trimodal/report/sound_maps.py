"""The report's part on test sets of kind ``localisation``: a table, and maps over pictures."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trimodal.core.files import read_table
from trimodal.core.schemas import SOUND_MAP_SCHEMA
from trimodal.report.rendering import render
from trimodal.report.results import Results
from trimodal.report.tables import Table

_MEASURES = ("cIoU@0.5", "AUC", "cIoU")
_MAPS = {
    "sound": "its own sound",
    "other_sound": "another item's sound",
    "centre": "nearness to the centre",
    "best": "the best there is",
}
_RULES = {"half": "upper half", "as_many": "as many pixels as are true"}


@dataclass(frozen=True, kw_only=True)
class SoundMap:
    """A picture (JPEG) and the map of its sound (PNG), both in base64, and the true boxes as shares
    of the picture: left, top, right, bottom.
    """

    name: str
    ciou: float
    frame: str
    heat_map: str
    boxes: list[list[float]]


def sound_map_section(name: str, metrics: Mapping[str, Any], items: int, maps: Path) -> Markup:
    """HTML on the test set ``name`` of so many ``items``, from its metrics and the file ``maps``
    that ``evaluate`` left. Raises DataError, naming the file, for a damaged one.
    """
    html = render(
        "sound_maps.html.j2",
        name=name,
        items=items,
        table=_table(metrics),
        examples=read_sound_maps(maps),
    )
    return Markup(html)  # noqa: S704 - the template escapes


def localisation_table(results: Results) -> Table | None:
    """The test sets of kind localisation; None without one."""
    tables = {name: _table(results.metrics[name]) for name in results.of_kind("localisation")}
    if not tables:
        return None
    return Table(
        header=("test set", "items", *next(iter(tables.values())).header),
        rows=[
            (name, str(results.audits[name]["queries"]), *row)
            for name, table in tables.items()
            for row in table.rows
        ],
        left_columns=frozenset({0, 2, 3}),
    )


def read_sound_maps(path: Path) -> list[SoundMap]:
    """The examples, best first."""
    return [
        SoundMap(
            name=row["name"],
            ciou=row["ciou_as_many"],
            frame=base64.b64encode(row["frame"]).decode(),
            heat_map=base64.b64encode(row["heat_map"]).decode(),
            boxes=row["boxes"],
        )
        for row in read_table(path, SOUND_MAP_SCHEMA).to_pylist()
    ]


def _table(metrics: Mapping[str, Any]) -> Table:
    rows = [
        (_MAPS[of], _RULES[rule], *(_with_interval(summary, measure) for measure in _MEASURES))
        for of, by_rule in sorted(metrics.items(), key=lambda item: list(_MAPS).index(item[0]))
        for rule, summary in by_rule.items()
    ]
    return Table(
        header=("map", "region", "cIoU at least 0.5, %", "AUC, %", "mean cIoU, %"),
        rows=rows,
        left_columns=frozenset({0, 1}),
    )


def _with_interval(summary: Mapping[str, Any], measure: str) -> str:
    value = f"{summary[measure]:.1f}"
    if "intervals" not in summary:
        return value
    low, high = summary["intervals"][measure]
    return f"{value} ({low:.1f}..{high:.1f})"
