"""A tiny training set, prepared by the pipeline's own functions from rendered clips and images; and
a measure of the memory that a computation needs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from configs import MACHINE, config_for_tests, front_end_for_tests
from gensim.models import KeyedVectors
from PIL import Image
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.records import Clip
from trimodal.losses.config import LossConfig
from trimodal.media.container import encode_video
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig
from trimodal.preprocess.captions import CaptionsConfig, prepare_captions
from trimodal.preprocess.clip_shards import ExtractConfig
from trimodal.preprocess.extract import extract

RATE_HZ = 8000
FPS = 4
SECONDS = 10


# The paper's variable margin with the numbers of the authors' code.
VARIABLE_MARGIN = config_for_tests(LossConfig, margin_mode="variable")


@dataclass(frozen=True, kw_only=True)
class TinyData:
    """7 training, 2 validation and 2 test clips of 10 s; 8 training and 3 validation images."""

    av_dir: Path
    captions_dir: Path
    images_dir: Path
    front_end: AudioFrontEnd
    augment: AugmentConfig

    @property
    def mel(self) -> MelConfig:
        return self.front_end.mel


def make_tiny_data(folder: Path) -> TinyData:
    """Renders clips and images into ``folder`` and prepares them as the stages do."""
    data = TinyData(
        av_dir=folder / "av",
        captions_dir=folder / "captions",
        images_dir=folder / "images",
        front_end=front_end_for_tests(
            sample_rate_hz=RATE_HZ, n_fft=512, window_samples=320, hop_samples=160, mels=16
        ),
        augment=config_for_tests(AugmentConfig, crop_px=24),
    )
    manifest = folder / "manifest.parquet"
    write_manifest(manifest, [_clip(folder, number) for number in range(11)])
    extract(manifest, data.av_dir, extract_config(), data.mel, MACHINE)
    prepare_captions(caption_sources(folder), data.captions_dir, data.images_dir, MACHINE)
    return data


def extract_config() -> ExtractConfig:
    """The settings with which the tiny clips are extracted."""
    return config_for_tests(ExtractConfig, frame_px=32, clips_per_shard=4, min_coverage=0.0)


def _clip(folder: Path, number: int) -> ClipOutcome:
    """Red is the second shown, green the clip's number; blue is a ramp. Clip 10 is silent."""
    test, silent = number > 8, number == 10
    frames = []
    for second in np.repeat(np.arange(SECONDS), FPS):
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[..., 0], frame[..., 1] = 20 + 20 * second, 20 + 20 * number
        frame[..., 2] = np.arange(32) * 5
        frames.append(frame)
    path = folder / "clips" / f"{number}.mp4"
    audio = None if silent else _tone(number)
    encode_video(path, frames, fps=FPS, audio=audio, audio_rate_hz=RATE_HZ)
    return ClipOutcome(
        clip=Clip(
            clip_id=f"video{number}" if test else f"clip-{number}_000000",
            source="msrvtt" if test else "vggsound",
            split="test" if test else "train",
            label="" if test else "tone",
        ),
        path=str(path),
        status="ok",
        duration_s=float(SECONDS),
        has_audio=not silent,
    )


def _tone(number: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(number)
    time = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * (300 + 250 * number) * time) * (0.1 + 0.03 * np.floor(time))
    return (tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def caption_sources(folder: Path) -> CaptionsConfig:
    """Writes a small COCO, Flickr30k and word vectors; returns the settings to read them."""
    coco, flickr, words = folder / "coco", folder / "flickr", folder / "vectors.bin"
    colours = ["red", "green", "blue", "white", "black", "grey", "pink", "brown"]
    things = ["dog", "bird", "drum"]
    _coco_split(coco, "train", colours[:6], things)
    _coco_split(coco, "val", colours[5:], things)
    lines = ["image_name| comment_number| comment"]
    for number, colour in enumerate(colours[6:]):
        _write_image(flickr / "images" / f"{number}.jpg", 50 + number)
        lines += [f"{number}.jpg| {k}| A {colour} {thing} ." for k, thing in enumerate(things)]
    (flickr / "results.csv").write_text("\n".join(lines))
    rng = np.random.default_rng(0)
    vectors = KeyedVectors(300)
    vectors.add_vectors(colours + things, rng.standard_normal((11, 300)).astype(np.float32))
    vectors.save_word2vec_format(str(words), binary=True)
    return config_for_tests(
        CaptionsConfig, coco=str(coco), flickr30k=str(flickr), vectors=str(words), image_px=32,
        images_per_shard=3, min_coverage=0.0,
    )  # fmt: skip


def _coco_split(coco: Path, split: str, colours: list[str], things: list[str]) -> None:
    images, annotations = [], []
    for number, colour in enumerate(colours, start=1 if split == "train" else 101):
        _write_image(coco / f"{split}2017" / f"{number}.jpg", number)
        images.append({"id": number, "file_name": f"{number}.jpg"})
        annotations += [{"image_id": number, "caption": f"a {colour} {name}"} for name in things]
    path = coco / "annotations" / f"captions_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


def _write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 36)).save(path)


class LiveBytes(TorchDispatchMode):
    """``peak``: the most bytes that tensors created in this context had in memory at once;
    ``largest``: the most elements of one of them, views included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.largest = 0, 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._storages = {
            key: entry for key, entry in self._storages.items() if not entry[0].expired()
        }
        self.peak = max(self.peak, sum(size for _, size in self._storages.values()))
        return out
