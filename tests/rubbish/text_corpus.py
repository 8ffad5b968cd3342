"""Bad and unusual text files (and word vectors), each with the expected result of its reader."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from configs import config_for_tests

from trimodal.core.config import load_section
from trimodal.losses.config import LossConfig
from trimodal.overlay import apply_overlay
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.karpathy import read_karpathy
from trimodal.sources.msrvtt import read_queries
from trimodal.sources.vggsound import read_vggsound
from trimodal.sources.word2vec import read_vectors

Read = tuple[Sized, Counter[str]]


@dataclass(frozen=True, kw_only=True)
class BadText:
    """A file for a ``reader`` (a key of :data:`READERS`). It is refused with a message that
    contains its name and ``refused``, or gives this number of ``records`` and has its bad rows
    counted by reason.
    """

    name: str
    reader: str
    content: bytes
    refused: str = ""
    records: int = 0
    bad_rows: dict[str, int] = field(default_factory=dict)

    def outcome(self) -> str:
        """The expected outcome, as text."""
        if self.refused:
            return f"refused: {self.refused}"
        counted = [f"{count} {reason}" for reason, count in self.bad_rows.items()]
        return ", ".join([f"{self.records} records", *counted])


def _overlay(path: Path) -> Read:
    params = path.with_name("params.yaml")
    params.write_text("train: {epochs: 1}\n")
    return apply_overlay(params, path), Counter()


# By format: the file's name and its reader.
READERS: dict[str, tuple[str, Callable[[Path], Read]]] = {
    "vggsound.csv": ("vggsound.csv", lambda path: read_vggsound(path, ("train", "test"))),
    "MSR-VTT CSV": ("test.csv", read_queries),
    "MSR-VTT JSON": ("test.json", read_queries),
    "COCO": (
        "annotations/captions_val2017.json", lambda path: read_coco(path.parents[1], "val"),
    ),
    "Flickr30k": ("results.csv", lambda path: read_flickr30k(path.parent)),
    "Karpathy": ("dataset_coco.json", lambda path: read_karpathy(path.parent, "coco")),
    "word2vec": (
        "vectors.bin", lambda path: (read_vectors(path, ["cat", "dog"], 3), Counter()),
    ),
    "params": (
        "params.yaml", lambda path: ([load_section(path, "loss", LossConfig)], Counter()),
    ),
    "overlay": ("overlay.yaml", _overlay),
}  # fmt: skip

_ROW = "abcdefghijk,{},dog,train\n"
_ROWS = "".join(_ROW.format(start) for start in range(400))
_HEADER = "key,vid_key,video_id,sentence\n"
_QUERIES = _HEADER + "".join(f"r{n},m{n},video{n},a dog\n" for n in range(400))
_FIRST = "image_name| comment_number| comment\n"
_COMMENTS = _FIRST + "".join(f"{n}.jpg| 0| a dog\n" for n in range(400))
_HTML = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"


def _coco(*captions: Any) -> bytes:
    """An image for every caption, and 400 good ones."""
    texts = [*captions, *["a dog"] * 400]
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(len(texts))]
    rows = [{"image_id": n, "caption": text} for n, text in enumerate(texts)]
    return json.dumps({"images": images, "annotations": rows}).encode()


def _karpathy(**changed: Any) -> bytes:
    rows = [
        {"cocoid": n, "split": "train", "sentences": [{"raw": "a dog"}]} for n in range(400)
    ]  # fmt: skip
    return json.dumps({"images": [*rows, rows[0] | {"cocoid": 999} | changed]}).encode()


def _vectors(words: str = "cat dog", width: int = 3, value: float = 1.0, count: int = 2) -> bytes:
    row = np.full(width, value, "<f4").tobytes()
    rows = b"".join(word.encode() + b" " + row for word in words.split())
    return f"{count} {width}\n".encode() + rows


def _loss(**changed: Any) -> bytes:
    return yaml.safe_dump({"loss": asdict(config_for_tests(LossConfig)) | changed}).encode()


_BILLION_LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9) if before else 'lol'}]\n"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
).encode()

ANY_FORMAT = [
    row
    for reader in READERS
    for row in (
        BadText(name=f"{reader}: empty", reader=reader, content=b"", refused=READERS[reader][0]),
        BadText(name=f"{reader}: HTML page", reader=reader, content=_HTML,
                refused=READERS[reader][0]),
        BadText(name=f"{reader}: zeros", reader=reader, content=bytes(2000),
                refused=READERS[reader][0]),
        BadText(name=f"{reader}: Latin-1", reader=reader, content="é\n".encode("latin-1") * 9,
                refused=READERS[reader][0]),
        BadText(name=f"{reader}: UTF-16", reader=reader, content="a dog\n".encode("utf-16") * 9,
                refused=READERS[reader][0]),
    )
]  # fmt: skip

TEXTS = [
    BadText(name="vggsound.csv with a BOM and CRLF", reader="vggsound.csv", records=400,
            content=b"\xef\xbb\xbf" + _ROWS.replace("\n", "\r\n").encode()),
    BadText(name="rows with columns missing", reader="vggsound.csv", records=400,
            content=(_ROWS + "abcdefghijk,500,dog\nabcdefghijk\n").encode(),
            bad_rows={"vggsound: row has not 4 columns": 2}),
    BadText(name="duplicate clips", reader="vggsound.csv", records=400,
            content=(_ROWS + _ROW.format(3)).encode(),
            bad_rows={"vggsound: a clip occurs twice": 1}),
    BadText(name="id with a path upwards", reader="vggsound.csv", records=400,
            content=(_ROWS + "../../../ab,1,dog,train\n").encode(),
            bad_rows={"vggsound: no YouTube id": 1}),
    BadText(name="NUL in an id", reader="vggsound.csv", records=400,
            content=(_ROWS + "abcdefghij\0,1,dog,train\n").encode(),
            bad_rows={"vggsound: no YouTube id": 1}),
    BadText(name="unclosed quote", reader="vggsound.csv",
            content=(_ROW.format(1) + 'abcdefghijk,2,"' + "x" * 200_000).encode(),
            refused="not a CSV file"),
    BadText(name="one row in fifty broken", reader="vggsound.csv",
            content=(_ROWS + "x\n" * 8).encode(), refused="8 of 408 rows cannot be used"),
    BadText(name="Latin-1 in a label", reader="vggsound.csv",
            content=(_ROWS + "abcdefghijk,500,café,train\n").encode("latin-1"),
            refused="not UTF-8 text"),
    BadText(name="CSV with a BOM and quoted sentences", reader="MSR-VTT CSV", records=1,
            content=(_HEADER + 'r,m,video1,"a dog, ""barking"""\n').encode("utf-8-sig")),
    BadText(name="CSV without its header", reader="MSR-VTT CSV", refused="the header lacks",
            content=b"r0,m0,video0,a dog\n"),
    BadText(name="CSV header alone", reader="MSR-VTT CSV", content=_HEADER.encode(),
            refused="no usable rows"),
    BadText(name="CSV rows with empty sentences and a video twice", reader="MSR-VTT CSV",
            records=400,
            content=(_QUERIES + "r,m,video900, \nr,m,video1,again\n").encode(),
            bad_rows={"msrvtt: empty sentence": 1, "msrvtt: a video occurs twice": 1}),
    BadText(name="JSON of another data set", reader="MSR-VTT JSON", content=b'{"images": []}',
            refused="has no list 'videos'"),
    BadText(name="JSON list that is empty", reader="MSR-VTT JSON", content=b"[]",
            refused="no usable rows"),
    BadText(name="JSON nested endlessly", reader="MSR-VTT JSON", content=b"[" * 100_000,
            refused="not valid JSON"),
    BadText(name="JSON number of a million digits", reader="MSR-VTT JSON", refused="not valid JSON",
            content=b'{"videos": [{"video_id": ' + b"1" * 10**6 + b"}]}"),
    BadText(name="truncated JSON", reader="COCO", content=_coco()[:5000],
            refused="not valid JSON"),
    BadText(name="JSON with a BOM", reader="COCO", content=b"\xef\xbb\xbf" + _coco(), records=400),
    BadText(name="JSON that is a number", reader="COCO", content=b"3", refused="no list 'images'"),
    BadText(name="JSON of null", reader="COCO", content=b"null", refused="no list 'images'"),
    BadText(name="empty captions and none", reader="COCO", content=_coco("", " \n", None),
            records=400, bad_rows={"coco: empty caption": 2, "coco: no str 'caption'": 1,
                                   "coco: image without a caption": 3}),
    BadText(name="half of a surrogate pair", reader="COCO", content=_coco("\ud83d"), records=400,
            bad_rows={"coco: no str 'caption'": 1, "coco: image without a caption": 1}),
    BadText(name="no image at all", reader="COCO", content=b'{"images": [], "annotations": []}',
            refused="no usable rows"),
    BadText(name="results.csv with commas", reader="Flickr30k", refused="the first row is not",
            content=b"image_name,comment_number,comment\na.jpg,0,a dog\n"),
    BadText(name="comment numbers twice, paths upwards", reader="Flickr30k", records=400,
            content=(_COMMENTS + "1.jpg| 0| again\n../2.jpg| 0| a dog\n").encode(),
            bad_rows={"flickr30k: comment number occurs twice": 1,
                      "flickr30k: unsafe file name": 1}),
    BadText(name="names with quotes and letters beyond ASCII", reader="Flickr30k", records=400,
            content=(_COMMENTS + "é '犬'.jpg| 0| a dog\n").encode(),
            bad_rows={"flickr30k: unsafe file name": 1}),
    BadText(name="results.csv header alone", reader="Flickr30k", content=_FIRST.encode(),
            refused="no usable rows"),
    BadText(name="unknown split", reader="Karpathy", content=_karpathy(split="extra"), records=400,
            bad_rows={"coco: unknown split": 1}),
    BadText(name="image twice", reader="Karpathy", content=_karpathy(cocoid=3), records=400,
            bad_rows={"coco: an image occurs twice": 1}),
    BadText(name="sentences that are not a list", reader="Karpathy",
            content=_karpathy(sentences="x"),
            records=400, bad_rows={"coco: no list 'sentences'": 1}),
    BadText(name="test images alone", reader="Karpathy", refused="no usable rows",
            content=b'{"images": [{"cocoid": 1, "split": "test", "sentences": []}]}'),
    BadText(name="truncated vectors", reader="word2vec", content=_vectors()[:-5],
            refused="truncated: ends in row 2 of 2"),
    BadText(name="truncated gzip of vectors", reader="word2vec",
            content=gzip.compress(_vectors())[:-9], refused="not a complete gzip file"),
    BadText(name="vectors of another width", reader="word2vec", content=_vectors(width=4),
            refused="4 dimensions, not 3"),
    BadText(name="vectors that are NaN", reader="word2vec", content=_vectors(value=np.nan),
            refused="'cat' is not finite"),
    BadText(name="vectors as text", reader="word2vec", records=2,
            content=b"2 3\ncat 1.0 2.0 3.0\ndog 1.0 2.0 3.0\n"),
    BadText(name="vectors as text, the file twice", reader="word2vec",
            content=b"2 3\ncat 1.0 2.0 3.0\n" * 2, refused="row 2 of 2 has 1 numbers, not 3"),
    BadText(name="vectors as text, words for numbers", reader="word2vec",
            content=b"2 3\ncat 1.0 2.0 3.0\ndog 1.0 2.0 three\n", refused="text format"),
    BadText(name="more vectors than declared", reader="word2vec", content=_vectors(count=1),
            refused="more than the 1 rows"),
    BadText(name="word twice", reader="word2vec", content=_vectors("cat cat"), records=1),
    BadText(name="params: alias bomb", reader="params", content=_BILLION_LAUGHS, refused="aliases"),
    BadText(name="params: alias of itself", reader="params", content=b"loss: &a {margin: *a}",
            refused="aliases"),
    BadText(name="params: tag that runs code", reader="params", refused="tags",
            content=b"loss: !!python/object/apply:os.system ['echo']"),
    BadText(name="params: invalid date", reader="params", content=b"loss: {margin: 2020-99-99}",
            refused="not valid YAML"),
    BadText(name="params: nested endlessly", reader="params", content=b"loss: " + b"[" * 9000,
            refused="not valid YAML"),
    BadText(name="params: number of 5,000 digits", reader="params",
            content=b"loss: {margin: " + b"9" * 5000 + b"}", refused="not valid YAML"),
    BadText(name="params: keys that are not words", reader="params",
            content=_loss().replace(b"margin:", b"? [a, b]\n  :"), refused="not valid YAML"),
    BadText(name="params: NaN", reader="params", content=_loss(margin=float("nan")),
            refused="loss.margin: Input should be a finite number, not nan"),
    BadText(name="params: NaN in a list", reader="params",
            refused="loss.margin: Input should be a valid number, not [nan]",
            content=_loss(margin=[float("nan")])),
    BadText(name="params: tabs", reader="params", content=b"loss:\n\tmargin: 1\n",
            refused="not valid YAML"),
    BadText(name="overlay of an unknown key", reader="overlay", content=b"train: {pace: 1}",
            refused="no key 'train.pace'"),
    BadText(name="overlay with a key twice", reader="overlay", refused="not valid YAML",
            content=b"train: {epochs: 1, epochs: 2}"),
    BadText(name="overlay that is a list", reader="overlay", content=b"- train\n",
            refused="not a mapping of sections"),
]  # fmt: skip

ROWS = [*ANY_FORMAT, *TEXTS]
