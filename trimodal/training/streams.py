"""The two training streams: their data sets, and pairs of batches, one of each stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.clip_index import read_index
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS, World
from trimodal.training.image_audio import (
    FrameSampling,
    ImageAudioPairs,
    ImageAudioValidation,
)
from trimodal.training.image_text import ImageTextPairs, ImageTextValidation
from trimodal.training.random_streams import RandomStream
from trimodal.training.readers import Pair
from trimodal.training.sampler import EndlessBatches, training_loader


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The four data sets of training."""

    image_audio: ImageAudioPairs
    image_text: ImageTextPairs
    image_audio_validation: ImageAudioValidation
    image_text_validation: ImageTextValidation


def open_streams(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    config: TrainConfig,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
) -> Streams:
    """Opens the training and validation sets of both streams."""
    sampling = FrameSampling(
        first_frame=config.first_frame,
        last_frame=config.last_frame,
        validation_frame=config.validation_frame,
    )
    train, val = (read_index(av_dir, split, front_end.mel) for split in ("train", "val"))
    return Streams(
        image_audio=ImageAudioPairs(train, sampling, front_end, augment, config.seed),
        image_text=ImageTextPairs(captions_dir, images_dir, "train", augment, config.seed),
        image_audio_validation=ImageAudioValidation(val, sampling, front_end, augment),
        image_text_validation=ImageTextValidation(captions_dir, images_dir, "val", augment),
    )


def paired_batches(
    streams: Streams,
    config: TrainConfig,
    first_step: int = 0,
    world: World = SINGLE_PROCESS,
    loader_workers: int = 0,
) -> tuple[Iterator[tuple[Pair, Pair]], int]:
    """Endless pairs of batches, one of each stream, from ``first_step`` (from 0) on; and the number
    of steps of an epoch, the same for all ranks. Each rank gets its part of every batch. Each
    stream is prefetched by ``loader_workers`` processes.
    """

    def batches(samples: int, stream: RandomStream) -> EndlessBatches:
        return EndlessBatches(
            samples, config.batch_size, config.seed, stream, first_step,
            rank=world.rank, world_size=world.size,
        )  # fmt: skip

    audio = batches(len(streams.image_audio), RandomStream.CLIP_ORDER)
    text = batches(len(streams.image_text), RandomStream.IMAGE_ORDER)
    pairs = zip(
        training_loader(streams.image_audio, audio, loader_workers),
        training_loader(streams.image_text, text, loader_workers),
        strict=True,
    )
    return pairs, config.steps_per_epoch or min(audio.batches_per_round, text.batches_per_round)
