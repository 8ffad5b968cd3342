"""The streams that training reads: their data sets, and batches of both in step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimodal.core.records import Split
from trimodal.media.mel import MelConfig
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.clip_index import read_index
from trimodal.training.config import TrainConfig
from trimodal.training.datasets import AudioVisualPairs, CaptionedImages, Pair, PointRule
from trimodal.training.distributed import ALONE, Ranks
from trimodal.training.sampler import EndlessBatches, training_loader


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The four sets that training reads."""

    audio: AudioVisualPairs
    text: CaptionedImages
    audio_validation: AudioVisualPairs
    text_validation: CaptionedImages


def open_streams(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    config: TrainConfig,
    mel: MelConfig,
    augment: AugmentConfig,
) -> Streams:
    """Opens the training and validation sets of both streams."""
    rule = PointRule(
        first_frame=config.first_frame,
        last_frame=config.last_frame,
        validation_frame=config.validation_frame,
    )

    def clips(split: Split) -> AudioVisualPairs:
        return AudioVisualPairs(read_index(av_dir, split, mel), rule, mel, augment, config.seed)

    def images(split: Split) -> CaptionedImages:
        return CaptionedImages(captions_dir, images_dir, split, augment, config.seed)

    return Streams(
        audio=clips("train"),
        text=images("train"),
        audio_validation=clips("val"),
        text_validation=images("val"),
    )


def paired_batches(
    streams: Streams, config: TrainConfig, first_step: int = 0, ranks: Ranks = ALONE
) -> tuple[Iterator[tuple[Pair, Pair]], int]:
    """Endless pairs of batches, one of each stream, from ``first_step`` (from 0) on, of which each
    rank gets its part; and the steps of an epoch, the same for all ranks.
    """

    def endless(dataset: AudioVisualPairs | CaptionedImages, stream: int) -> EndlessBatches:
        return EndlessBatches(
            len(dataset), config.batch_size, config.seed, stream, first_step,
            rank=ranks.rank, ranks=ranks.size,
        )  # fmt: skip

    audio, text = endless(streams.audio, 0), endless(streams.text, 1)
    pairs = zip(
        training_loader(streams.audio, audio, config.loader_workers),
        training_loader(streams.text, text, config.loader_workers),
        strict=True,
    )
    return pairs, config.steps_per_epoch or min(audio.batches_per_round, text.batches_per_round)
