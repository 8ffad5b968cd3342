"""The authors' way (VAT-Net's extract.py and datasets), written anew for comparison."""

import random
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.measuring import ffmpeg
from trimodal.mel import MelConfig

RATE_HZ = 44_100
FRAME_PX = 256


def authors_files(clip: Path, folder: Path, frame_px: int, rate_hz: int) -> None:
    """How they keep a clip: one ffmpeg run for JPEGs at 1 fps, one for the sound as WAV."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    ffmpeg("-i", clip, "-vf", "fps=1", "-s", f"{frame_px}x{frame_px}", folder / "%02d.jpg")
    ffmpeg("-i", clip, "-ac", "1", "-ar", rate_hz, "-vn", folder / "sound.wav")


def authors_extraction(clip: Path, folder: Path) -> int:
    """Their files of a clip, and librosa's mels of the ten windows; returns the files' bytes."""
    authors_files(clip, folder, FRAME_PX, RATE_HZ)
    samples, rate = librosa.load(folder / "sound.wav", sr=RATE_HZ)
    for frame in range(1, 11):
        start = max(0, round((frame - 2) * rate))
        window = samples[start : start + 3 * int(rate)]
        if len(window):
            authors_mel(window)
    return sum(path.stat().st_size for path in folder.iterdir())


def authors_mel(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mel that their dataset makes of a window: (128, columns) dB below its loudest."""
    mel = librosa.feature.melspectrogram(
        y=samples, sr=RATE_HZ, n_fft=1024, win_length=882, hop_length=441, n_mels=128
    )
    decibels: npt.NDArray[np.float32] = librosa.amplitude_to_db(mel, ref=np.max)
    return decibels


def power_mel(samples: npt.NDArray[np.float32], mel: MelConfig) -> npt.NDArray[np.float32]:
    """librosa's power mel of any sizes, (mels, columns)."""
    power: npt.NDArray[np.float32] = librosa.feature.melspectrogram(
        y=samples, sr=mel.sample_rate_hz, n_fft=mel.n_fft, win_length=mel.window_samples,
        hop_length=mel.hop_samples, n_mels=mel.mels,
    )  # fmt: skip
    return power


def authors_view(crop_px: int, resized_px: int | None = None) -> transforms.Compose:
    """What their data sets do with a training picture."""
    resize = [transforms.Resize((resized_px, resized_px))] if resized_px else []
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            *resize,
            transforms.RandomCrop(crop_px),
            transforms.ColorJitter(brightness=0.1, saturation=0.1),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def authors_pair(folder: Path, mel: MelConfig, view: transforms.Compose) -> tuple[Tensor, Tensor]:
    """What their data set does for a sample: the whole WAV, the window's mel."""
    second = random.randint(2, 8)  # noqa: S311 - no secret
    with Image.open(folder / f"{second:02d}.jpg") as image:
        pixels: Tensor = view(image)
    samples, _ = librosa.load(folder / "sound.wav", sr=mel.sample_rate_hz)
    first = (second - 2) * mel.sample_rate_hz
    part = samples[first : first + 3 * mel.sample_rate_hz]
    window = (
        authors_mel(part)
        if mel.sample_rate_hz == RATE_HZ
        else librosa.power_to_db(power_mel(part, mel), ref=np.max, top_db=80)
    )
    to_tensor = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(mean=[-40.0], std=[40.0])]
    )
    return pixels, to_tensor(window)


def authors_pictures(folder: Path, view: transforms.Compose) -> Tensor:
    """A batch of all pictures of a folder."""
    views = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            views.append(view(image.convert("RGB")))
    return torch.stack(views)
