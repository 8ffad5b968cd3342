"""The image-text stream: images, their captions, and tables that do not belong together."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from stream_fixtures import (
    images_of,
    member,
    pixels,
    same,
    validation_images_of,
)
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.models.preprocessing import centre_views
from trimodal.training.image_text import ImageTextPairs
from trimodal.training.random_streams import SampleIndex


def test_every_caption_of_an_image_is_drawn(tiny_data: TinyData) -> None:
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    first_id = next(row["image_id"] for row in table if row["split"] == "train")
    image_captions = {tuple(row["token_ids"]) for row in table if row["image_id"] == first_id}
    images = images_of(tiny_data)
    drawn = {tuple(images[SampleIndex(k, 0)][1].tolist()) for k in range(40)}
    assert len(image_captions) == 3
    assert drawn == image_captions


def test_another_seed_gives_other_samples(tiny_data: TinyData) -> None:
    assert not same(
        images_of(tiny_data)[SampleIndex(0, 0)], images_of(tiny_data, seed=6)[SampleIndex(0, 0)]
    )


def test_validation_takes_the_first_caption(tiny_data: TinyData) -> None:
    images = validation_images_of(tiny_data)
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    rows = [row for row in index if row["split"] == "val"]
    assert len(images) == len(rows) == 3
    for number, row in enumerate(rows):
        view, ids = images[number]
        first = next(r for r in table if r["image_id"] == row["image_id"])
        assert ids.tolist() == first["token_ids"]
        assert ids.dtype == torch.int64
        jpeg = member(tiny_data.images_dir / row["shard"], f"{row['image_id']}.jpg")
        assert torch.equal(view, centre_views([pixels(jpeg)], tiny_data.augment)[0])


def test_image_and_caption_belong_together(tiny_data: TinyData) -> None:
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    rows = [row for row in index if row["split"] == "train"]
    images = images_of(tiny_data)
    assert len(images) == len(rows) == 8
    for number, row in enumerate(rows):
        image_captions = [r["token_ids"] for r in table if r["image_id"] == row["image_id"]]
        assert images[SampleIndex(0, number)][1].tolist() in image_captions


def test_word_ids_of_another_run_are_refused(tiny_data: TinyData, tmp_path: Path) -> None:
    shutil.copytree(tiny_data.captions_dir, tmp_path / "captions")
    path = tmp_path / "captions" / "token_ids.npy"
    ids = np.load(path)
    np.save(path, ids[:-1])
    with pytest.raises(
        DataError, match=r"33 captions, but token_ids\.npy beside it 32; run the cap"
    ):
        ImageTextPairs(path.parent, tiny_data.images_dir, "train", tiny_data.augment, seed=5)


def test_image_without_captions_is_not_a_sample(tiny_data: TinyData, tmp_path: Path) -> None:
    """Its only caption may consist of stop words."""
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet")
    is_kept = np.array([name != "coco_000000000003" for name in table["image_id"].to_pylist()])
    pq.write_table(table.filter(pa.array(is_kept)), tmp_path / "captions.parquet")
    np.save(tmp_path / "token_ids.npy", np.load(tiny_data.captions_dir / "token_ids.npy")[is_kept])
    images = validation_images_of(replace(tiny_data, captions_dir=tmp_path), "train")
    all_images = validation_images_of(tiny_data, "train")
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    names = [row["image_id"] for row in index if row["split"] == "train"]
    others = [number for number, name in enumerate(names) if name != "coco_000000000003"]
    assert (len(all_images), len(images)) == (8, 7)
    for number, other in enumerate(others):
        assert same(images[number], all_images[other])


def test_word_ids_stay_on_disk_in_every_process(tiny_data: TinyData) -> None:
    images = images_of(tiny_data)
    content = pickle.dumps(images)
    ids = np.load(tiny_data.captions_dir / "token_ids.npy")
    assert ids[5].tobytes() not in content
    assert same(pickle.loads(content)[SampleIndex(2, 1)], images[SampleIndex(2, 1)])  # noqa: S301
