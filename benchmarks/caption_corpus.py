"""COCO 2017, Flickr30k and word vectors of any size in their official layouts."""

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


def make_corpus(
    folder: Path, images: int, pictures: Sequence[bytes], workers: int
) -> CaptionsConfig:
    """COCO, Flickr30k and vectors in their official layouts, and the paper's settings for them."""
    coco, flickr = folder / "coco", folder / "flickr30k"
    sentences = Sentences()
    train, val = int(images * COCO_TRAIN_SHARE), max(1, int(images * COCO_VAL_SHARE))
    for split, first, count in (("train", 1, train), ("val", train + 1, val)):
        write_coco(coco, split, range(first, first + count), pictures, sentences)
    write_flickr(flickr, images - train - val, pictures, sentences)
    write_vectors(folder / "vectors.bin", sentences.words)
    return CaptionsConfig(
        coco=str(coco),
        coco_annotations="official",
        flickr30k=str(flickr),
        flickr30k_annotations="official",
        vectors=str(folder / "vectors.bin"),
        frequent_words=FREQUENT_WORDS,
        learned_words=0,
        image_px=256,
        jpeg_quality=90,
        images_per_shard=min(5000, max(1, images // 20)),  # every worker has its share
        min_coverage=1.0,
        workers=workers,
    )


class Sentences:
    """Captions without end: real ones or ones of frequent words, each with a word or two changed,
    one in ten words of those into a rare one.
    """

    def __init__(self) -> None:
        self._random = random.Random(0)  # noqa: S311 - no secret
        rare = [
            "".join(self._random.choices(string.ascii_lowercase, k=9)) for _ in range(RARE_WORDS)
        ]
        path = SHARED / "annotations" / "coco_captions_val2017_full.json"
        if path.is_file():
            rows = json.loads(path.read_text())["annotations"]
            self._patterns = [row["caption"].split() for row in rows]
        else:
            self._patterns = [self._random.choices(rare[:5000], k=10) for _ in range(25_000)]
        seen = [word for pattern in self._patterns for word in pattern]
        self._words = self._random.sample(seen, min(len(seen), 200_000))
        self._words += self._random.choices(rare, k=len(self._words) // 10)
        self.words = sorted({"".join(filter(str.isalpha, w.lower())) for w in self._words} - {""})

    def next(self) -> str:
        """Another caption."""
        words = list(self._random.choice(self._patterns))
        for _ in range(2):
            words[self._random.randrange(len(words))] = self._random.choice(self._words)
        return " ".join(words)


def write_coco(
    folder: Path, split: str, numbers: range, pictures: Sequence[bytes], sentences: Sentences
) -> None:
    """``annotations/captions_<split>2017.json`` with the official file's fields, and the zip."""
    address = "http://images.cocodataset.org"
    rows = [
        {
            "license": 4, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640,
            "coco_url": f"{address}/{split}2017/{number:012d}.jpg", "id": number,
            "date_captured": "2013-11-14 17:02:52",
            "flickr_url": f"http://farm7.staticflickr.com/6116/{number:010d}_da26cf2c9e_z.jpg",
        }
        for number in numbers
    ]  # fmt: skip
    annotations = [
        {"image_id": number, "id": 5 * number + place, "caption": sentences.next()}
        for place in range(CAPTIONS_PER_IMAGE)
        for number in numbers
    ]
    path = folder / "annotations" / f"captions_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": rows, "annotations": annotations}))
    names = [f"{split}2017/{row['file_name']}" for row in rows]
    write_zip(folder / f"{split}2017.zip", names, pictures)


def write_flickr(folder: Path, count: int, pictures: Sequence[bytes], sentences: Sentences) -> None:
    """``results.csv`` and the zip."""
    folder.mkdir(parents=True)
    names = [f"{1_000_000_000 + 7919 * number}.jpg" for number in range(count)]
    with (folder / "results.csv").open("w") as file:
        file.write("image_name| comment_number| comment\n")
        for name in names:
            for place in range(CAPTIONS_PER_IMAGE):
                file.write(f"{name}| {place}| {sentences.next()} .\n")
    write_zip(
        folder / "flickr30k-images.zip", [f"flickr30k-images/{name}" for name in names], pictures
    )


def write_zip(path: Path, names: Sequence[str], pictures: Sequence[bytes]) -> None:
    """The pictures in turn under these names, stored as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        shown = bar(names, task=f"making {path.name}", unit="pictures")
        for place, name in enumerate(shown):
            archive.writestr(name, pictures[place % len(pictures)])


def write_vectors(path: Path, words: Sequence[str]) -> None:
    """word2vec's binary format: nine in ten of the words, and others up to 220,000."""
    known = [word for place, word in enumerate(words) if place % 10]
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
    """COCO's pictures where they are there, else soft ones that are about as hard to decode."""
    if found := sorted((SHARED / "coco").glob("*2017/*.jpg")):
        return [path.read_bytes() for path in found]
    return [jpeg_of(np.random.default_rng(seed), width=640, height=480) for seed in range(40)]


def jpeg_of(rng: np.random.Generator, *, width: int, height: int) -> bytes:
    """Colours that change every eight pixels, softly."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
