"""Stage outputs that are damaged or do not belong together, as read by the next stage. One row per
damage; each is refused with a message that names the file.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from configs import MACHINE
from test_checkpoint import CHECKPOINT
from training_fixtures import TinyData

from trimodal.core.manifest import read_manifest
from trimodal.core.text import read_vocabulary
from trimodal.data.clip_index import read_index
from trimodal.data.shard_files import image_fingerprints, open_shards
from trimodal.models.checkpoint import read_checkpoint, save_checkpoint
from trimodal.training.image_text import ImageTextPairs


@dataclass(frozen=True, kw_only=True)
class BadStore:
    """``damage`` changes a copy of the stages' outputs, which ``read`` (a key of :data:`READERS`)
    then refuses, with the name of the ``file`` and ``refused`` in its message.
    """

    name: str
    read: str
    damage: Callable[[TinyData], object]
    file: str
    refused: str = ""

    def outcome(self) -> str:
        """The expected outcome, in words."""
        return f"refused: {self.file}{f': {self.refused}' if self.refused else ''}"


def copied(data: TinyData, folder: Path) -> TinyData:
    """The tiny data in another folder, with a manifest and a checkpoint."""
    shutil.copytree(data.av_dir.parent, folder, dirs_exist_ok=True)
    save_checkpoint(folder / "model", {}, CHECKPOINT)
    folders = {name: folder / getattr(data, name).name for name in ("av_dir", "captions_dir")}
    return replace(data, images_dir=folder / data.images_dir.name, **folders)


def _read_av(data: TinyData) -> object:
    return [
        open_shards(read_index(data.av_dir, split, data.mel).fingerprints, MACHINE.shard_cache)
        for split in ("train", "val", "test")
    ]


def _read_images(data: TinyData) -> object:
    pairs = ImageTextPairs(data.captions_dir, data.images_dir, "train", data.augment, seed=1)
    return pairs, open_shards(image_fingerprints(data.images_dir), MACHINE.shard_cache)


READERS: dict[str, Callable[[TinyData], object]] = {
    "clips": _read_av,
    "images": _read_images,
    "vocabulary": lambda data: read_vocabulary(data.captions_dir / "vocabulary.parquet"),
    "manifest": lambda data: read_manifest(data.av_dir.parent / "manifest.parquet"),
    "checkpoint": lambda data: read_checkpoint(data.av_dir.parent / "model"),
}

Damage = Callable[[TinyData], object]


def _write(name: str, content: bytes) -> Damage:
    return lambda data: (data.av_dir.parent / name).write_bytes(content)


def _json(name: str, **changed: Any) -> Damage:
    def damage(data: TinyData) -> None:
        path = data.av_dir.parent / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return damage


def _truncated(name: str, share: float) -> Damage:
    def damage(data: TinyData) -> None:
        path = data.av_dir.parent / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


def _noise(name: str) -> Damage:
    """Noise in the middle, where Parquet's pages are."""

    def damage(data: TinyData) -> None:
        path = data.av_dir.parent / name
        content = bytearray(path.read_bytes())
        content[100:150] = np.random.default_rng(1).bytes(50)
        path.write_bytes(content)

    return damage


def _column(name: str, column: str, values: Callable[[pa.Array], Any]) -> Damage:
    def damage(data: TinyData) -> None:
        path = data.av_dir.parent / name
        table = pq.read_table(path)
        field = table.schema.field(column)
        changed = pa.array(values(table[column].combine_chunks()), field.type)
        pq.write_table(table.set_column(table.schema.names.index(column), field, changed), path)

    return damage


def _not_text(data: TinyData) -> None:
    """Labels that are not UTF-8, which Parquet does not check."""
    path = data.av_dir / "index.parquet"
    table = pq.read_table(path)
    labels = pa.array([b"\xff\xfe"] * len(table), pa.binary()).view(pa.string())
    position = table.schema.get_field_index("label")
    pq.write_table(table.set_column(position, table.schema.field("label"), labels), path)


def _first(value: Any) -> Callable[[pa.Array], list[Any]]:
    return lambda array: [value, *array.to_pylist()[1:]]


def _swapped(one: str, other: str) -> Damage:
    def damage(data: TinyData) -> None:
        first, second = (data.av_dir.parent / name for name in (one, other))
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)

    return damage


def _metadata(**changed: Any) -> Damage:
    """Changes what the index says of the mels."""

    def damage(data: TinyData) -> None:
        path = data.av_dir / "index.parquet"
        table = pq.read_table(path)
        stored = json.loads(table.schema.metadata[b"trimodal"]) | changed
        pq.write_table(table.replace_schema_metadata({"trimodal": json.dumps(stored)}), path)

    return damage


_AV, _INDEX = "av/train-000000.tar", "av/index.parquet"
_IMAGES = "images/index.parquet"
_WORDS = "captions/vocabulary.parquet"
_CONFIG, _WEIGHTS = "model/config.json", "model/model.safetensors"

STORES = [
    BadStore(name="index without metadata", read="clips", file=_INDEX,
             damage=lambda data: pq.write_table(
                 pq.read_table(data.av_dir / "index.parquet").replace_schema_metadata(None),
                 data.av_dir / "index.parquet"),
             refused="format is None"),
    BadStore(name="index of another format version", read="clips", file=_INDEX,
             damage=_metadata(format_version=1), refused="format_version is 1"),
    BadStore(name="index of another mel", read="clips", file=_INDEX,
             damage=_metadata(hop_samples=161), refused="hop_samples is 161"),
    BadStore(name="index of another step", read="clips", file=_INDEX,
             damage=_metadata(step_db=0.5), refused="step_db is 0.5"),
    BadStore(name="index empty", read="clips", damage=_write(_INDEX, b""), file=_INDEX),
    BadStore(name="index that is text", read="clips", damage=_write(_INDEX, b"clip_id,shard\n"),
             file=_INDEX),
    BadStore(name="index truncated", read="clips", damage=_truncated(_INDEX, 0.6), file=_INDEX),
    BadStore(name="noise in the index", read="clips", damage=_noise(_INDEX), file=_INDEX),
    BadStore(name="index of images for one of clips", read="clips", file=_INDEX,
             damage=_swapped(_INDEX, _IMAGES), refused="a different table"),
    BadStore(name="index with a value missing", read="clips", file=_INDEX,
             damage=_column(_INDEX, "label", _first(None)), refused="label are missing"),
    BadStore(name="index with labels that are not text", read="clips", file=_INDEX,
             damage=_not_text, refused="not a complete Parquet file"),
    BadStore(name="index with a negative offset", read="clips", file=_INDEX,
             damage=_column(_INDEX, "mel_offset", _first(-1)), refused="is negative"),
    BadStore(name="index with a duration of NaN", read="clips", file=_INDEX,
             damage=_column(_INDEX, "duration_s", _first(np.nan)), refused="not finite"),
    BadStore(name="index with a shard outside the folder", read="clips", file=_INDEX,
             damage=_column(_INDEX, "shard", _first("../a.tar")), refused="not a plain file name"),
    BadStore(name="index with a clip without frames", read="clips", file=_INDEX,
             damage=lambda data: (_column(_INDEX, "frame_sizes", _first([]))(data),
                                  _column(_INDEX, "frame_offsets", _first([]))(data)),
             refused="a clip without frames"),
    BadStore(name="shard swapped for another one", read="clips", file=_AV,
             damage=_swapped(_AV, "av/train-000001.tar"), refused="not the file that index"),
    BadStore(name="shard truncated", read="clips", damage=_truncated(_AV, 0.5), file=_AV,
             refused="not the file that index"),
    BadStore(name="shard empty", read="clips", damage=_write(_AV, b""), file=_AV,
             refused="not the file that index"),
    BadStore(name="shard gone", read="clips", file=_AV, refused="not the file that index",
             damage=lambda data: (data.av_dir.parent / _AV).unlink()),
    BadStore(name="image shards swapped", read="images", file="images/train-000000.tar",
             damage=_swapped("images/train-000000.tar", "images/train-000001.tar"),
             refused="not the file that index"),
    BadStore(name="image index of the clips", read="images", file=_IMAGES,
             damage=_swapped(_INDEX, _IMAGES), refused="a different table"),
    BadStore(name="captions truncated", read="images", file="captions.parquet",
             damage=_truncated("captions/captions.parquet", 0.7)),
    BadStore(name="word ids truncated", read="images", file="token_ids.npy",
             damage=_truncated("captions/token_ids.npy", 0.7), refused="not a complete .npy file"),
    BadStore(name="word ids that are a pickle", read="images", file="token_ids.npy",
             damage=_write("captions/token_ids.npy", b"\x80\x04N."), refused="not a complete .npy"),
    BadStore(name="word ids of another width", read="images", file="token_ids.npy",
             damage=lambda data: np.save(data.captions_dir / "token_ids.npy",
                                         np.zeros((33, 8), np.int32)),
             refused="not word ids"),
    BadStore(name="vocabulary truncated", read="vocabulary", file=_WORDS,
             damage=_truncated(_WORDS, 0.9)),
    BadStore(name="vocabulary with a word twice", read="vocabulary", file=_WORDS,
             damage=_column(_WORDS, "word", lambda a: [*a.to_pylist()[:-1], a[2].as_py()]),
             refused="a word twice"),
    BadStore(name="vocabulary with a vector of NaN", read="vocabulary", file=_WORDS,
             damage=_column(_WORDS, "vector", _first([float("nan")] * 300)),
             refused="not finite"),
    BadStore(name="vocabulary with half a vector", read="vocabulary", file=_WORDS,
             damage=_column(_WORDS, "vector", _first([None] * 300)), refused="are missing"),
    BadStore(name="manifest truncated", read="manifest", damage=_truncated("manifest.parquet", 0.5),
             file="manifest.parquet"),
    BadStore(name="manifest of an unknown status", read="manifest", file="manifest.parquet",
             damage=_column("manifest.parquet", "status", _first("fine")),
             refused="status 'fine' is not one of"),
    BadStore(name="manifest with a name outside the folder", read="manifest",
             file="manifest.parquet",
             damage=_column("manifest.parquet", "clip_id", _first("../x")),
             refused="is not a name"),
    BadStore(name="manifest with an infinite duration", read="manifest", file="manifest.parquet",
             damage=_column("manifest.parquet", "duration_s", _first(np.inf)),
             refused="not finite"),
    BadStore(name="checkpoint JSON truncated", read="checkpoint", file=_CONFIG,
             damage=_truncated(_CONFIG, 0.5), refused="not valid JSON"),
    BadStore(name="checkpoint JSON nested too deeply", read="checkpoint", file=_CONFIG,
             damage=_write(_CONFIG, b'{"a":' * 50_000), refused="not valid JSON"),
    BadStore(name="checkpoint with a loss of NaN", read="checkpoint", file=_CONFIG,
             damage=_json(_CONFIG, validation_loss=float("nan")),
             refused="validation_loss: Input should be a finite number, not nan"),
    BadStore(name="checkpoint with an infinite window", read="checkpoint", file=_CONFIG,
             damage=_json(_CONFIG, window={"seconds": float("inf"), "decibel": "power"}),
             refused="window.seconds: Input should be a finite number, not inf"),
    BadStore(name="weights of another checkpoint", read="checkpoint", file=_WEIGHTS,
             damage=_write(_WEIGHTS, b"other"), refused="not the weights"),
]  # fmt: skip
