"""Real data, prepared by the pipeline's own stages, and the features of every image by the frozen
image backbone, of the image itself and mirrored: with them training takes an hour on two cores.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torch import Tensor

from benchmarks.measuring import ROOT, TIMEOUT_SECONDS, params_at
from trimodal.core.config import load_section
from trimodal.core.files import atomic_path, read_table, write_json
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.progress import bar
from trimodal.core.records import Query, Split
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.text import Vocabulary, read_vocabulary
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.data.readers import read_frame, read_image
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.backbones import Backbone, build_image_backbone
from trimodal.models.preprocessing import normalise
from trimodal.overlay import apply_overlay
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.msrvtt import read_queries

BACKBONE: Backbone = "efficientnet_lite0"
IMAGE_PX = 224
_BATCH_SIZE = 64
_VECTORS = "word2vec/glove300-1576.bin"
_FILES = ("vggsound.csv", "msrvtt_style_test.csv", "clips", "coco", "flickr8k/splits.csv",
          "flickr8k/images", _VECTORS)  # fmt: skip

Features = npt.NDArray[np.float16]  # (images, 2, features): the image itself, and mirrored


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """Images of one split: their features and their captions' word ids, (captions, 16); those of
    image i are ``first[i]`` to ``first[i + 1]``.
    """

    features: Features
    token_ids: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    @property
    def owner(self) -> npt.NDArray[np.int64]:
        """(captions,): the image of each caption."""
        return np.repeat(np.arange(len(self.features)), np.diff(self.first))


@dataclass(frozen=True, kw_only=True)
class CaptionedClip:
    """A clip, the sentence that describes it, and the features of its frames."""

    clip: IndexedClip
    query: Query
    features: Features


@dataclass(frozen=True, kw_only=True)
class RealData:
    """The data of both experiments."""

    train: Captioned
    dev: Captioned
    clips: list[CaptionedClip]
    vocabulary: Vocabulary
    front_end: AudioFrontEnd


def missing_files(shared: Path) -> list[str]:
    """What ``prepare`` needs and ``shared`` lacks."""
    return [name for name in _FILES if not (shared / name).exists()]


def prepare(shared: Path, folder: Path) -> RealData:
    """Runs download, extract and captions on ``shared`` (laid out as docs/results.md describes)
    into ``folder`` and computes features; results of an earlier run are reused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = _params(shared, folder)
    for stage, outputs in (
        ("download", {"clips": "clips", "world": "world"}),
        ("extract", {"clips": "clips", "out": "av"}),
        ("captions", {"captions": "captions", "images": "images"}),
    ):
        options = [word for key, name in outputs.items() for word in (f"--{key}", folder / name)]
        subprocess.run(
            [sys.executable, "-m", f"pipeline.{stage}", "--params", params, *options],
            cwd=ROOT, check=True, timeout=TIMEOUT_SECONDS, env=os.environ | {"PYTHONPATH": "."},
        )  # fmt: skip
    front_end = AudioFrontEnd(
        mel=load_section(params, "mel", MelConfig),
        window=load_section(params, "window", WindowConfig),
    )
    return RealData(
        train=_captioned(folder, "train"),
        dev=_captioned(folder, "val"),
        clips=_clips(folder, shared / "msrvtt_style_test.csv", front_end.mel),
        vocabulary=read_vocabulary(folder / "captions" / "vocabulary.parquet"),
        front_end=front_end,
    )


def _params(shared: Path, folder: Path) -> Path:
    """params/real.yaml's params with these paths, Flickr8k's official split and larger images."""
    _write_split(shared / "flickr8k", folder / "flickr8k")
    overlay = {
        "download": {
            "vggsound_csv": f"{shared}/vggsound.csv",
            "vggsound_media": f"{shared}/clips",
            "msrvtt_csv": f"{shared}/msrvtt_style_test.csv",
            "msrvtt_media": f"{shared}/clips",
        },
        "extract": {"frame_px": IMAGE_PX},
        "captions": {
            "coco": f"{shared}/coco",
            "flickr30k": f"{folder}/flickr8k",
            "flickr30k_annotations": "karpathy",
            "vectors": f"{shared}/{_VECTORS}",
            "image_px": IMAGE_PX,
            "learned_words": 4,
        },
    }
    (folder / "overlay.yaml").write_text(json.dumps(overlay))  # JSON is YAML
    params = params_at("real", folder)
    apply_overlay(params, folder / "overlay.yaml")
    return params


def _write_split(flickr8k: Path, folder: Path) -> None:
    """Writes Flickr8k in Karpathy's format, which has splits: dev is for validation."""
    folder.mkdir(exist_ok=True)
    with (flickr8k / "splits.csv").open(newline="") as file:
        splits = {row["image_name"]: row["split"] for row in csv.DictReader(file)}
    images, _ = read_flickr30k(flickr8k)
    entries = [
        {
            "filename": image.file_name,
            "split": {"train": "train", "dev": "val"}[splits[image.file_name]],
            "sentences": [{"raw": caption} for caption in image.captions],
        }
        for image in images
    ]
    write_json(folder / "dataset_flickr30k.json", {"images": entries})
    if not (folder / "images").exists():
        (folder / "images").symlink_to((flickr8k / "images").resolve())


def _captioned(folder: Path, split: Split) -> Captioned:
    """The images of Flickr8k alone: the few of COCO are not part of its benchmark."""
    index = folder / "images" / "index.parquet"
    of_split = pc.field("split") == split
    images = read_table(index, IMAGE_SCHEMA, filters=of_split)
    captions = read_table(folder / "captions" / "captions.parquet", CAPTION_SCHEMA)
    token_ids = np.load(folder / "captions" / "token_ids.npy", allow_pickle=False)
    rows: dict[str, list[int]] = {}
    for row, image_id in enumerate(captions["image_id"].to_pylist()):
        rows.setdefault(image_id, []).append(row)

    def decoded() -> Iterator[Tensor]:
        for image in images.to_pylist():
            yield read_image(folder / "images" / image["shard"], image["offset"], image["size"])

    name = f"features-{split}-{file_fingerprint(index)}.npy"
    features = _cached(folder / name, lambda: _features(decoded(), len(images)))
    names = images["image_id"].to_pylist()
    selected = [row for row, name in enumerate(names) if name.startswith("flickr_")]
    caption_rows = [rows[names[row]] for row in selected]
    return Captioned(
        features=features[selected],
        token_ids=token_ids[np.concatenate(caption_rows)].astype(np.int64),
        first=np.cumsum([0, *map(len, caption_rows)]),
    )


def _clips(folder: Path, test_csv: Path, mel: MelConfig) -> list[CaptionedClip]:
    clips = {clip.clip_id: clip for clip in read_index(folder / "av", "test", mel)}
    queries, _ = read_queries(test_csv)
    captioned = [(clips[query.video_id], query) for query in queries]

    def frames() -> Iterator[Tensor]:
        for clip, _ in captioned:
            for number in range(1, clip.frames + 1):
                yield read_frame(clip, number)

    counts = [clip.frames for clip, _ in captioned]
    name = f"features-clips-{file_fingerprint(folder / 'av' / 'index.parquet')}.npy"
    features = _cached(folder / name, lambda: _features(frames(), sum(counts)))
    parts = np.split(features, np.cumsum(counts)[:-1])
    return [
        CaptionedClip(clip=clip, query=query, features=part)
        for (clip, query), part in zip(captioned, parts, strict=True)
    ]


def _cached(path: Path, compute: Callable[[], Features]) -> Features:
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, compute(), allow_pickle=False)
    features: Features = np.load(path, allow_pickle=False)
    return features


@torch.inference_mode()
def _features(images: Iterator[Tensor], count: int) -> Features:
    network = build_image_backbone(BACKBONE, 64, "imagenet").eval()
    network.to(memory_format=torch.channels_last)
    parts: list[Sequence[Tensor]] = []
    batch: list[Tensor] = []
    for image in bar(images, task="features", unit="images", total=count):
        batch.append(image)
        if len(batch) == _BATCH_SIZE:
            parts.append(_plain_and_mirrored(network, batch))
            batch = []
    if batch:
        parts.append(_plain_and_mirrored(network, batch))
    return torch.cat([torch.stack(tuple(part), dim=1) for part in parts]).half().numpy()


def _plain_and_mirrored(
    network: torch.nn.Module, images: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    pixels = normalise(torch.stack(tuple(images))).contiguous(memory_format=torch.channels_last)
    return network(pixels), network(pixels.flip(3))
