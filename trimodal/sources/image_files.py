"""The caption sets with their pictures: which images there are, and where their pixels lie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimodal.core.archives import StoredFile, files_by_name
from trimodal.core.progress import log
from trimodal.core.records import CaptionedImage, DataError
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.karpathy import read_karpathy

Annotations = Literal["official", "karpathy"]

# The pictures of a set lie in a folder of one of these names or in an archive of that name, which
# ends as FORMS says; the first that is there is taken.
COCO_TRAIN = ("train2017",)
COCO_VAL = ("val2017",)
FLICKR30K = ("images", "flickr30k-images", "flickr30k_images")
FORMS = ("", ".zip", ".tar", ".tar.gz", ".tgz")
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A captioned image and where its pixels are; None where its file is missing."""

    image: CaptionedImage
    file: StoredFile | None


def read_coco_files(folder: Path, annotations: Annotations) -> tuple[list[ImageFile], Counter[str]]:
    """COCO 2017's images with their captions and files, train before val, and what is left out.

    ``official`` reads ``annotations/captions_{train,val}2017.json``; ``karpathy`` reads
    ``dataset_coco.json``, whose images may lie in train2017 and in val2017. Raises DataError where
    annotations or pictures are not as they should be.
    """
    train = _pictures(folder, COCO_TRAIN)
    val = _pictures(folder, COCO_VAL)
    if annotations == "karpathy":
        images, left_out = read_karpathy(folder, "coco")
        return _located(images, val | train), left_out
    train_images, left_out = read_coco(folder, "train")
    val_images, left_out_of_val = read_coco(folder, "val")
    return _located(train_images, train) + _located(val_images, val), left_out + left_out_of_val


def read_flickr30k_files(
    folder: Path, annotations: Annotations
) -> tuple[list[ImageFile], Counter[str]]:
    """Flickr30k's images with their captions and files, and what is left out.

    ``official`` reads ``results.csv``, all of which trains; ``karpathy`` reads
    ``dataset_flickr30k.json``. Raises DataError where annotations or pictures are not as they
    should be.
    """
    if annotations == "karpathy":
        images, left_out = read_karpathy(folder, "flickr30k")
    else:
        images, left_out = read_flickr30k(folder)
    return _located(images, _pictures(folder, FLICKR30K)), left_out


def _located(images: Sequence[CaptionedImage], files: Mapping[str, StoredFile]) -> list[ImageFile]:
    return [ImageFile(image=image, file=files.get(image.file_name)) for image in images]


def _pictures(folder: Path, names: Sequence[str]) -> dict[str, StoredFile]:
    """The picture files of the first place that is there, by bare name."""
    wanted = [f"{name}{form}" for name in names for form in FORMS]
    for name in wanted:
        if (folder / name).exists():
            files, warnings = files_by_name(folder / name, _PICTURES)
            for warning in warnings:
                log.info(f"captions: {warning}")
            return files
    raise DataError(f"{folder}: no pictures; looked for {', '.join(wanted)}")
