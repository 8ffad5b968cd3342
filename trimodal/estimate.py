"""Estimates what each stage takes on this machine, from a few items timed with these params."""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from trimodal.core.archives import StoredFile
from trimodal.core.files import temporary_folder
from trimodal.core.machine import MachineConfig
from trimodal.core.records import Clip
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.download.download import DownloadConfig
from trimodal.download.probe import inspect
from trimodal.download.youtube import YoutubeConfig
from trimodal.evaluation.config import EvaluateConfig
from trimodal.features.config import FeaturesConfig
from trimodal.losses.config import LossConfig
from trimodal.media.container import encode_video
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.config import ModelConfig
from trimodal.models.devices import count_devices, pick_device
from trimodal.models.networks import TextNet, TrimodalNet, VisionNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.preprocess.captions import CaptionsConfig
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard
from trimodal.preprocess.image_shards import stored_jpeg
from trimodal.sources.vggsound import CLIP_SECONDS
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.trainer import Trainer

_MAX_STEP_SECONDS = 1.0  # a longer step is extrapolated from four rows
_SAMPLES, _SAMPLING_SECONDS = 5, 0.5


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The amount of data: training and validation clips, test videos, captioned images and the
    training images among them.
    """

    train_clips: int
    test_videos: int
    images: int
    train_images: int


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """A stage's estimated wall-clock time and output size on disk; ``basis`` says from what.
    ``seconds`` is NaN if unknown.
    """

    stage: str
    seconds: float
    bytes: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The params that determine the cost of the stages."""

    download: DownloadConfig
    youtube: YoutubeConfig
    extract: ExtractConfig
    mel: MelConfig
    window: WindowConfig
    captions: CaptionsConfig
    augment: AugmentConfig
    model: ModelConfig
    features: FeaturesConfig
    loss: LossConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    machine: MachineConfig


def estimate(sections: Sections, sizes: Sizes) -> list[StageCost]:
    """Times a clip, an image and a training step on this machine and extrapolates; several GPUs are
    assumed to share a step evenly.
    """
    with temporary_folder() as folder:
        clip = _sample_clip(folder / f"{'0' * 11}_000000.mp4")
        clip_seconds, clip_bytes, probe_seconds = _clip_cost(sections, clip, folder)
        fetched_bytes = clip.size
    image_seconds, image_bytes = _image_cost(sections.captions)
    step_seconds, view_seconds, picture_seconds, device = _step_cost(sections, sizes)
    if device == "cuda":  # processes on a CPU share its cores
        gpus = count_devices(sections.machine.devices, sections.machine.device)
        step_seconds /= gpus
        view_seconds /= gpus
        device = f"{gpus} GPUs" if gpus > 1 else "a GPU"
    clips = sizes.train_clips + sizes.test_videos
    batch = sections.train.batch_size
    all_steps = steps_per_epoch(sections, sizes) * sections.train.epochs
    views = sizes.test_videos * sections.evaluate.frames_per_video
    features = [_features_cost(sections, sizes, picture_seconds)] if sections.model.freeze else []
    return [
        _download_cost(sections, sizes, fetched_bytes, probe_seconds),
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
            f"{sections.machine.workers} workers, without captions and vectors",
        ),
        *features,
        StageCost(
            stage="train",
            seconds=all_steps * step_seconds,
            bytes=0.0,
            basis=f"{all_steps:,} steps of {batch} x {step_seconds:.2f} s on {device}, "
            "without waiting for data",
        ),
        StageCost(
            stage="evaluate",
            seconds=views * view_seconds,
            bytes=0.0,
            basis=f"{views:,} frames and windows x {1000 * view_seconds:.0f} ms",
        ),
    ]


def steps_per_epoch(sections: Sections, sizes: Sizes) -> int:
    """The steps of an epoch: the full batches of the shorter stream, without what validates."""
    held_out = int(sections.extract.validation_share * sizes.train_clips)
    clips = sizes.train_clips - held_out
    shorter = min(clips, sizes.train_images) if sizes.train_images else clips
    return sections.train.steps_per_epoch or max(1, shorter // sections.train.batch_size)


def _download_cost(
    sections: Sections, sizes: Sizes, fetched_bytes: int, probe_seconds: float
) -> StageCost:
    source = sections.download.source
    if source == "youtube":
        access = sections.machine.youtube
        pauses = sizes.train_clips * 1.5 * access.pause_seconds / access.workers
        return StageCost(
            stage="download",
            seconds=pauses,
            bytes=sizes.train_clips * fetched_bytes,
            basis=f"lower bound: only the pauses of {access.workers} workers, without the network; "
            "size of a test clip",
        )
    if source in ("files", "videos"):
        clips = sizes.train_clips + sizes.test_videos
        return StageCost(
            stage="download",
            seconds=clips * probe_seconds,
            bytes=0.0,
            basis=f"probing {clips:,} clips x {1000 * probe_seconds:.1f} ms, "
            "without reading archives",
        )
    return StageCost(
        stage="download", seconds=math.nan, bytes=0.0, basis="rendering the demo is not estimated"
    )


def _sample_clip(path: Path) -> StoredFile:
    """10 s of moving 454 x 340 frames at 25 fps with noise as audio: VGGSound's usual format."""
    rng = np.random.default_rng(0)
    texture = _smooth_image(rng, width=1000, height=480)
    frames = [texture[i // 2 : i // 2 + 340, 2 * i : 2 * i + 454] for i in range(250)]
    audio = rng.normal(0, 0.1, int(44_100 * CLIP_SECONDS)).astype(np.float32)
    encode_video(path, frames, fps=25, audio=audio, audio_rate_hz=44_100)
    return StoredFile(path=path, size=path.stat().st_size)


def _clip_cost(sections: Sections, file: StoredFile, folder: Path) -> tuple[float, int, float]:
    """Seconds and bytes of an extraction, seconds of probing the file."""
    clip = Clip(clip_id=file.path.stem, source="vggsound", split="train", label="")
    outcome = inspect(clip, file, updated_at=None)
    probe_seconds = _least_seconds(lambda: inspect(clip, file, updated_at=None))
    job = ClipShard(path=folder / "shard.tar", split="train", clips=(outcome,))
    timeout_seconds = sections.machine.clip_timeout_seconds
    threads = torch.get_num_threads()
    result = extract_shard(sections.extract, sections.mel, timeout_seconds, job)
    seconds = _least_seconds(
        lambda: extract_shard(sections.extract, sections.mel, timeout_seconds, job)
    )
    torch.set_num_threads(threads)
    return seconds, result.bytes, probe_seconds


def _image_cost(config: CaptionsConfig) -> tuple[float, int]:
    """Seconds and bytes of a 640 x 480 image, COCO's usual size."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    image = Image.fromarray(_smooth_image(rng, width=640, height=480))
    image.save(buffer, "JPEG", quality=90)
    content = buffer.getvalue()
    stored = stored_jpeg(content, config.image_px, config.jpeg_quality)
    seconds = _least_seconds(lambda: stored_jpeg(content, config.image_px, config.jpeg_quality))
    return seconds, len(stored)


def _least_seconds(work: Callable[[], object]) -> float:
    """The least of the times of several runs, begun within half a second: what else the machine
    does only makes them longer.
    """
    least, end = math.inf, time.perf_counter() + _SAMPLING_SECONDS
    for _ in range(_SAMPLES):
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return least


def _smooth_image(rng: np.random.Generator, *, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Colours that change smoothly every dozen pixels: about as hard to encode as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 12, width // 12, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _features_cost(sections: Sections, sizes: Sizes, picture_seconds: float) -> StageCost:
    if "image" not in sections.model.freeze:
        return StageCost(
            stage="features", seconds=math.nan, bytes=0.0, basis="captions are not estimated"
        )
    workers = sections.machine.workers if pick_device(sections.machine.device).type == "cpu" else 1
    pictures = round(sizes.train_clips * CLIP_SECONDS) + sizes.train_images
    views = pictures * sections.features.views
    return StageCost(
        stage="features",
        seconds=views * picture_seconds / workers,
        bytes=0.0,
        basis=f"{views:,} views of pictures x {1000 * picture_seconds:.0f} ms, {workers} workers, "
        "without captions",
    )


def _step_cost(sections: Sections, sizes: Sizes) -> tuple[float, float, float, str]:
    """Seconds of a training step, of embedding one frame with its window, and of a frame alone; the
    device. A step has captions if there are any, and features of towers that stay frozen.
    """
    device = pick_device(sections.machine.device)
    config, model = sections.train, sections.model
    model = replace(model, image_weights="none", audio_weights="none", text_weights="none")
    network = TrimodalNet(model, torch.zeros(2, VECTOR_DIM))
    frozen = model.freeze if config.freeze_epochs is None else ()
    trainer = Trainer(network, config, sections.loss, World(device=device), frozen)
    side = sections.augment.crop_px
    pixels = torch.zeros(config.batch_size, 3, side, side).byte()
    columns = AudioFrontEnd(mel=sections.mel, window=sections.window).columns
    windows = torch.zeros(config.batch_size, 1, sections.mel.mels, columns)
    words = torch.zeros(config.batch_size, WORDS, dtype=torch.int64)
    if not model.has_vocabulary:
        words = network.text.tokenise.encode(["a dog barks in the park"] * config.batch_size).ids
    images = _features_of(network.image, pixels) if "image" in frozen else pixels
    words = _features_of(network.text, words) if "text" in frozen else words

    def seconds_for(rows: int) -> float:
        audio = images[:rows], windows[:rows]
        text = (images[:rows], words[:rows]) if sizes.images else None
        trainer.step(audio, text)  # the first takes longer
        return _least_seconds(lambda: trainer.step(audio, text).image_audio.item())

    few = min(config.batch_size, 4)
    seconds = seconds_for(few) * config.batch_size / few
    if seconds < _MAX_STEP_SECONDS:
        seconds = seconds_for(config.batch_size)
    picture = _picture_seconds(network, pixels[:few].to(device))
    # Forward and backward cost about three forward passes.
    view = seconds / config.batch_size / 3 + ("image" in frozen) * picture
    return seconds, view, picture, device.type


def _features_of(network: VisionNet | TextNet, inputs: Tensor) -> Tensor:
    """Of a frozen tower, in place of its inputs; zeros."""
    return torch.zeros(len(inputs), network.backbone.features)


def _picture_seconds(network: TrimodalNet, pixels: Tensor) -> float:
    """Seconds that the image network takes for a picture without training it; on a CPU with one
    thread, as the workers of stage ``features`` have.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        image = network.image.eval()
        image(image.prepare(pixels))
        seconds = _least_seconds(lambda: image(image.prepare(pixels)).sum().item())
    torch.set_num_threads(threads)
    return seconds / len(pixels)
