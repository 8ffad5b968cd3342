"""Both streams: samples depend only on seed, round and index; batches have their samples."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from configs import MACHINE
from stream_fixtures import (
    images_of,
    pairs_of,
    same,
    validation_images_of,
    validation_pairs_of,
)
from trainer_fixtures import CONFIG
from training_fixtures import TinyData

from trimodal.core.files import read_table, write_table
from trimodal.core.records import DataError
from trimodal.training.image_audio import ImageAudioPairs, ImageAudioValidation
from trimodal.training.image_text import ImageTextPairs, ImageTextValidation
from trimodal.training.random_streams import SampleIndex
from trimodal.training.streams import open_streams


@pytest.mark.parametrize("stream", ["audio", "text"])
def test_sample_depends_only_on_seed_round_and_index(stream: str, tiny_data: TinyData) -> None:
    first, again = (
        pairs_of(tiny_data) if stream == "audio" else images_of(tiny_data) for _ in range(2)
    )
    assert all(same(first[SampleIndex(0, k)], again[SampleIndex(0, k)]) for k in (0, 3, 1, 0))
    assert not same(first[SampleIndex(0, 0)], first[SampleIndex(1, 0)])
    assert not same(first[SampleIndex(0, 0)], first[SampleIndex(0, 1)])


@pytest.mark.parametrize("open_set", [pairs_of, images_of])
def test_batch_has_its_samples(
    open_set: Callable[[TinyData], ImageAudioPairs | ImageTextPairs], tiny_data: TinyData
) -> None:
    dataset = open_set(tiny_data)
    indices = [SampleIndex(2, sample) for sample in (3, 0, 5, 1)]
    batch = dataset.__getitems__(indices)
    assert all(len(side) == 4 for side in batch)
    for position, index in enumerate(indices):
        assert same((batch[0][position], batch[1][position]), dataset[index])


@pytest.mark.parametrize("open_set", [validation_pairs_of, validation_images_of])
def test_validation_batch_is_its_samples(
    open_set: Callable[[TinyData, str], ImageAudioValidation | ImageTextValidation],
    tiny_data: TinyData,
) -> None:
    """Nothing is random: a second data set gives the same samples."""
    dataset, again = open_set(tiny_data, "train"), open_set(tiny_data, "train")
    rows = (3, 0, 5, 1)
    batch = dataset.__getitems__(rows)
    assert all(len(side) == 4 for side in batch)
    for position, row in enumerate(rows):
        assert same((batch[0][position], batch[1][position]), dataset[row])
        assert same(dataset[row], again[row])
        assert same(dataset[row], dataset[row])


@pytest.mark.parametrize(
    ("open_set", "open_validation"),
    [(pairs_of, validation_pairs_of), (images_of, validation_images_of)],
)
def test_training_never_gives_a_validation_view(
    open_set: Callable[[TinyData], ImageAudioPairs | ImageTextPairs],
    open_validation: Callable[[TinyData, str], ImageAudioValidation | ImageTextValidation],
    tiny_data: TinyData,
) -> None:
    """Every view of four rounds is augmented; no round or index gives a plain one."""
    dataset, validation = open_set(tiny_data), open_validation(tiny_data, "train")
    assert len(dataset) == len(validation)
    for number in range(4):
        for sample in range(len(dataset)):
            view = dataset[SampleIndex(number, sample)][0]
            assert not torch.equal(view, validation[sample][0])
    with pytest.raises(ValueError, match="non-negative"):
        dataset[SampleIndex(-1, 0)]
    with pytest.raises(AttributeError):
        dataset[0]  # type: ignore[index]


def test_captions_without_validation_images_are_refused_before_training(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    images = shutil.copytree(tiny_data.images_dir, tmp_path / "images")
    index = read_table(images / "index.parquet")
    write_table(images / "index.parquet", index.filter(pc.field("split") != "val"))
    with pytest.raises(DataError, match=r"index\.parquet: .*set captions\.flickr30k_held_out"):
        open_streams(
            tiny_data.av_dir, tiny_data.captions_dir, images, CONFIG, tiny_data.front_end,
            tiny_data.augment, MACHINE.shard_cache,
        )  # fmt: skip
