"""What every stage will take here, from a few items measured now with these params."""

import io
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from trimodal.core.archives import StoredFile
from trimodal.core.files import temporary_folder
from trimodal.core.machine import MachineConfig
from trimodal.core.records import Clip
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.download.download import DownloadConfig
from trimodal.download.probe import inspect
from trimodal.download.youtube import YoutubeConfig
from trimodal.evaluation.evaluate import EvaluateConfig
from trimodal.losses.config import LossConfig
from trimodal.media.container import encode_video
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.devices import count_devices, pick_device
from trimodal.models.networks import ModelConfig, TrimodalNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.preprocess.captions import CaptionsConfig
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard
from trimodal.preprocess.image_shards import stored_jpeg
from trimodal.sources.vggsound import CLIP_SECONDS
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.trainer import Trainer

_PATIENCE_SECONDS = 3.0  # a step that would take longer is scaled up from four rows


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much there is to do: training and validation clips, test videos, captioned images, and
    how many of these train.
    """

    train_clips: int
    test_videos: int
    images: int
    train_images: int


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """A stage's estimated wall-clock time and the bytes it leaves on disk; ``basis`` says from
    what. ``seconds`` is infinite where nothing here can tell.
    """

    stage: str
    seconds: float
    bytes: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The params that decide what the stages cost."""

    download: DownloadConfig
    youtube: YoutubeConfig
    extract: ExtractConfig
    mel: MelConfig
    window: WindowConfig
    captions: CaptionsConfig
    augment: AugmentConfig
    model: ModelConfig
    loss: LossConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    machine: MachineConfig


def estimate(sections: Sections, sizes: Sizes) -> list[StageCost]:
    """Times a clip, an image and a training step on this machine and scales them up; several GPUs
    are taken to share a step evenly.
    """
    with temporary_folder() as folder:
        clip = _sample_clip(folder / f"{'0' * 11}_000000.mp4")
        clip_seconds, clip_bytes, look_seconds = _clip_cost(sections, clip, folder)
        fetched_bytes = clip.size
    image_seconds, image_bytes = _image_cost(sections.captions)
    step_seconds, view_seconds, device = _step_cost(sections)
    if device == "cuda":  # processes on one CPU share its cores
        gpus = count_devices(sections.machine.devices, sections.machine.device)
        step_seconds /= gpus
        view_seconds /= gpus
        device = f"{gpus} GPUs" if gpus > 1 else "a GPU"
    clips = sizes.train_clips + sizes.test_videos
    batch = sections.train.batch_size
    held_out = int(sections.extract.validation_share * sizes.train_clips)
    shorter = min(sizes.train_clips - held_out, sizes.train_images)
    steps = sections.train.steps_per_epoch or max(1, shorter // batch)
    all_steps = steps * sections.train.epochs
    views = sizes.test_videos * sections.evaluate.frames_per_video
    return [
        _download_cost(sections, sizes, fetched_bytes, look_seconds),
        StageCost(
            stage="extract",
            seconds=clips * clip_seconds / sections.machine.workers,
            bytes=clips * clip_bytes,
            basis=f"{clips:,} clips x {1000 * clip_seconds:.0f} ms, "
            f"{sections.machine.workers} workers",
        ),
        StageCost(
            stage="captions",
            seconds=sizes.images * image_seconds / sections.machine.workers,
            bytes=sizes.images * image_bytes,
            basis=f"{sizes.images:,} images x {1000 * image_seconds:.1f} ms, "
            f"{sections.machine.workers} workers; captions and vectors come on top",
        ),
        StageCost(
            stage="train",
            seconds=all_steps * step_seconds,
            bytes=0.0,
            basis=f"{all_steps:,} steps of {batch} x {step_seconds:.2f} s on {device}, "
            "if the loaders keep up",
        ),
        StageCost(
            stage="evaluate",
            seconds=views * view_seconds,
            bytes=0.0,
            basis=f"{views:,} frames and windows x {1000 * view_seconds:.0f} ms",
        ),
    ]


def _download_cost(
    sections: Sections, sizes: Sizes, fetched_bytes: int, look_seconds: float
) -> StageCost:
    source = sections.download.source
    if source == "youtube":
        access = sections.machine.youtube
        pauses = sizes.train_clips * 1.5 * access.pause_seconds / access.workers
        return StageCost(
            stage="download",
            seconds=pauses,
            bytes=sizes.train_clips * fetched_bytes,
            basis=f"at least: the pauses of {access.workers} workers alone; the network comes on "
            "top; bytes as those of a test pattern",
        )
    if source == "files":
        clips = sizes.train_clips + sizes.test_videos
        return StageCost(
            stage="download",
            seconds=clips * look_seconds,
            bytes=0.0,
            basis=f"a look into {clips:,} clips x {1000 * look_seconds:.1f} ms; reading archives "
            "comes on top",
        )
    return StageCost(stage="download", seconds=math.nan, bytes=0.0, basis="the demo renders")


def _sample_clip(path: Path) -> StoredFile:
    """10 s of 454 x 340 pictures that move, 25 a second, and noise: VGGSound's usual form."""
    rng = np.random.default_rng(0)
    texture = _soft_picture(rng, width=1000, height=480)
    frames = [texture[i // 2 : i // 2 + 340, 2 * i : 2 * i + 454] for i in range(250)]
    sound = rng.normal(0, 0.1, int(44_100 * CLIP_SECONDS)).astype(np.float32)
    encode_video(path, frames, fps=25, audio=sound, audio_rate_hz=44_100)
    return StoredFile(path=path, size=path.stat().st_size)


def _clip_cost(sections: Sections, file: StoredFile, folder: Path) -> tuple[float, int, float]:
    """Seconds and bytes of an extraction, seconds of a look into the file."""
    clip = Clip(clip_id=file.path.stem, source="vggsound", split="train", label="")
    inspect(clip, file, updated_at=None)  # the first look loads libraries
    began = time.perf_counter()
    outcome = inspect(clip, file, updated_at=None)
    look_seconds = time.perf_counter() - began
    job = ClipShard(path=folder / "shard.tar", split="train", clips=(outcome,))
    timeout_seconds = sections.machine.clip_timeout_seconds
    threads = torch.get_num_threads()
    extract_shard(sections.extract, sections.mel, timeout_seconds, job)
    began = time.perf_counter()
    done = extract_shard(sections.extract, sections.mel, timeout_seconds, job)
    seconds = time.perf_counter() - began
    torch.set_num_threads(threads)
    return seconds, done.bytes, look_seconds


def _image_cost(config: CaptionsConfig) -> tuple[float, int]:
    """Of a 640 x 480 picture, COCO's usual size."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    picture = Image.fromarray(_soft_picture(rng, width=640, height=480))
    picture.save(buffer, "JPEG", quality=90)
    rounds = 20
    began = time.perf_counter()
    for _ in range(rounds):
        stored = stored_jpeg(buffer.getvalue(), config.image_px, config.jpeg_quality)
    return (time.perf_counter() - began) / rounds, len(stored)


def _soft_picture(rng: np.random.Generator, *, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Colours that change every dozen pixels, softly: about as hard to encode as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 12, width // 12, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _step_cost(sections: Sections) -> tuple[float, float, str]:
    """Seconds of a full training step and of embedding one frame with its window."""
    device = pick_device(sections.machine.device)
    config = sections.train
    model = replace(sections.model, image_weights="none", audio_weights="none")  # costs no more
    network = TrimodalNet(model, torch.zeros(2, VECTOR_DIM))
    trainer = Trainer(network, config, sections.loss, World(device=device))
    side = sections.augment.crop_px
    pixels = torch.zeros(config.batch_size, 3, side, side).byte()
    columns = AudioFrontEnd(mel=sections.mel, window=sections.window).columns
    windows = torch.zeros(config.batch_size, 1, sections.mel.mels, columns)
    words = torch.zeros(config.batch_size, WORDS, dtype=torch.int64)

    def seconds_for(rows: int) -> float:
        audio, text = (pixels[:rows], windows[:rows]), (pixels[:rows], words[:rows])
        trainer.step(audio, text)
        began = time.perf_counter()
        trainer.step(audio, text).image_audio.item()
        return time.perf_counter() - began

    few = min(config.batch_size, 4)
    seconds = seconds_for(few) * config.batch_size / few
    if seconds < _PATIENCE_SECONDS:
        seconds = seconds_for(config.batch_size)
    # Forward and backward cost about three forward passes.
    return seconds, seconds / config.batch_size / 3, device.type
