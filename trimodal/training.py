"""Training on two streams, epoch by epoch; the best on validation is kept (paper.md, Training)."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from dvclive.live import Live

from trimodal.av_index import read_index
from trimodal.batches import EndlessBatches, training_loader
from trimodal.checkpoint import Checkpoint, save_checkpoint
from trimodal.devices import pick_device
from trimodal.distributed import ALONE, Ranks
from trimodal.files import code_fingerprint, file_fingerprint, fingerprint
from trimodal.images import AugmentConfig
from trimodal.leaks import LeaksConfig, check_leaks, find_leaks
from trimodal.loaders import (
    AudioVisualPairs,
    CaptionedImages,
    Pair,
    PointRule,
    Streams,
    read_frame,
)
from trimodal.losses import LossConfig
from trimodal.mel import MelConfig
from trimodal.model import ModelConfig, TrimodalNet
from trimodal.progress import counter, log
from trimodal.records import Split
from trimodal.resume import Run, RunIdentity, RunRefusedError, Scores, load_run, save_run
from trimodal.text import read_vocabulary
from trimodal.timing import window_fits
from trimodal.trainer import TrainConfig, Trainer, mean_losses

# The source that shapes a run: another version of it begins a new one.
SHAPING_MODULES = (
    "trimodal.av_index", "trimodal.backbones", "trimodal.batch_norm", "trimodal.batches",
    "trimodal.contrastive", "trimodal.devices", "trimodal.distributed", "trimodal.grad_cache",
    "trimodal.images", "trimodal.loaders", "trimodal.losses", "trimodal.mel", "trimodal.model",
    "trimodal.resume", "trimodal.shards", "trimodal.tables", "trimodal.text", "trimodal.timing",
    "trimodal.trainer", "trimodal.training",
)  # fmt: skip


class TrainingError(RuntimeError):
    """A training run that cannot go on: losses that are no numbers, memory or a loader lost."""


def train(
    av_dir: Path,
    captions_dir: Path,
    images_dir: Path,
    checkpoint_path: Path,
    log_dir: Path,
    run_path: Path,
    *,
    config: TrainConfig,
    loss: LossConfig,
    model: ModelConfig,
    mel: MelConfig,
    augment: AugmentConfig,
    leaks: LeaksConfig,
    ranks: Ranks | None = None,
) -> None:
    """Trains and keeps the epoch with the lowest validation loss; curves go to ``log_dir``.

    ``run_path`` holds the run on its way and when it is done: a run that was killed goes on from
    it, to the same bytes. A run there of other params, data or code, or of another number of ranks,
    is refused, with a word about it, and a new one begins. All ``ranks`` call this alike and the
    first writes; None is this process alone. Raises DataError, before the first step, if test
    videos are in training (section ``leaks``), and TrainingError if no epoch had a validation loss
    that is a number.
    """
    ranks = ranks or Ranks(device=pick_device(config.device))
    check_leaks("train", find_leaks(av_dir, images_dir), leaks)
    torch.manual_seed(config.seed)
    vocabulary = read_vocabulary(captions_dir / "vocabulary.parquet")
    streams = open_streams(av_dir, captions_dir, images_dir, config, mel, augment)
    network = TrimodalNet(model, torch.from_numpy(vocabulary.vectors.copy()))
    trainer = Trainer(network, config, loss, ranks)
    if not ranks.first:  # weights are those of the first rank, chances each rank's own
        torch.manual_seed(
            np.random.SeedSequence([config.seed, ranks.rank]).generate_state(1).item()
        )
    data = {
        "av": file_fingerprint(av_dir / "index.parquet"),
        "images": file_fingerprint(images_dir / "index.parquet"),
        "captions": file_fingerprint(captions_dir / "captions.parquet"),
    }
    sections = [asdict(section) for section in (loss, model, mel, augment)]
    identity = RunIdentity(
        params=fingerprint([config.shaping, ranks.size, *sections]),
        data=fingerprint([data, vocabulary.fingerprint]),
        code=code_fingerprint(*SHAPING_MODULES),
    )
    run = _open_run(run_path, identity, trainer)
    _check_same_step(run.step, ranks, run_path)

    def save() -> None:
        save_run(run_path, run, identity, trainer, ranks)

    run_epochs(trainer, streams, config, log_dir, run, save, ranks)
    if not ranks.first:
        return
    checkpoint = Checkpoint(
        model=model,
        loss=loss,
        mel=mel,
        augment=augment,
        frame_px=read_frame(next(streams.audio.first_points())[0], 1).shape[-1],
        vocabulary=vocabulary.fingerprint,
        front_end=mel.front_end_fingerprint(),
        data=data,
        code=identity.code,
        epoch=run.best_epoch,
        validation_loss=run.best_loss,
    )
    save_checkpoint(checkpoint_path, run.best_weights, checkpoint)
    padded = sum(
        not window_fits(point.centre_seconds, mel.window_seconds, clip.sound_s)
        for clip, point in streams.audio.first_points()
    )
    log.info(
        f"train: {config.epochs} epochs on {ranks.size} x {ranks.device.type}, "
        f"{len(streams.audio)} clips ({padded} shorter than a window, padded), "
        f"{len(streams.text)} images; "
        f"kept epoch {run.best_epoch} with validation loss {run.best_loss:.4f}"
    )


def _open_run(path: Path, identity: RunIdentity, trainer: Trainer) -> Run:
    if not path.exists():
        return Run()
    try:
        run = load_run(path, identity, trainer)
    except RunRefusedError as error:
        log.info(f"train: {error}; a new run begins")
        return Run()
    log.info(f"train: {path}: goes on behind step {run.step}")
    return run


def run_epochs(
    trainer: Trainer,
    streams: Streams,
    config: TrainConfig,
    log_dir: Path,
    run: Run,
    save: Callable[[], None],
    ranks: Ranks = ALONE,
) -> None:
    """Takes the run to its end: logs each epoch through DVCLive (those of an earlier process once
    more; the first rank does), keeps the best weights in ``run``, and calls ``save`` every
    ``checkpoint_every`` steps and at the end. Raises TrainingError for losses that are not finite.
    """
    with ExitStack() as stack:
        live = None
        if ranks.first:
            live = stack.enter_context(
                Live(str(log_dir), dvcyaml=None, save_dvc_exp=False, report=None)
            )
        for scores in run.history:
            _log_epoch(live, scores)
        if len(run.history) < config.epochs:
            with _memory_and_loaders():
                _remaining_epochs(trainer, streams, config, live, run, save, ranks)
        if not run.best_epoch:
            raise TrainingError("train: no epoch had a finite validation loss; lower the rate")
        if live:
            live.log_metric("best/epoch", run.best_epoch, plot=False)
            live.log_metric("best/val_loss", run.best_loss, plot=False)


def _remaining_epochs(
    trainer: Trainer,
    streams: Streams,
    config: TrainConfig,
    live: Live | None,
    run: Run,
    save: Callable[[], None],
    ranks: Ranks,
) -> None:
    batches, steps = paired_batches(streams, config, run.step, ranks)
    run.restore_random(ranks.rank)
    with counter(task="training", unit="steps", total=config.epochs * steps) as progress:
        progress.update(run.step)
        for epoch in range(len(run.history) + 1, config.epochs + 1):
            while run.step < epoch * steps:
                run.losses.append(trainer.step(*next(batches)))
                run.step += 1
                progress.update()
                if run.step % config.checkpoint_every == 0 and run.step < epoch * steps:
                    save()
            means = mean_losses(run.losses)
            if not math.isfinite(means["loss"]):
                raise TrainingError(f"train: the loss of epoch {epoch} is {means['loss']}")
            scores = {"train": means, "val": trainer.validate(streams)}
            trainer.end_epoch()
            if scores["val"]["loss"] < run.best_loss:
                run.keep(trainer.network.state_dict(), epoch, scores["val"]["loss"])
            run.history.append(scores)
            run.losses.clear()
            _log_epoch(live, scores)
            progress.set_postfix(val=f"{scores['val']['loss']:.4f}", best=run.best_epoch)
            if run.step % config.checkpoint_every == 0 and epoch < config.epochs:
                save()
    save()


@contextmanager
def _memory_and_loaders() -> Iterator[None]:
    """Says what can be done about a GPU without memory and about a loader that was killed, of which
    PyTorch tells only by the words of a RuntimeError, raised anywhere: by a signal's handler, which
    may come behind the error of a connection that the loader no longer answers.
    """
    try:
        try:
            yield
        except (ConnectionError, EOFError):
            time.sleep(5)  # until the handler raises
            raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"train: {error}; the run goes on from its last checkpoint: run dvc repro again, with "
            "a smaller train.batch_size or train.chunk_size"
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TrainingError(
            f"train: {error}; the run goes on from its last checkpoint: run dvc repro again, with "
            "fewer train.loader_workers if memory ran out"
        ) from error


def _check_same_step(step: int, ranks: Ranks, path: Path) -> None:
    steps = ranks.gather(torch.tensor([step], device=ranks.device)).tolist()
    if len(set(steps)) > 1:
        raise TrainingError(
            f"train: the processes found runs at steps {steps}: {path} must lie where the machines "
            "of all of them see it"
        )


def _log_epoch(live: Live | None, scores: Scores) -> None:
    if live is None:
        return
    for part, values in scores.items():
        for name, value in values.items():
            live.log_metric(f"{part}/{name}", value)
    live.next_step()  # type: ignore[no-untyped-call]


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
