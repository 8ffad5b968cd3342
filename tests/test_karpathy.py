"""Karpathy's splits of COCO and Flickr30k: images by split, and counts of what is left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import refused

from trimodal.sources.karpathy import read_karpathy

HALF = "half a surrogate pair \ud83d"


def entry(name: str, split: str, *captions: Any, **more: Any) -> dict[str, Any]:
    sentences = [{"raw": text, "tokens": [], "imgid": 0, "sentid": 0} for text in captions]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": 0, **more}


def karpathy(
    folder: Path, source: Any, entries: list[Any]
) -> tuple[list[tuple[Any, ...]], Counter[str]]:
    """Id, file name, split and captions of each image; and counts of what is left out."""
    content = {"images": entries, "dataset": source}
    (folder / f"dataset_{source}.json").write_text(json.dumps(content))
    images, left_out = read_karpathy(folder, source)
    assert {image.source for image in images} <= {source}
    return [(i.image_id, i.file_name, i.split, i.captions) for i in images], left_out


def test_karpathy_flickr_splits(tmp_path: Path) -> None:
    read, left_out = karpathy(
        tmp_path, "flickr30k",
        [
            entry("d.jpg", "train", " second image \n", "again"),
            entry("c.jpg", "restval", "x"),
            entry("b.jpg", "val", "y"),
            entry("a.jpg", "test", "z", ""),
            entry("e.jpg", "test", "z"),
        ],
    )  # fmt: skip
    assert read == [
        ("flickr_b", "b.jpg", "val", ("y",)),
        ("flickr_c", "c.jpg", "train", ("x",)),
        ("flickr_d", "d.jpg", "train", ("second image", "again")),
    ]
    assert left_out == {"flickr30k: image of the test split": 2}


def test_karpathy_coco_names_are_those_of_2017(tmp_path: Path) -> None:
    read, left_out = karpathy(
        tmp_path, "coco",
        [
            entry("COCO_val2014_000000000042.jpg", "restval", "x", cocoid=42, filepath="val2014"),
            entry("COCO_train2014_000000000009.jpg", "val", "y", cocoid=9, filepath="train2014"),
        ],
    )  # fmt: skip
    assert read == [
        ("coco_000000000009", "000000000009.jpg", "val", ("y",)),
        ("coco_000000000042", "000000000042.jpg", "train", ("x",)),
    ]
    assert not left_out


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x", "no str 'filename'"),
        (entry("../x.jpg", "train", "x"), "unsafe file name"),
        (entry("a.b.jpg", "train", "x"), "unsafe file name"),
        (entry("a.jpg", "train", "x"), "an image occurs twice"),
        (entry("a.png", "train", "x"), "an image occurs twice"),
        (entry("b.jpg", "training", "x"), "unknown split"),
        (entry("b.jpg", "train", "x") | {"split": None}, "no str 'split'"),
        (entry("b.jpg", "train") | {"sentences": "x"}, "no list 'sentences'"),
        (entry("b.jpg", "train"), "image without a caption"),
    ],
)
def test_karpathy_bad_image_is_counted_and_the_others_are_read(
    row: Any, reason: str, tmp_path: Path
) -> None:
    good = [entry("a.jpg", "train", "a dog"), entry("z.jpg", "val", "a cat")]
    read, left_out = karpathy(tmp_path, "flickr30k", [good[0], row, good[1]])
    assert [image[0] for image in read] == ["flickr_a", "flickr_z"]
    assert read[0][3] == ("a dog",)
    assert left_out == {f"flickr30k: {reason}": 1}


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("x", "no str 'raw'"),
        ({"tokens": ["x"]}, "no str 'raw'"),
        ({"raw": HALF}, "no str 'raw'"),
        ({"raw": "\t"}, "empty caption"),
    ],
)
def test_karpathy_bad_sentence_is_counted_and_the_others_are_read(
    sentence: Any, reason: str, tmp_path: Path
) -> None:
    row = entry("a.jpg", "train", "one", "two")
    row["sentences"].insert(1, sentence)
    read, left_out = karpathy(tmp_path, "flickr30k", [row])
    assert read == [("flickr_a", "a.jpg", "train", ("one", "two"))]
    assert left_out == {f"flickr30k: {reason}": 1}


@pytest.mark.parametrize("number", [None, "42", -1, 10**12, True])
def test_karpathy_coco_image_without_its_number_is_counted(number: Any, tmp_path: Path) -> None:
    row = entry("COCO_val2014_000000000042.jpg", "val", "x", cocoid=number)
    good = entry("COCO_val2014_000000000007.jpg", "val", "x", cocoid=7)
    read, left_out = karpathy(tmp_path, "coco", [row, good])
    assert [image_id for image_id, *_ in read] == ["coco_000000000007"]
    assert left_out.total() == 1


def test_karpathy_test_images_are_not_bad_rows_and_many_bad_rows_are_refused(
    tmp_path: Path,
) -> None:
    entries = [entry(f"{n}.jpg", "test", "x") for n in range(100)]
    entries += [entry(f"t{n}.jpg", "train", "x") for n in range(50)]
    assert karpathy(tmp_path, "flickr30k", entries)[1].total() == 100
    entries += [entry("u.jpg", "else", "x"), entry("v.jpg", "train", " ")]
    assert karpathy(tmp_path, "flickr30k", entries)[1].total() == 103
    entries += [entry("w.jpg", "else", "x")]
    refused(lambda: karpathy(tmp_path, "flickr30k", entries), "dataset_flickr30k.json: 3 of 204")


@pytest.mark.parametrize("text", ["", "[]", '{"images": {}}', '{"dataset": "coco"}'])
def test_karpathy_json_of_another_structure_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_coco.json").write_text(text)
    refused(lambda: read_karpathy(tmp_path, "coco"), "dataset_coco.json")
