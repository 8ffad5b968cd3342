"""Synthetic COCO 2017, Flickr30k and word vectors of any size in their official layouts."""

import io
import json
import random
import string
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trimodal.core.progress import bar
from trimodal.preprocess.captions import CaptionsConfig

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
CAPTIONS_PER_IMAGE = 5
COCO_TRAIN_SHARE, COCO_VAL_SHARE = 0.76, 0.03  # 118,287 and 5,000 of 155,000 images
VECTORS = 220_000
FREQUENT_WORDS = 200_000
RARE_WORDS = 25_000


def make_corpus(folder: Path, images: int, jpegs: Sequence[bytes]) -> CaptionsConfig:
    """Writes COCO, Flickr30k and word vectors with ``images`` images, ``jpegs`` in turn; returns
    the paper-scale settings that read them.
    """
    coco, flickr = folder / "coco", folder / "flickr30k"
    sentences = Sentences()
    train, val = int(images * COCO_TRAIN_SHARE), max(1, int(images * COCO_VAL_SHARE))
    for split, first, count in (("train", 1, train), ("val", train + 1, val)):
        write_coco(coco, split, range(first, first + count), jpegs, sentences)
    write_flickr(flickr, images - train - val, jpegs, sentences)
    write_vectors(folder / "vectors.bin", sentences.words)
    return CaptionsConfig(
        coco=str(coco),
        coco_annotations="official",
        flickr30k=str(flickr),
        flickr30k_annotations="official",
        flickr30k_held_out=0,
        language="english",
        vectors=str(folder / "vectors.bin"),
        frequent_words=FREQUENT_WORDS,
        unknown_words="error",
        learned_words=0,
        image_px=256,
        jpeg_quality=90,
        exif_orientation="apply",
        images_per_shard=min(5000, max(1, images // 20)),  # enough shards for all workers
        min_coverage=1.0,
    )


class Sentences:
    """An endless source of captions: real COCO ones where they are available, else made of frequent
    words, each with up to two words replaced; about one in ten of the replacements is a rare word.
    """

    def __init__(self) -> None:
        self._random = random.Random(0)  # noqa: S311 - not a secret
        rare = [
            "".join(self._random.choices(string.ascii_lowercase, k=9)) for _ in range(RARE_WORDS)
        ]
        path = SHARED / "annotations" / "coco_captions_val2017_full.json"
        if path.is_file():
            rows = json.loads(path.read_text())["annotations"]
            self._templates = [row["caption"].split() for row in rows]
        else:
            self._templates = [self._random.choices(rare[:5000], k=10) for _ in range(25_000)]
        words = [word for template in self._templates for word in template]
        self._words = self._random.sample(words, min(len(words), 200_000))
        self._words += self._random.choices(rare, k=len(self._words) // 10)
        self.words = sorted({"".join(filter(str.isalpha, w.lower())) for w in self._words} - {""})

    def next(self) -> str:
        """The next caption."""
        words = list(self._random.choice(self._templates))
        for _ in range(2):
            words[self._random.randrange(len(words))] = self._random.choice(self._words)
        return " ".join(words)


def write_coco(
    folder: Path, split: str, numbers: range, jpegs: Sequence[bytes], sentences: Sentences
) -> None:
    """``annotations/captions_<split>2017.json`` with the official fields, and the zip."""
    base_url = "http://images.cocodataset.org"
    rows = [
        {
            "license": 4, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640,
            "coco_url": f"{base_url}/{split}2017/{number:012d}.jpg", "id": number,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": f"http://farm7.staticflickr.com/6116/{number:010d}_da26cf2c9e_z.jpg",
        }
        for number in numbers
    ]  # fmt: skip
    annotations = [
        {"image_id": number, "id": 5 * number + repeat, "caption": sentences.next()}
        for repeat in range(CAPTIONS_PER_IMAGE)
        for number in numbers
    ]
    path = folder / "annotations" / f"captions_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": rows, "annotations": annotations}))
    names = [f"{split}2017/{row['file_name']}" for row in rows]
    write_zip(folder / f"{split}2017.zip", names, jpegs)


def write_flickr(folder: Path, count: int, jpegs: Sequence[bytes], sentences: Sentences) -> None:
    """``results.csv`` and the zip."""
    folder.mkdir(parents=True)
    names = [f"{1_000_000_000 + 7919 * number}.jpg" for number in range(count)]
    with (folder / "results.csv").open("w") as file:
        file.write("image_name| comment_number| comment\n")
        for name in names:
            for repeat in range(CAPTIONS_PER_IMAGE):
                file.write(f"{name}| {repeat}| {sentences.next()} .\n")
    write_zip(
        folder / "flickr30k-images.zip", [f"flickr30k-images/{name}" for name in names], jpegs
    )


def write_zip(path: Path, names: Sequence[str], jpegs: Sequence[bytes]) -> None:
    """A zip of ``jpegs`` in turn under these names, uncompressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        progress = bar(names, task=f"writing {path.name}", unit="images")
        for row, name in enumerate(progress):
            archive.writestr(name, jpegs[row % len(jpegs)])


def write_vectors(path: Path, words: Sequence[str]) -> None:
    """word2vec's binary format: nine in ten of the words, then others up to 220,000 in all."""
    known = [word for row, word in enumerate(words) if row % 10]
    letters = string.ascii_lowercase
    others = ("".join(letters[n // 26**k % 26] for k in range(8)) for n in range(VECTORS))
    listed = list(dict.fromkeys([*known, *others]))[:VECTORS]
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(f"{len(listed)} 300\n".encode())
        for word in listed:
            file.write(word.encode() + b" " + rng.standard_normal(300, np.float32).tobytes())


def thumbnails() -> list[bytes]:
    """A hundred small JPEGs."""
    return [jpeg_of(np.random.default_rng(seed), width=32, height=24) for seed in range(100)]


def photographs() -> list[bytes]:
    """COCO's images where available, else smooth noise that takes about as long to decode."""
    if paths := sorted((SHARED / "coco").glob("*2017/*.jpg")):
        return [path.read_bytes() for path in paths]
    return [jpeg_of(np.random.default_rng(seed), width=640, height=480) for seed in range(40)]


def jpeg_of(rng: np.random.Generator, *, width: int, height: int) -> bytes:
    """A JPEG of random colours, interpolated from a grid of eight pixels."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
