"""Training on two streams, epoch by epoch; the best on validation is kept (paper.md, Training)."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from dvclive.live import Live

from trimodal.av_index import read_index
from trimodal.checkpoint import Checkpoint, save_checkpoint
from trimodal.devices import pick_device
from trimodal.files import file_fingerprint, git_revision
from trimodal.images import AugmentConfig
from trimodal.leaks import LeaksConfig, check_leaks, find_leaks
from trimodal.loaders import (
    AudioVisualPairs,
    CaptionedImages,
    EndlessBatches,
    Pair,
    PointRule,
    Streams,
    training_loader,
)
from trimodal.losses import LossConfig
from trimodal.mel import MelConfig
from trimodal.model import ModelConfig, TrimodalNet
from trimodal.progress import counter, log
from trimodal.records import Split
from trimodal.text import read_vocabulary
from trimodal.timing import window_fits
from trimodal.trainer import StepLosses, TrainConfig, Trainer, mean_losses


def train(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    checkpoint_path: Path,
    log_dir: Path,
    *,
    config: TrainConfig,
    loss: LossConfig,
    model: ModelConfig,
    mel: MelConfig,
    augment: AugmentConfig,
    leaks: LeaksConfig,
) -> None:
    """Trains and keeps the epoch with the lowest validation loss; curves go to ``log_dir``.

    Raises DataError, before the first step, if test videos are in training (section ``leaks``), and
    RuntimeError if no epoch had a validation loss that is a number.
    """
    check_leaks("train", find_leaks(av_dir, images_dir), leaks)
    torch.manual_seed(config.seed)
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    streams = open_streams(av_dir, captions_dir, images_dir, config, mel, augment)
    device = pick_device(config.device)
    network = TrimodalNet(model, torch.from_numpy(vocabulary.vectors.copy()))
    trainer = Trainer(network, config, loss, device)
    provenance = {
        "av": file_fingerprint(av_dir / "index.parquet"),
        "images": file_fingerprint(images_dir / "index.parquet"),
        "captions": file_fingerprint(captions_dir / "captions.parquet"),
    }

    def keep(epoch: int, validation_loss: float) -> None:
        checkpoint = Checkpoint(
            model=model,
            loss=loss,
            mel=mel,
            augment=augment,
            vocabulary=vocabulary.fingerprint,
            front_end=mel.front_end_fingerprint(),
            data=provenance,
            git=git_revision(),
            epoch=epoch,
            validation_loss=validation_loss,
        )
        save_checkpoint(checkpoint_path, network.state_dict(), checkpoint)

    best_epoch, best = run_epochs(trainer, streams, config, log_dir, keep)
    padded = sum(
        not window_fits(point.centre_seconds, mel.window_seconds, clip.sound_s)
        for clip, point in streams.audio.first_points()
    )
    log.info(
        f"train: {config.epochs} epochs on {device.type}, {len(streams.audio)} clips "
        f"({padded} shorter than a window, padded), {len(streams.text)} images; "
        f"kept epoch {best_epoch} with validation loss {best:.4f}"
    )


def run_epochs(
    trainer: Trainer,
    streams: Streams,
    config: TrainConfig,
    log_dir: Path,
    keep: Callable[[int, float], None],
) -> tuple[int, float]:
    """Runs all epochs, logs each through DVCLive and calls ``keep(epoch, validation loss)`` at
    every new best. Returns the best epoch (from 1) and its validation loss.
    """
    batches, steps = paired_batches(streams, config)
    best_epoch, best = 0, math.inf
    with (
        Live(str(log_dir), dvcyaml=None, save_dvc_exp=False, report=None) as live,
        counter(task="training", unit="steps", total=config.epochs * steps) as progress,
    ):
        for epoch in range(1, config.epochs + 1):
            losses: list[StepLosses] = []
            for audio_batch, text_batch in islice(batches, steps):
                losses.append(trainer.step(audio_batch, text_batch))
                progress.update()
            means = mean_losses(losses)
            if not math.isfinite(means["loss"]):
                raise RuntimeError(f"train: the loss of epoch {epoch} is {means['loss']}")
            scores = trainer.validate(streams)
            trainer.end_epoch()
            if scores["loss"] < best:
                best_epoch, best = epoch, scores["loss"]
                keep(best_epoch, best)
            for part, values in (("train", means), ("val", scores)):
                for name, value in values.items():
                    live.log_metric(f"{part}/{name}", value)
            progress.set_postfix(val=f"{scores['loss']:.4f}", best=best_epoch)
            live.next_step()
        if not best_epoch:
            raise RuntimeError("train: no epoch had a finite validation loss; lower the rate")
        live.log_metric("best/epoch", best_epoch, plot=False)
        live.log_metric("best/val_loss", best, plot=False)
    return best_epoch, best


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
    streams: Streams, config: TrainConfig
) -> tuple[Iterator[tuple[Pair, Pair]], int]:
    """Endless pairs of batches, one of each stream, and the steps of an epoch."""
    audio = EndlessBatches(len(streams.audio), config.batch_size, config.seed, stream=0)
    text = EndlessBatches(len(streams.text), config.batch_size, config.seed, stream=1)
    pairs = zip(
        training_loader(streams.audio, audio, config.loader_workers),
        training_loader(streams.text, text, config.loader_workers),
        strict=True,
    )
    return pairs, config.steps_per_epoch or min(audio.batches_per_round, text.batches_per_round)
