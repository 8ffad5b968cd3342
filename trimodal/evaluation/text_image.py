"""Test sets of kind ``text_image``: captions and image files (docs/evaluation.md)."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trimodal.core.archives import StoredFile, read_file
from trimodal.core.files import read_table
from trimodal.core.schemas import IMAGE_SCHEMA
from trimodal.evaluation.caption_sets import CaptionedFile, UnusableFileError, embed_captioned
from trimodal.evaluation.config import TextImageSet
from trimodal.evaluation.hubs import bank_of
from trimodal.evaluation.pairs import write_pair_results
from trimodal.evaluation.task import Task, data_fingerprint
from trimodal.media.image import ImageError, square
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import centre_views
from trimodal.sources.image_sets import read_image_set
from trimodal.training.leaks import Leaks, check_leaks

_FLICKR8K_NAME = re.compile(r"(flickr_[0-9]+)_[0-9a-f]+")


def evaluate_text_image(task: Task, test_set: TextImageSet) -> None:
    """Embeds images from their files and captions, ranks them and writes the results.

    Raises DataError for images that are in the training data, for too few usable ones and for
    invalid annotations, EmbeddingError for embeddings that are not finite or have collapsed.
    """
    images, left_out = read_image_set(
        Path(test_set.path), test_set.dataset, test_set.annotations, test_set.split
    )
    leaks = find_image_leaks(task.inputs.images, [image.image.image_id for image in images])
    check_leaks("evaluate", leaks, task.leaks, items="test images")
    if task.leaks.test_in_training == "leave_out":
        images = [image for image in images if image.image.image_id not in leaks.videos]
        left_out["seen in training"] = len(leaks.videos)
    items = [
        CaptionedFile(
            name=image.image.image_id,
            file=image.file,
            captions=image.image.captions[: test_set.captions_per_image],
        )
        for image in images
    ]

    def embed(network: TrimodalNet, file: StoredFile) -> Tensor:
        try:
            small = square(read_file(file), task.checkpoint.frame_px)
        except ImageError as error:
            raise UnusableFileError(str(error)) from error
        pixels = torch.from_numpy(small).permute(2, 0, 1)
        views = centre_views([pixels], task.checkpoint.augment).to(task.world.device)
        embedding: Tensor = network.image(network.image.prepare(views))[0]
        return embedding

    pairs, not_usable = embed_captioned(task, "image", "images", items, embed)
    bank = bank_of(task)
    if task.world.is_main:
        fewer = sum(len(item.captions) < (test_set.captions_per_image or 0) for item in items)
        write_pair_results(
            task,
            pairs,
            duplicates=test_set.duplicates,
            folds=test_set.folds,
            leaks=leaks,
            left_out=left_out + not_usable,
            bank=bank,
            facts={
                "data": data_fingerprint(task.inputs.av),
                "images_with_fewer_captions": fewer,
            },
        )


def find_image_leaks(images_dir: Path, test_images: Sequence[str]) -> Leaks:
    """The test images that are among the images of ``images_dir``, by their data set's number."""
    table = read_table(images_dir / "index.parquet", IMAGE_SCHEMA, columns=["image_id"])
    training = {_number(name): name for name in table["image_id"].to_pylist()}
    same = {
        name: f"image {training[number]}"
        for name, number in zip(test_images, map(_number, test_images), strict=True)
        if number in training
    }
    return Leaks(
        test_videos=frozenset(test_images),
        by_reason={"same_picture": same},
        unknown_origin=frozenset(),
    )


def _number(image_id: str) -> str:
    """Flickr8k's flickr_1000268201_693b08cb0e is Flickr30k's flickr_1000268201."""
    match = _FLICKR8K_NAME.fullmatch(image_id)
    return match[1] if match else image_id
