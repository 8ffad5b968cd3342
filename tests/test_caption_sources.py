"""Caption annotation files: bad rows are counted by reason, bad files refused by name."""

import json
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REAL, needs_real_data, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.core.records import DataError
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.karpathy import read_karpathy

FIRST = "image_name| comment_number| comment\n"
HALF = "half a surrogate pair \ud83d"

# COCO


def coco_content() -> dict[str, Any]:
    return {
        "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 4, "file_name": "4.jpg"}],
        "annotations": [
            {"image_id": 9, "caption": "second image, first"},
            {"image_id": 4, "caption": " only one \n"},
            {"image_id": 9, "caption": "a comment"},
        ],
    }


def coco(folder: Path, content: Any) -> tuple[list[Any], Counter[str]]:
    path = folder / "annotations" / "captions_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(folder, "val")


def test_coco_images_by_id_and_captions_in_annotation_order(tmp_path: Path) -> None:
    read, left_out = coco(tmp_path, coco_content())
    assert [(image.image_id, image.file_name, image.captions) for image in read] == [
        ("coco_000000000004", "4.jpg", ("only one",)),
        ("coco_000000000009", "9.jpg", ("second image, first", "a comment")),
    ]
    assert {(image.source, image.split) for image in read} == {("coco", "val")}
    assert not left_out


def test_coco_image_without_caption_is_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["images"] += [{"id": number, "file_name": "x.jpg"} for number in (5, 6, 7)]
    read, left_out = coco(tmp_path, content)
    assert len(read) == 2
    assert left_out == {"coco: image without a caption": 3}


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("images", "x", "no int 'id'"),
        ("images", {"id": 7}, "no str 'file_name'"),
        ("images", {"file_name": "7.jpg"}, "no int 'id'"),
        ("images", {"id": "7", "file_name": "7.jpg"}, "no int 'id'"),
        ("images", {"id": True, "file_name": "7.jpg"}, "no int 'id'"),
        ("images", {"id": -7, "file_name": "7.jpg"}, "'id' is no image number"),
        ("images", {"id": 10**12, "file_name": "7.jpg"}, "'id' is no image number"),
        ("images", {"id": 9, "file_name": "7.jpg"}, "an image occurs twice"),
        ("images", {"id": 7, "file_name": 7}, "no str 'file_name'"),
        ("images", {"id": 7, "file_name": "../7.jpg"}, "unsafe file name"),
        ("images", {"id": 7, "file_name": "/etc/passwd"}, "unsafe file name"),
        ("annotations", None, "no int 'image_id'"),
        ("annotations", {"image_id": 9}, "no str 'caption'"),
        ("annotations", {"caption": "x"}, "no int 'image_id'"),
        ("annotations", {"image_id": 7, "caption": "x"}, "caption of an unknown image"),
        ("annotations", {"image_id": 9, "caption": " \n"}, "empty caption"),
        ("annotations", {"image_id": 9, "caption": None}, "no str 'caption'"),
        ("annotations", {"image_id": 9, "caption": HALF}, "no str 'caption'"),
    ],
)
def test_coco_bad_row_is_counted_and_the_others_are_read(
    table: str, row: Any, reason: str, tmp_path: Path
) -> None:
    good = coco(tmp_path, coco_content())[0]
    for position in (0, 2):
        content = coco_content()
        content[table].insert(position, row)
        read, left_out = coco(tmp_path, content)
        if reason == "an image occurs twice" and position == 0:
            assert [image.file_name for image in read] == ["4.jpg", "7.jpg"]  # the first counts
        else:
            assert read == good
        assert left_out == {f"coco: {reason}": 1}


def test_coco_file_with_many_bad_rows_is_refused(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] += [{"image_id": 4, "caption": f"number {n}"} for n in range(292)]
    content["annotations"] += [{"image_id": 4, "caption": ""}] * 3
    assert coco(tmp_path, content)[1] == {"coco: empty caption": 3}  # of 300
    content["annotations"].append({"image_id": 8, "caption": "unknown"})
    refused(
        lambda: coco(tmp_path, content),
        "captions_val2017.json: 4 of 301 rows", "'coco: empty caption': 3",
        "the first: annotations: entry 295: empty caption",
    )  # fmt: skip


def test_coco_image_whose_only_caption_is_bad_is_an_image_without_one(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][1]["caption"] = " "
    read, left_out = coco(tmp_path, content)
    assert [image.file_name for image in read] == ["9.jpg"]
    assert left_out == {"coco: empty caption": 1, "coco: image without a caption": 1}


@pytest.mark.parametrize("key", ["images", "annotations"])
@pytest.mark.parametrize("value", [None, {}, "x"])
def test_coco_file_without_a_list_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    content = coco_content() | {key: value}
    refused(lambda: coco(tmp_path, content), "captions_val2017.json", f"'{key}'")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"images"', "{} {}", "[" * 100_000])
def test_coco_json_of_another_structure_is_refused(text: str, tmp_path: Path) -> None:
    refused(lambda: coco(tmp_path, text), "captions_val2017.json")


# Flickr30k


def flickr(folder: Path, text: str) -> dict[str, tuple[str, ...]]:
    """Captions by file name; asserts that no row is bad."""
    (folder / "results.csv").write_text(text, encoding="utf-8", newline="")
    images, bad = read_flickr30k(folder)
    assert not bad
    return {image.file_name: image.captions for image in images}


def test_flickr_captions_in_comment_order_and_images_by_name(tmp_path: Path) -> None:
    text = "\ufeff" + FIRST + 'b_2.jpg| 1| Second , "one" .\r\nb_2.jpg| 0| First .\n\na.jpg|0|x\n'
    assert flickr(tmp_path, text) == {"a.jpg": ("x",), "b_2.jpg": ("First .", 'Second , "one" .')}
    images, _ = read_flickr30k(tmp_path)
    assert [image.image_id for image in images] == ["flickr_a", "flickr_b_2"]
    assert {(image.source, image.split) for image in images} == {("flickr30k", "train")}


def test_flickr_official_row_without_its_separator_is_read(tmp_path: Path) -> None:
    text = FIRST + "2199200615.jpg| 3| A dog .\n2199200615.jpg| 4   A dog runs across the grass .\n"
    assert flickr(tmp_path, text) == {
        "2199200615.jpg": ("A dog .", "A dog runs across the grass .")
    }


def test_flickr_caption_may_hold_the_separator(tmp_path: Path) -> None:
    text = FIRST + "a.jpg| 0| a sign says | stop\na.jpg| 1   a sign | again\n"
    assert flickr(tmp_path, text) == {"a.jpg": ("a sign says | stop", "a sign | again")}


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c"])
def test_flickr_only_line_ends_end_a_row(separator: str, tmp_path: Path) -> None:
    (captions,) = flickr(tmp_path, f"{FIRST}a.jpg| 0| a dog{separator}runs\n").values()
    assert captions == (f"a dog{separator}runs",)


BAD_FORMAT = "row is not 'name| number| caption'"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.jpg| 0| again", "comment number occurs twice"),
        ("a.jpg| 00| again", "comment number occurs twice"),
        ("a.jpg| 1|", BAD_FORMAT),
        ("a.jpg| 1 |", BAD_FORMAT),
        ("a.jpg| 1|   ", BAD_FORMAT),
        ("a.jpg| 1", BAD_FORMAT),
        ("a.jpg| one| a dog", BAD_FORMAT),
        ("a.jpg| -1| a dog", BAD_FORMAT),
        ("a.jpg| ٣| a dog", BAD_FORMAT),
        (f"a.jpg| {'9' * 5000}| a dog", BAD_FORMAT),
        ("a.jpg, 1, a dog", BAD_FORMAT),
        ("| 1| a dog", BAD_FORMAT),
        ("a.jpg|| a dog", BAD_FORMAT),
        ("../a.jpg| 1| a dog", "unsafe file name"),
        ("a b.jpg| 1| a dog", "unsafe file name"),
        ("a.b.jpg| 1| a dog", "unsafe file name"),
        ("é.jpg| 1| a dog", "unsafe file name"),
        ("a.png| 0| a cat", "two files of one stem"),
    ],
)
def test_flickr_bad_row_is_counted_and_the_others_are_read(
    row: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "results.csv").write_text(f"{FIRST}a.jpg| 0| a dog\n\n{row}\nb.jpg| 0| a bird\n")
    images, bad = read_flickr30k(tmp_path)
    assert [(i.file_name, i.captions) for i in images] == [
        ("a.jpg", ("a dog",)),
        ("b.jpg", ("a bird",)),
    ]
    assert bad == {f"flickr30k: {reason}": 1}


def test_flickr_file_with_many_bad_rows_is_refused(tmp_path: Path) -> None:
    good = "".join(f"a.jpg| {number}| a dog\n" for number in range(300))
    (tmp_path / "results.csv").write_text(FIRST + good + "a.jpg, 1, a dog\n" * 3)
    assert read_flickr30k(tmp_path)[1].total() == 3
    (tmp_path / "results.csv").write_text(FIRST + good + "a.jpg, 1, a dog\n" * 4)
    refused(
        lambda: read_flickr30k(tmp_path), str(tmp_path / "results.csv"), "4 of 304", "row 302",
        "a.jpg, 1",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "a.jpg| 0| a dog\n", "name,caption\n"])
def test_flickr_file_without_its_header_is_refused(text: str, tmp_path: Path) -> None:
    refused(lambda: flickr(tmp_path, text), "results.csv")


# Files that are not text, and arbitrary text


def read_text(reader: str, folder: Path, content: bytes) -> Any:
    """Writes ``content`` where the reader expects it and reads it."""
    (folder / "annotations").mkdir(exist_ok=True)
    for name in ("results.csv", "dataset_coco.json", "annotations/captions_val2017.json"):
        (folder / name).write_bytes(content)
    if reader == "coco":
        return read_coco(folder, "val")
    return read_flickr30k(folder) if reader == "flickr" else read_karpathy(folder, "coco")


READERS = ("coco", "flickr", "karpathy")
START = {
    "coco": '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [',
    "flickr": f"{FIRST}a.jpg| 0| x\nb.jpg| ",
    "karpathy": '{"images": [{"cocoid": 1, "split": "train", "sentences": [{"raw": "x"}]}, ',
}
PIECES = [
    "1", "01", ",", '"', "\n", "\r", "\0", "|", "| ", " ", "   ", "a.jpg", "b.jpg", "../x",
    '{"image_id": 1, "caption": "x"}', '{"image_id": 1}', "]", "}", "[", "{", "null",
    '{"cocoid": 2, "split": "val", "sentences": [{"raw": "y"}]}', "\ufeff", "\u2028", "é", "²", "-",
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_file_that_is_not_utf8_is_refused_by_name(reader: str, tmp_path: Path) -> None:
    content = START[reader].encode() + b"\xff\xfe\n"
    refused(lambda: read_text(reader, tmp_path, content), tmp_path.name, "not UTF-8")


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=50)
@given(data=st.data())
def test_any_text_is_parsed_or_refused(reader: str, data: st.DataObject) -> None:
    tail = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
    text = data.draw(st.just(START[reader]) | st.just("")) + data.draw(tail)
    with tempfile.TemporaryDirectory() as folder:
        try:
            images, _ = read_text(reader, Path(folder), text.encode())
        except DataError:
            return
    for image in images:
        assert re.fullmatch(r"[\w-]+", image.image_id, re.ASCII)
        assert re.fullmatch(r"\w[\w.-]+", image.file_name, re.ASCII)
        assert all(caption.strip() for caption in image.captions)


# Real data


@needs_real_data
def test_real_flickr_has_five_captions_an_image() -> None:
    images, bad = read_flickr30k(REAL / "flickr8k")
    assert len(images) == 7000
    assert {len(image.captions) for image in images} == {5}
    assert not bad


@needs_real_data
def test_real_coco_images_are_complete() -> None:
    for split in ("train", "val"):
        images, left_out = read_coco(REAL / "coco", split)  # type: ignore[arg-type]
        names = {path.name for path in (REAL / "coco" / f"{split}2017").iterdir()}
        assert {image.file_name for image in images} == names
        assert len(images) == 20
        assert not left_out


@needs_real_data
def test_official_coco_validation_captions(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    shutil.copy(
        REAL / "annotations" / "coco_captions_val2017_full.json",
        tmp_path / "annotations" / "captions_val2017.json",
    )
    images, left_out = read_coco(tmp_path, "val")
    assert len(images) == 5000
    assert sum(len(image.captions) for image in images) == 25_014
    assert not left_out
