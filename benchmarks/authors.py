"""The authors' way (VAT-Net's extract.py and datasets), written anew for comparison."""

import subprocess
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt

from trimodal.media import ffmpeg_executable
from trimodal.mel import MelConfig

RATE_HZ = 44_100
FRAME_PX = 256


def authors_extraction(clip: Path, folder: Path) -> int:
    """One ffmpeg run for JPEGs at 1 fps, one for a WAV, librosa's mels of the ten windows; returns
    the bytes of JPEGs and WAV.
    """
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    size = f"{FRAME_PX}x{FRAME_PX}"
    wav = folder / "sound.wav"
    _ffmpeg("-i", clip, "-vf", "fps=1", "-s", size, folder / "%02d.jpg")
    _ffmpeg("-i", clip, "-ac", "1", "-ar", RATE_HZ, "-vn", wav)
    samples, rate = librosa.load(wav, sr=RATE_HZ)
    for frame in range(1, 11):
        start = max(0, round((frame - 2) * rate))
        window = samples[start : start + 3 * int(rate)]
        if len(window):
            authors_mel(window, int(rate))
    return sum(path.stat().st_size for path in folder.iterdir())


def authors_mel(samples: npt.NDArray[np.float32], rate_hz: int) -> npt.NDArray[np.float32]:
    """The mel that their dataset makes of a window: (128, columns) dB below its loudest."""
    mel = librosa.feature.melspectrogram(
        y=samples, sr=rate_hz, n_fft=1024, win_length=882, hop_length=441, n_mels=128
    )
    decibels: npt.NDArray[np.float32] = librosa.amplitude_to_db(mel, ref=np.max)
    return decibels


def authors_window(samples: npt.NDArray[np.float32], mel: MelConfig) -> npt.NDArray[np.float32]:
    """Decibels of power below a window's loudest, (mels, columns), floor -80."""
    decibels: npt.NDArray[np.float32] = librosa.power_to_db(
        power_mel(samples, mel), ref=np.max, top_db=80
    )
    return decibels


def power_mel(samples: npt.NDArray[np.float32], mel: MelConfig) -> npt.NDArray[np.float32]:
    """librosa's power mel, (mels, columns)."""
    power: npt.NDArray[np.float32] = librosa.feature.melspectrogram(
        y=samples, sr=mel.sample_rate_hz, n_fft=mel.n_fft, win_length=mel.window_samples,
        hop_length=mel.hop_samples, n_mels=mel.mels,
    )  # fmt: skip
    return power


def _ffmpeg(*arguments: str | int | Path) -> None:
    command = [ffmpeg_executable(), "-nostdin", "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True)
