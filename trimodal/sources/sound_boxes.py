"""Boxes around what sounds in a picture: VGG-SS's ``vggss.json`` and Flickr-SoundNet's XML files.

Boxes are left, top, right, bottom as shares of the picture's width and height.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimodal.core.extras import imports_of

with imports_of("pipeline"):
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

from trimodal.core.files import read_json
from trimodal.core.records import DataError, check_name
from trimodal.sources.rows import BadRowError, RowTally, value_of

Box = tuple[float, float, float, float]
_SOUNDNET_PX = 256  # the square pictures that were annotated
_MAX_XML_BYTES = 1_000_000
_MAX_BOXES = 1_000
_NUMBER = re.compile(r"-?[0-9]{1,6}")


@dataclass(frozen=True, kw_only=True)
class SoundBoxes:
    """The boxes of a clip or a picture, by all of its annotators."""

    name: str
    boxes: tuple[Box, ...]


def read_vggss(path: Path) -> tuple[list[SoundBoxes], Counter[str]]:
    """VGG-SS (Chen et al. 2021, arXiv:2104.02691): a JSON list of ``{"file": "<YouTube id>_<start,
    6 digits>", "class": ..., "bbox": [[left, top, right, bottom], ...]}``, shares of the picture.
    Edges outside it are moved to its border. Returns what is usable, in file order, and the bad
    rows by reason. Raises DataError, naming the file, for another format, for more than 1 % bad
    rows, and if none is usable.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of annotations as vggss.json is")
    tally = RowTally(path, "vggss")
    found: dict[str, SoundBoxes] = {}
    for number, row in enumerate(rows):
        with tally.row(f"entry {number}"):
            name = _safe_name(value_of(row, "file", str))
            if name in found:
                raise BadRowError("a clip occurs twice")
            boxes = [_json_box(box) for box in value_of(row, "bbox", list)]
            found[name] = SoundBoxes(name=name, boxes=_counted(boxes))
    return list(found.values()), tally.checked(found)


def read_flickr_soundnet(folder: Path) -> tuple[list[SoundBoxes], Counter[str]]:
    """Flickr-SoundNet's test set (Senocak et al. 2018): a file ``<picture>.xml`` for each picture,
    in which every ``bbox`` has five elements: its annotator, then left, top, right and bottom in
    pixels of the picture at 256 x 256. Returns what is usable, by name, and the bad files by
    reason; a file with a document type, which could define entities, is one. Errors as of
    :func:`read_vggss`.
    """
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise DataError(f"{folder}: no .xml files of annotations")
    tally = RowTally(folder, "flickr_soundnet")
    found = []
    for file in files:
        with tally.row(file.name):
            name = _safe_name(file.stem)
            found.append(SoundBoxes(name=name, boxes=_counted(_xml_boxes(file))))
    return found, tally.checked(found)


def _safe_name(name: str) -> str:
    try:
        return check_name(name, "")
    except DataError:
        raise BadRowError("unsafe name") from None


def _counted(boxes: list[Box]) -> tuple[Box, ...]:
    if not boxes:
        raise BadRowError("no box")
    if len(boxes) > _MAX_BOXES:
        raise BadRowError(f"more than {_MAX_BOXES} boxes")
    return tuple(boxes)


def _json_box(value: Any) -> Box:
    is_box = (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in value)
        and all(abs(edge) < 1e6 for edge in value)  # also refuses NaN
    )
    if not is_box:
        raise BadRowError("a box is not four numbers")
    return _inside(*value)


def _inside(left: float, top: float, right: float, bottom: float) -> Box:
    """The part of a box within the picture."""
    if right < left or bottom < top:
        raise BadRowError("a box ends before it begins")
    left, top, right, bottom = (min(max(float(e), 0.0), 1.0) for e in (left, top, right, bottom))
    return left, top, right, bottom


def _xml_boxes(file: Path) -> list[Box]:
    if file.stat().st_size > _MAX_XML_BYTES:
        raise BadRowError(f"more than {_MAX_XML_BYTES} bytes")
    try:
        root = fromstring(file.read_bytes(), forbid_dtd=True)
    except DefusedXmlException:
        raise BadRowError("a document type") from None
    except (ParseError, ValueError, LookupError):
        raise BadRowError("not XML") from None
    return [_xml_box(box) for box in root.iter("bbox")]


def _xml_box(element: Any) -> Box:
    texts = [(child.text or "").strip() for child in element]
    if len(texts) != 5 or not all(map(_NUMBER.fullmatch, texts[1:])):
        raise BadRowError("a bbox is not an annotator and four whole numbers")
    left, top, right, bottom = (int(text) / _SOUNDNET_PX for text in texts[1:])
    return _inside(left, top, right, bottom)
