"""The tiny data's streams, and what its shards hold, read without the library."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from training_fixtures import TinyData

from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.data.readers import read_windows
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs, ImageAudioValidation
from trimodal.training.image_text import ImageTextPairs, ImageTextValidation
from trimodal.training.random_streams import RandomStream

SAMPLING = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)
ORDER = RandomStream.CLIP_ORDER


def clips_of(data: TinyData, split: str = "train") -> list[IndexedClip]:
    return read_index(data.av_dir, split, data.mel)


def plain_augment(data: TinyData) -> AugmentConfig:
    return replace(data.augment, flip=False, brightness=0.0, saturation=0.0)


def pairs_of(data: TinyData, *, plain: bool = False) -> ImageAudioPairs:
    augment = plain_augment(data) if plain else data.augment
    return ImageAudioPairs(clips_of(data), SAMPLING, data.front_end, augment, seed=5)


def validation_pairs_of(data: TinyData, split: str = "val") -> ImageAudioValidation:
    return ImageAudioValidation(clips_of(data, split), SAMPLING, data.front_end, data.augment)


def images_of(data: TinyData, *, seed: int = 5) -> ImageTextPairs:
    return ImageTextPairs(data.captions_dir, data.images_dir, "train", data.augment, seed)


def validation_images_of(data: TinyData, split: str = "val") -> ImageTextValidation:
    return ImageTextValidation(data.captions_dir, data.images_dir, split, data.augment)


def member(shard: Path, name: str) -> bytes:
    with tarfile.open(shard) as tar:
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


def stored_mel(clip: IndexedClip) -> np.ndarray:
    """The stored mel in decibels: codes are 255ths of the 80 dB below a column's maximum."""
    codes, top_db = (
        np.load(io.BytesIO(member(clip.shard, f"{clip.clip_id}.{name}.npy")))
        for name in ("mel", "mel_top_db")
    )
    return codes * np.float32(80 / 255) + (top_db.astype(np.float32) - np.float32(80.0))[:, None]


def pixels(jpeg: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg)))).permute(2, 0, 1)


def shown_second(view: Tensor) -> int:
    """The second (from 0) that a frame of the tiny data shows: its red channel says so."""
    return round((view[0].float().mean().item() - 20) / 20)


def read_window(clip: IndexedClip, centre: float, front_end: AudioFrontEnd) -> tuple[Tensor, int]:
    """One window, read together with another one of the clip."""
    windows, missing = read_windows([clip, clip], [2.0, centre], front_end)
    return windows[1], missing[1]


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
