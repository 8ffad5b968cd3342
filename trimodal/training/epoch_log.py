"""Where the scores of epochs go: DVCLive's files, TensorBoard, Weights & Biases, and, where no
progress bar is seen, a line an epoch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from dvclive.live import Live

from trimodal.core.files import remove
from trimodal.core.progress import clock, log
from trimodal.training.config import Logger
from trimodal.training.start import check_loggers
from trimodal.training.validation import Scores


class _Sink(Protocol):
    def epoch(self, number: int, scores: Mapping[str, float]) -> None:
        """Takes the scores of epoch ``number`` (from 1), by names like ``val/loss``."""


class EpochLog:
    """Passes the scores of each epoch on."""

    def __init__(self, live: Live, sinks: Sequence[_Sink]) -> None:
        self._live, self._sinks = live, sinks
        self._epochs = 0

    def epoch(self, scores: Scores) -> None:
        """The scores of the next epoch: ``{'train': ..., 'val': ...}``."""
        self._epochs += 1
        flat = {
            f"{split}/{name}": value
            for split, values in scores.items()
            for name, value in values.items()
        }
        for name, value in flat.items():
            self._live.log_metric(name, value)
        self._live.next_step()  # type: ignore[no-untyped-call]
        for sink in self._sinks:
            sink.epoch(self._epochs, flat)

    def best(self, **values: float) -> None:
        """Numbers of the epoch that is kept, which alone are what DVC compares runs by: the epochs'
        are in the curves.
        """
        for split in ("train", "val"):
            self._live.summary.pop(split, None)
        for name, value in values.items():
            self._live.log_metric(f"best/{name}", value, plot=False)


@contextmanager
def epoch_log(
    folder: Path, loggers: Sequence[Logger], runs: Path, run_name: str
) -> Iterator[EpochLog]:
    """DVCLive's files in ``folder``; what ``loggers`` leave on this disk is in ``runs``. A resumed
    run logs its earlier epochs again. ``run_name`` identifies it for Weights & Biases, whose own
    environment variables say where it goes (WANDB_PROJECT, WANDB_MODE). Raises LoggerError.
    """
    with ExitStack() as stack:
        sinks = [stack.enter_context(_SINKS[name](runs, run_name)) for name in loggers]
        live = Live(str(folder), dvcyaml=None, save_dvc_exp=False, report=None)
        yield EpochLog(stack.enter_context(live), sinks)


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def epoch(self, number: int, scores: Mapping[str, float]) -> None:
        for name, value in scores.items():
            self._writer.add_scalar(name, value, number)


@contextmanager
def _tensorboard(runs: Path, _run_name: str) -> Iterator[_Sink]:
    check_loggers(["tensorboard"])
    from torch.utils.tensorboard import SummaryWriter

    remove(runs / "tensorboard")  # the epochs come again
    with SummaryWriter(runs / "tensorboard") as writer:
        yield _TensorBoard(writer)


class _WeightsAndBiases:
    def __init__(self, run: Any) -> None:
        self._run = run

    def epoch(self, number: int, scores: Mapping[str, float]) -> None:
        self._run.log(dict(scores), step=number)


@contextmanager
def _wandb(runs: Path, run_name: str) -> Iterator[_Sink]:
    check_loggers(["wandb"])
    import wandb

    runs.mkdir(parents=True, exist_ok=True)
    with wandb.init(dir=str(runs), id=run_name, resume="allow") as run:
        yield _WeightsAndBiases(run)


_SINKS = {"tensorboard": _tensorboard, "wandb": _wandb}


class Pace:
    """How fast training is, for a line an epoch in logs without a terminal."""

    def __init__(self, epochs: int, epoch: int) -> None:
        """``epochs`` in all, of which ``epoch`` are done."""
        self._epochs, self._first = epochs, epoch
        self._started = self._since = time.monotonic()

    def line(self, epoch: int, samples: int, scores: Scores) -> None:
        """Logs the end of an epoch, in which this process and others trained on ``samples``."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        left = (now - self._started) / (epoch - self._first) * (self._epochs - epoch)
        val = scores["val"]
        recalled = f", recall {val['recall']:.1f} %" if "recall" in val else ""
        log.info(
            f"train: epoch {epoch} of {self._epochs}: loss {scores['train']['loss']:.4f}, "
            f"validation {val['loss']:.4f}{recalled}; {samples / max(seconds, 1e-9):.0f} "
            f"samples/s, {clock(left)} left"
        )
