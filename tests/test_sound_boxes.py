"""VGG-SS's JSON and Flickr-SoundNet's XML in their published forms, and bad ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import refused

from trimodal.sources.sound_boxes import SoundBoxes, read_flickr_soundnet, read_vggss

# As the first entries of the published file.
ELK = {"file": "zpWuikVorYg_000032", "class": "elk", "bbox": [[0.403125, 0.253125, 0.6, 0.75]]}
COYOTES = {
    "file": "-Raz32CQ29k_000130", "class": "coyote howling",
    "bbox": [[0.121875, 0.171875, 0.6, 0.853125], [0.765625, 0, 1.0000000001, 0.565625]],
}  # fmt: skip


def vggss(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def many(bad: Any) -> list[Any]:
    """So many good rows that a bad one is no reason to refuse the file."""
    return [{**ELK, "file": f"{number:011d}_000000"} for number in range(100)] + [bad]


def test_vggss_boxes_are_shares_of_the_picture(tmp_path: Path) -> None:
    found, bad = read_vggss(vggss(tmp_path / "vggss.json", [ELK, COYOTES]))
    assert found == [
        SoundBoxes(name="zpWuikVorYg_000032", boxes=((0.403125, 0.253125, 0.6, 0.75),)),
        SoundBoxes(
            name="-Raz32CQ29k_000130",
            boxes=((0.121875, 0.171875, 0.6, 0.853125), (0.765625, 0.0, 1.0, 0.565625)),
        ),
    ]
    assert not bad


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ELK, "file": "../../etc/passwd"}, "unsafe name"),
        ({**ELK, "file": "00000000007_000000"}, "a clip occurs twice"),
        ({**ELK, "bbox": []}, "no box"),
        ({**ELK, "bbox": [[0.1, 0.2, 0.3]]}, "a box is not four numbers"),
        ({**ELK, "bbox": [[0.1, 0.2, 0.3, "1"]]}, "a box is not four numbers"),
        ({**ELK, "bbox": [[0.1, 0.2, 0.3, float("nan")]]}, "a box is not four numbers"),
        ({**ELK, "bbox": [[0.1, 0.2, 0.3, True]]}, "a box is not four numbers"),
        ({**ELK, "bbox": [[0.6, 0.2, 0.3, 0.9]]}, "a box ends before it begins"),
        ({**ELK, "bbox": [[0.1, 0.2, 0.3, 0.4]] * 1001}, "more than 1000 boxes"),
        ({"file": "x"}, "no list 'bbox'"),
        (["x"], "no str 'file'"),
    ],
)
def test_a_bad_row_of_vggss_is_counted(tmp_path: Path, row: Any, reason: str) -> None:
    found, bad = read_vggss(vggss(tmp_path / "vggss.json", many(row)))
    assert len(found) == 100
    assert bad == {f"vggss: {reason}": 1}


def test_another_file_than_vggss_is_refused(tmp_path: Path) -> None:
    path = vggss(tmp_path / "vggss.json", {"videos": []})
    refused(lambda: read_vggss(path), str(path), "not a list of annotations")
    vggss(path, [{**ELK, "bbox": []}])
    refused(lambda: read_vggss(path), str(path), "no usable rows", "no box")


def picture(*boxes: str, head: str = "") -> str:
    inside = "".join(f"<object>{box}</object>" for box in boxes)
    return f"{head}<annotation><filename>1.jpg</filename>{inside}</annotation>"


def bbox(annotator: str, left: Any, top: Any, right: Any, bottom: Any) -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom), strict=True)
    inside = "".join(f"<{name}>{edge}</{name}>" for name, edge in edges)
    return f"<bbox><annotator>{annotator}</annotator>{inside}</bbox>"


def test_flickr_soundnet_boxes_are_pixels_of_256(tmp_path: Path) -> None:
    three = [bbox("a", 0, 64, 128, 256), bbox("b", 32, 64, 128, 192), bbox("c", -4, 0, 300, 8)]
    (tmp_path / "10000130166.xml").write_text(picture(*three))
    (tmp_path / "notes.txt").write_text("no annotation")
    found, bad = read_flickr_soundnet(tmp_path)
    assert found == [
        SoundBoxes(
            name="10000130166",
            boxes=((0.0, 0.25, 0.5, 1.0), (0.125, 0.25, 0.5, 0.75), (0.0, 0.0, 1.0, 8 / 256)),
        )
    ]
    assert not bad


BOMB = '<!DOCTYPE b [<!ENTITY a "0"><!ENTITY c "&a;&a;&a;">]>'
FILE = '<!DOCTYPE b [<!ENTITY c SYSTEM "file:///etc/hostname">]>'


DTD = '<!DOCTYPE annotation SYSTEM "file:///etc/hostname">'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (picture(bbox("a", 0, 0, 8, 8), head=DTD).encode(), "a document type"),
        (picture(bbox("a", "&c;", 0, 8, 8), head=BOMB).encode(), "a document type"),
        (picture(bbox("a", "&c;", 0, 8, 8), head=FILE).encode(), "a document type"),
        (picture(bbox("a", 0, 0, 8, 8), head=FILE).encode("utf-16"), "a document type"),
        (picture(bbox("a", "&c;", 0, 8, 8)).encode(), "not XML"),
        (b"rubbish", "not XML"),
        (b"", "not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not XML"),
        (picture().encode(), "no box"),
        (picture("<bbox><xmin>1</xmin></bbox>").encode(),
         "a bbox is not an annotator and four whole numbers"),
        (picture(bbox("a", 0, 0, 8, "8.5")).encode(),
         "a bbox is not an annotator and four whole numbers"),
        (picture(bbox("a", 9, 0, 8, 8)).encode(), "a box ends before it begins"),
        (b" " * 1_000_001, "more than 1000000 bytes"),
    ],
)  # fmt: skip
def test_a_bad_file_of_flickr_soundnet_is_counted(tmp_path: Path, text: bytes, reason: str) -> None:
    (tmp_path / "1.xml").write_text(picture(bbox("a", 0, 0, 8, 8)))
    (tmp_path / "2.xml").write_bytes(text)
    found, bad = read_flickr_soundnet(tmp_path)
    assert [of.name for of in found] == ["1"]
    assert bad == {f"flickr_soundnet: {reason}": 1}


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_flickr_soundnet(tmp_path), str(tmp_path), "no .xml files")
