"""Every bad image and every bad caption goes through the captions stage in one run."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from archive_fixtures import pack
from configs import MACHINE, config_for_tests
from data_fixtures import write_vectors
from PIL import Image

from trimodal.preprocess.captions import CaptionsConfig, prepare_captions

from .image_corpus import CAPTIONS, IMAGES, BadCaption, BadImage

_GOOD = 900  # captions beside the bad ones, of which one in a hundred may be bad
_IMAGE, _CAPTION = 1000, 2000  # the first image numbers of each corpus


def write_annotations(folder: Path, split: str, captions: dict[int, list[str]]) -> None:
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in captions],
        "annotations": [
            {"image_id": number, "caption": text}
            for number, texts in captions.items() for text in texts
        ],
    }  # fmt: skip
    path = folder / "annotations" / f"captions_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rubbish")
    good = next(image for image in IMAGES if image.name == "progressive JPEG").make()
    assert good is not None
    contents = {_IMAGE + n: image.make() for n, image in enumerate(IMAGES)}
    files = {f"../{number}.jpg": content for number, content in contents.items() if content}
    files |= {f"{number}.jpg": b"" for number, content in contents.items() if content == b""}
    files |= {f"{_CAPTION + n}.jpg": good for n in range(len(CAPTIONS))} | {"1.jpg": good}
    captions = {number: ["a dog"] for number in contents}
    captions |= {_CAPTION + n: [caption.text] for n, caption in enumerate(CAPTIONS)}
    write_annotations(root / "coco", "train", captions | {1: ["good dog"] * _GOOD})
    write_annotations(root / "coco", "val", {1: ["a dog"]})
    pack(root / "coco" / "train2017.zip", files)
    pack(root / "coco" / "val2017.tar", {"1.jpg": good})
    pack(root / "flickr" / "images.zip", {"a.jpg": good})
    rows = "image_name| comment_number| comment\na.jpg| 0| a dog\n"
    (root / "flickr" / "results.csv").write_text(rows)
    write_vectors(root / "vectors.bin", ["dog"])
    config = config_for_tests(
        CaptionsConfig, coco=str(root / "coco"), flickr30k=str(root / "flickr"),
        vectors=str(root / "vectors.bin"), image_px=16, images_per_shard=100, min_coverage=0.0,
    )  # fmt: skip
    # As outside of pytest, where the warning is not an error.
    with warnings.catch_warnings(action="default", category=Image.DecompressionBombWarning):
        prepare_captions(config, root / "captions", root / "images", MACHINE)
    return root


def rows_of(table: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in pq.read_table(table).to_pylist()}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_image_has_its_outcome(image: BadImage, run: Path) -> None:
    image_id = f"coco_{_IMAGE + IMAGES.index(image):012d}"
    assert (image_id in rows_of(run / "images" / "index.parquet")) == (not image.left_out)
    assert (image_id in rows_of(run / "captions" / "captions.parquet")) == (not image.left_out)


@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda caption: caption.name)
def test_caption_has_its_outcome(caption: BadCaption, run: Path) -> None:
    row = rows_of(run / "captions" / "captions.parquet").get(
        f"coco_{_CAPTION + CAPTIONS.index(caption):012d}"
    )
    assert (row is None) == bool(caption.left_out)
    if row is not None:
        assert len(row["tokens"]) == caption.tokens
        assert np.count_nonzero(row["token_ids"]) == min(caption.tokens, 16)


def test_everything_that_was_left_out_is_counted(run: Path) -> None:
    expected = Counter(row.left_out for row in (*IMAGES, *CAPTIONS) if row.left_out)
    expected["coco: image without a caption"] = expected["coco: empty caption"]
    stats = json.loads((run / "captions" / "stats.json").read_text())
    assert stats["left_out"] == expected
