"""The two training streams: their data sets, and pairs of batches, one of each stream."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from trimodal.core.machine import ShardCacheConfig
from trimodal.core.records import DataError
from trimodal.data.clip_index import read_index
from trimodal.data.readers import Pair
from trimodal.data.shard_files import image_fingerprints, open_shards
from trimodal.features.store import FeatureStore
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig
from trimodal.models.text_input import TextInput
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS, World
from trimodal.training.image_audio import (
    FrameSampling,
    ImageAudioPairs,
    ImageAudioValidation,
)
from trimodal.training.image_text import (
    ImageTextPairs,
    ImageTextValidation,
    has_captions,
)
from trimodal.training.loaders import training_loader
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import Rounds, ShardRounds, ShuffledRounds
from trimodal.training.sampler import EndlessBatches


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The data sets of training; without captions there is no image-text stream."""

    image_audio: ImageAudioPairs
    image_text: ImageTextPairs | None
    image_audio_validation: ImageAudioValidation
    image_text_validation: ImageTextValidation | None

    def thawed(self) -> "Streams":
        """The same samples, read as pixels and token ids instead of stored features."""
        return replace(
            self,
            image_audio=self.image_audio.thawed(),
            image_text=None if self.image_text is None else self.image_text.thawed(),
            image_audio_validation=self.image_audio_validation.thawed(),
            image_text_validation=None
            if self.image_text_validation is None
            else self.image_text_validation.thawed(),
        )

    def batch_samples(self, config: TrainConfig) -> int:
        """The samples of a step, of all ranks and both streams."""
        streams = (self.image_audio, self.image_text)
        return sum(min(len(s), config.batch_size) for s in streams if s is not None)


def open_streams(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    config: TrainConfig,
    front_end: AudioFrontEnd,
    augment: AugmentConfig,
    shard_cache: ShardCacheConfig,
    world: World = SINGLE_PROCESS,
    *,
    tokenise: TextInput | None = None,
    features: FeatureStore | None = None,
) -> Streams:
    """Opens the training and validation sets of both streams, or of the image-audio stream alone
    where there are no captions. The folders of shards may be URLs. ``tokenise`` and ``features`` as
    :class:`~trimodal.training.image_text.ImageTextPairs` takes them. Raises DataError, naming the
    file, if a shard or a file of features is not the one that its index describes: the ranks of a
    machine share that check, and one that raises ends them all.
    """
    sampling = FrameSampling(
        first_frame=config.first_frame,
        last_frame=config.last_frame,
        validation_frame=config.validation_frame,
    )
    train, val = (read_index(av_dir, split, front_end.mel) for split in ("train", "val"))
    share = {"local_rank": world.local_rank, "local_size": world.local_size}
    read = open_shards(train.fingerprints | val.fingerprints, shard_cache, **share)
    if features:
        features.check_files(**share)
    streams = Streams(
        image_audio=ImageAudioPairs(
            train, sampling, front_end, augment, config.seed,
            frames_per_clip=config.frames_per_clip, read=read, features=features,
        ),
        image_text=None,
        image_audio_validation=ImageAudioValidation(
            val, sampling, front_end, augment, read=read, features=features
        ),
        image_text_validation=None,
    )  # fmt: skip
    if not has_captions(captions_dir):
        return streams
    read_images = open_shards(image_fingerprints(images_dir), shard_cache, **share)
    validation = ImageTextValidation(
        captions_dir, images_dir, "val", augment,
        read=read_images, tokenise=tokenise, features=features,
    )  # fmt: skip
    if len(validation) < 2:
        raise DataError(
            f"{images_dir / 'index.parquet'}: validation needs at least two captioned images, not "
            f"{len(validation)}: set captions.flickr30k_held_out"
        )
    return replace(
        streams,
        image_text=ImageTextPairs(
            captions_dir, images_dir, "train", augment, config.seed,
            read=read_images, tokenise=tokenise, features=features,
        ),
        image_text_validation=validation,
    )  # fmt: skip


def reading_workers(loader_workers: int) -> int:
    """The processes that read a training stream: its loaders, or without any, this one."""
    return max(1, loader_workers)


def paired_batches(
    streams: Streams,
    config: TrainConfig,
    first_step: int = 0,
    world: World = SINGLE_PROCESS,
    loader_workers: int = 0,
) -> tuple[Iterator[tuple[Pair, Pair | None]], int]:
    """Endless pairs of batches, one of each stream (None of one that there is not), from
    ``first_step`` (from 0) on; and the number of steps of an epoch, the same for all ranks. Each
    rank gets its part of every batch. Each stream is prefetched by ``loader_workers`` processes.
    """

    def rounds(shard_of: npt.NDArray[np.int32], stream: RandomStream, passes: int) -> Rounds:
        if config.reader == "indexed":
            return ShuffledRounds(len(shard_of), config.batch_size, config.seed, stream, world.size)
        return ShardRounds(
            shard_of, config.batch_size, config.seed, stream,
            shuffle_shards=config.shuffle_shards, passes=passes,
            workers=reading_workers(loader_workers), world_size=world.size,
        )  # fmt: skip

    def loader(dataset: Dataset[Pair], order: Rounds) -> Iterator[Pair]:
        batches = EndlessBatches(order, first_step, rank=world.rank, world_size=world.size)
        return training_loader(dataset, batches, loader_workers)

    clips, images = streams.image_audio, streams.image_text
    audio = rounds(clips.shard_of, RandomStream.CLIP_ORDER, config.frames_per_clip)
    if images is None:
        alone = ((batch, None) for batch in loader(clips, audio))
        return alone, config.steps_per_epoch or audio.batches
    text = rounds(images.shard_of, RandomStream.IMAGE_ORDER, 1)
    pairs = zip(loader(clips, audio), loader(images, text), strict=True)
    return pairs, config.steps_per_epoch or min(audio.batches, text.batches)
