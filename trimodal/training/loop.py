"""The epochs of a training run and the choice of the best one (docs/method.md, Training)."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from trimodal.core.errors import UserError
from trimodal.core.machine import MachineConfig
from trimodal.core.progress import counter
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import SINGLE_PROCESS, World
from trimodal.training.epoch_log import EpochLog, Pace
from trimodal.training.loaders import LoaderError
from trimodal.training.resume import Run
from trimodal.training.streams import Streams, paired_batches
from trimodal.training.trainer import Trainer, mean_losses


class TrainingError(UserError, RuntimeError):
    """A training run that cannot continue: a loss that is not finite, memory or a loader lost."""


def run_epochs(
    trainer: Trainer,
    streams: Streams,
    config: TrainConfig,
    machine: MachineConfig,
    epoch_log: EpochLog | None,
    run: Run,
    save: Callable[[], None],
    world: World = SINGLE_PROCESS,
) -> None:
    """Trains for the remaining epochs of ``run``. Each epoch, including those of an earlier
    process, goes to ``epoch_log`` (rank 0's). Keeps the best weights in ``run``, and calls ``save``
    every ``machine.checkpoint_every_steps`` and at the end. Raises TrainingError for losses that
    are not finite, for a GPU out of memory and for a killed loader.
    """
    if epoch_log:
        for scores in run.history:
            epoch_log.epoch(scores)
    if len(run.history) < config.epochs:
        with _explain_lost_memory_and_loaders():
            _remaining_epochs(trainer, streams, config, machine, epoch_log, run, save, world)
    if not run.best_epoch:
        raise TrainingError(
            "train: no epoch had a finite validation loss; lower train.learning_rate"
        )
    if epoch_log:
        recall = {"val_recall": run.best_recall} if math.isfinite(run.best_recall) else {}
        epoch_log.best(epoch=run.best_epoch, val_loss=run.best_loss, **recall)


def _remaining_epochs(
    trainer: Trainer,
    streams: Streams,
    config: TrainConfig,
    machine: MachineConfig,
    epoch_log: EpochLog | None,
    run: Run,
    save: Callable[[], None],
    world: World,
) -> None:
    if not trainer.frozen:
        streams = streams.thawed()
    batches, steps = paired_batches(streams, config, run.step, world, machine.loader_workers)
    run.restore_random(world.rank)
    pace = Pace(config.epochs, len(run.history))
    with counter(task="training", unit="steps", total=config.epochs * steps) as progress:
        progress.update(run.step)
        for epoch in range(len(run.history) + 1, config.epochs + 1):
            first_step = run.step
            if trainer.frozen and epoch > (config.freeze_epochs or config.epochs):
                streams = streams.thawed()
                _thaw(trainer, run)
                batches, _ = paired_batches(
                    streams, config, run.step, world, machine.loader_workers
                )
            while run.step < epoch * steps:
                run.losses.append(trainer.step(*next(batches)))
                run.step += 1
                progress.update()
                if run.step % machine.checkpoint_every_steps == 0 and run.step < epoch * steps:
                    save()
            means = mean_losses(run.losses)
            if not math.isfinite(means["loss"]):
                raise TrainingError(f"train: the loss of epoch {epoch} is {means['loss']}")
            scores = {"train": means, "val": trainer.validate(streams)}
            trainer.end_epoch()
            if run.is_best(scores["val"], config.select_by):
                run.keep_best(trainer.weights(), epoch, scores["val"])
            run.history.append(scores)
            run.losses.clear()
            if epoch_log:
                epoch_log.epoch(scores)
            if progress.disable:
                pace.line(epoch, (run.step - first_step) * streams.batch_samples(config), scores)
            progress.set_postfix(val=f"{scores['val']['loss']:.4f}", best=run.best_epoch)
            if run.step % machine.checkpoint_every_steps == 0 and epoch < config.epochs:
                save()
    save()


def _thaw(trainer: Trainer, run: Run) -> None:
    """The best epoch so far had the frozen weights as they were."""
    if run.best_epoch:
        run.best_weights |= trainer.frozen_weights()
    trainer.thaw()


@contextmanager
def _explain_lost_memory_and_loaders() -> Iterator[None]:
    """Raises TrainingError with advice for a GPU out of memory and for a loader process that was
    killed. PyTorch reports the latter as a RuntimeError, known only by its text and raised anywhere
    by a signal handler, which may run after the error of a connection that the loader closed.
    """
    try:
        try:
            yield
        except (ConnectionError, EOFError):
            time.sleep(5)  # until the signal handler raises
            raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"train: {error}; run dvc repro again to resume from the last checkpoint, with "
            "a smaller train.batch_size or train.chunk_size"
        ) from error
    except LoaderError:
        raise
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "Pin memory thread")):
            raise
        raise TrainingError(
            f"train: {error}; run dvc repro again to resume from the last checkpoint, with "
            "fewer machine.loader_workers if memory ran out"
        ) from error
