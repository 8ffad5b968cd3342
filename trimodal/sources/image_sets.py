"""One split of a captioned image data set, as a test set: COCO, Flickr30k or Flickr8k."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trimodal.core.records import CaptionedImage, DataError, reading_text
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import names_in_split, read_flickr30k
from trimodal.sources.image_files import (
    COCO_TRAIN,
    COCO_VAL,
    FLICKR8K,
    FLICKR30K,
    Annotations,
    ImageFile,
    image_files,
    located,
)
from trimodal.sources.karpathy import read_karpathy_split
from trimodal.sources.rows import (
    BadRowError,
    RowTally,
    flickr_image_id,
    plain_file_name,
)

Dataset = Literal["coco", "flickr30k", "flickr8k"]
ImageSplit = Literal["train", "val", "dev", "test"]
_TOKENS = "Flickr8k.token.txt"
_TOKEN_ROW = re.compile(r"(?P<name>[^#\t]+)#(?P<number>[0-9]{1,9})\t(?P<caption>.*)")
_FLICKR8K_LISTS = {"train": "trainImages", "dev": "devImages", "test": "testImages"}


def read_image_set(
    folder: Path, dataset: Dataset, annotations: Annotations, split: ImageSplit
) -> tuple[list[ImageFile], Counter[str]]:
    """The images of a split with their captions and files, in the order of the annotations; and
    counts of what is left out, by reason.

    ``karpathy`` reads ``dataset_<dataset>.json``. ``official`` reads, of COCO,
    ``annotations/captions_{train,val}2017.json``; of Flickr30k and Flickr8k ``results.csv`` with
    ``splits.csv`` (image_name, split) beside it, or Flickr8k's ``Flickr8k.token.txt`` with
    ``Flickr_8k.{train,dev,test}Images.txt``. Images are in the folders or archives of
    :mod:`~trimodal.sources.image_files`. Raises DataError, naming the file, for invalid or missing
    annotations and for a split that the data set has not.
    """
    if annotations == "karpathy":
        images, left_out = read_karpathy_split(folder, dataset, split)
    elif dataset == "coco":
        if split not in ("train", "val"):
            raise DataError(f"{folder}: COCO's official captions have splits train and val only")
        images, left_out = read_coco(folder, split)
    else:
        images, left_out = _read_flickr(folder, dataset, split)
    if not images:
        raise DataError(f"{folder}: no images of the {split} split")
    if dataset == "coco":
        files = image_files(folder, COCO_VAL, optional=True)
        files = image_files(folder, COCO_TRAIN, optional=bool(files)) | files
    else:
        files = image_files(folder, FLICKR30K + FLICKR8K)
    return located(images, files), left_out


def _read_flickr(
    folder: Path, dataset: Dataset, split: str
) -> tuple[list[CaptionedImage], Counter[str]]:
    if (folder / "results.csv").exists() or dataset == "flickr30k":
        images, left_out = read_flickr30k(folder)
        names, bad_rows = names_in_split(folder / "splits.csv", split)
    else:
        images, left_out = _read_tokens(folder / _TOKENS)
        if split not in _FLICKR8K_LISTS:
            raise DataError(f"{folder}: Flickr8k has splits {', '.join(_FLICKR8K_LISTS)}")
        names, bad_rows = _names_in_list(folder / f"Flickr_8k.{_FLICKR8K_LISTS[split]}.txt")
    by_name = {image.file_name: image for image in images}
    left_out += bad_rows
    if uncaptioned := sum(name not in by_name for name in names):
        left_out[f"{dataset}: image of the split without a caption"] += uncaptioned
    chosen = [by_name[name] for name in names if name in by_name]
    return [replace(image, split="test", source=dataset) for image in chosen], left_out


def _names_in_list(path: Path) -> tuple[list[str], Counter[str]]:
    tally = RowTally(path, "flickr8k")
    names: dict[str, None] = {}
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            with tally.row(f"row {number} ({line!r:.80})"):
                names[plain_file_name(line.strip())] = None
    return list(names), tally.checked(names)


def _read_tokens(path: Path) -> tuple[list[CaptionedImage], Counter[str]]:
    """Flickr8k's ``<file name>#<number>`` TAB caption."""
    tally = RowTally(path, "flickr8k")
    captions: dict[str, dict[int, str]] = {}
    with reading_text(path):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        with tally.row(f"row {number} ({line!r:.80})"):
            match = _TOKEN_ROW.fullmatch(line)
            if match is None or not match["caption"].strip():
                raise BadRowError("row is not 'name#number', a tab and a caption")
            numbered = captions.setdefault(plain_file_name(match["name"]), {})
            if int(match["number"]) in numbered:
                raise BadRowError("caption number occurs twice")
            numbered[int(match["number"])] = match["caption"].strip()
    images = [
        CaptionedImage(
            image_id=flickr_image_id(name),
            split="test",
            source="flickr8k",
            file_name=name,
            captions=tuple(caption for _, caption in sorted(numbered.items())),
        )
        for name, numbered in captions.items()
    ]
    return images, tally.checked(images)
