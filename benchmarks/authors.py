"""How the authors' code (VAT-Net's extract.py) stores a clip, reimplemented for comparison."""

from pathlib import Path

import ffmpeg
import librosa
import numpy as np
import numpy.typing as npt

from benchmarks.measuring import run_ffmpeg
from trimodal.media.mel import MelConfig

RATE_HZ = 44_100
FRAME_PX = 256


def authors_files(clip: Path, folder: Path, frame_px: int, rate_hz: int) -> None:
    """A clip as their code stores it: one ffmpeg run for JPEGs at 1 fps, one for a WAV."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    given = ffmpeg.input(str(clip))
    run_ffmpeg(given.output(str(folder / "%02d.jpg"), vf="fps=1", s=f"{frame_px}x{frame_px}"))
    run_ffmpeg(given.output(str(folder / "audio.wav"), ac=1, ar=rate_hz, vn=None))


def authors_extraction(clip: Path, folder: Path) -> int:
    """Stores a clip and computes librosa's mels of its ten windows; returns the files' bytes."""
    authors_files(clip, folder, FRAME_PX, RATE_HZ)
    samples, rate = librosa.load(folder / "audio.wav", sr=RATE_HZ)
    for frame in range(1, 11):
        start = max(0, round((frame - 2) * rate))
        window = samples[start : start + 3 * int(rate)]
        if len(window):
            authors_mel(window)
    return sum(path.stat().st_size for path in folder.iterdir())


def authors_mel(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mel that their data set computes for a window: (128, columns) dB below its maximum."""
    mel = librosa.feature.melspectrogram(
        y=samples, sr=RATE_HZ, n_fft=1024, win_length=882, hop_length=441, n_mels=128
    )
    decibels: npt.NDArray[np.float32] = librosa.amplitude_to_db(mel, ref=np.max)
    return decibels


def power_mel(samples: npt.NDArray[np.float32], mel: MelConfig) -> npt.NDArray[np.float32]:
    """librosa's power mel with the sizes of section ``mel``, (mels, columns)."""
    power: npt.NDArray[np.float32] = librosa.feature.melspectrogram(
        y=samples, sr=mel.sample_rate_hz, n_fft=mel.n_fft, win_length=mel.window_samples,
        hop_length=mel.hop_samples, n_mels=mel.mels,
    )  # fmt: skip
    return power
