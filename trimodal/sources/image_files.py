"""The images of the caption data sets and the files that hold their pixels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimodal.core.archives import StoredFile, files_by_name
from trimodal.core.progress import log
from trimodal.core.records import CaptionedImage, DataError
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import held_out, read_flickr30k, read_training_split
from trimodal.sources.karpathy import read_karpathy

Annotations = Literal["official", "karpathy", "none"]
FlickrAnnotations = Literal["official", "splits", "karpathy", "none"]

# A data set's images are in a folder with one of these names or in an archive with that name and
# one of ARCHIVE_SUFFIXES; the first that exists is used.
COCO_TRAIN = ("train2017",)
COCO_VAL = ("val2017",)
FLICKR30K = ("images", "flickr30k-images", "flickr30k_images")
FLICKR8K = ("Flicker8k_Dataset", "Flickr8k_Dataset")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A captioned image and the file of its pixels; None if that is missing."""

    image: CaptionedImage
    file: StoredFile | None


def read_coco_files(folder: Path, annotations: Annotations) -> tuple[list[ImageFile], Counter[str]]:
    """COCO 2017's images with their captions and files, train before val; and counts of
    what is left out, by reason.

    ``official`` reads ``annotations/captions_{train,val}2017.json``; ``karpathy`` reads
    ``dataset_coco.json``, whose images can be in train2017 or val2017; ``none`` reads nothing.
    Raises DataError for invalid annotations or missing images.
    """
    if annotations == "none":
        return [], Counter()
    train = image_files(folder, COCO_TRAIN)
    val = image_files(folder, COCO_VAL)
    if annotations == "karpathy":
        images, left_out = read_karpathy(folder, "coco")
        return located(images, val | train), left_out
    train_images, left_out = read_coco(folder, "train")
    val_images, left_out_of_val = read_coco(folder, "val")
    return located(train_images, train) + located(val_images, val), left_out + left_out_of_val


def read_flickr30k_files(
    folder: Path, annotations: FlickrAnnotations, held_out_images: int = 0
) -> tuple[list[ImageFile], Counter[str]]:
    """Flickr30k's images with their captions and files; and counts of what is left out, by reason.

    ``official`` reads ``results.csv``, all training images; ``splits`` those of them that
    ``splits.csv`` beside it calls ``train``; ``karpathy`` reads ``dataset_flickr30k.json``;
    ``none`` reads nothing. ``held_out_images`` training images become validation images. Raises
    DataError for invalid annotations or missing images.
    """
    if annotations == "none":
        return [], Counter()
    if annotations == "karpathy":
        images, left_out = read_karpathy(folder, "flickr30k")
    elif annotations == "splits":
        images, left_out = read_training_split(folder)
    else:
        images, left_out = read_flickr30k(folder)
    images = held_out(images, held_out_images)
    return located(images, image_files(folder, FLICKR30K + FLICKR8K)), left_out


def located(images: Sequence[CaptionedImage], files: Mapping[str, StoredFile]) -> list[ImageFile]:
    """Each image with its file."""
    return [ImageFile(image=image, file=files.get(image.file_name)) for image in images]


def image_files(
    folder: Path, names: Sequence[str], *, optional: bool = False
) -> dict[str, StoredFile]:
    """The image files of the first folder or archive that exists, by bare name. Raises DataError if
    none does, unless ``optional``.
    """
    candidates = [f"{name}{suffix}" for name in names for suffix in ("", *ARCHIVE_SUFFIXES)]
    for name in candidates:
        if (folder / name).exists():
            files, warnings = files_by_name(folder / name, _IMAGE_SUFFIXES)
            for warning in warnings:
                log.info(warning)
            return files
    if optional:
        return {}
    raise DataError(f"{folder}: no images; looked for {', '.join(candidates)}")
