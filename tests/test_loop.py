"""The epochs of a run: which one is kept, how many steps they have, what is logged."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from configs import MACHINE
from torch import Tensor
from trainer_fixtures import CONFIG, THREE_STEPS
from training_fixtures import TinyData

from trimodal.core.machine import MachineConfig
from trimodal.training.epoch_log import epoch_log
from trimodal.training.loop import TrainingError, run_epochs
from trimodal.training.resume import Run
from trimodal.training.streams import open_streams
from trimodal.training.trainer import StepLosses


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


@dataclass
class ScriptedTrainer:
    """Replaces the trainer; its validation losses are given."""

    losses: Iterable[float]
    events: list[str] = field(default_factory=list)
    network: torch.nn.Module = field(default_factory=lambda: torch.nn.Linear(1, 1))
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._losses = iter(self.losses)

    def step(self, audio_batch: list[Tensor], text_batch: list[Tensor]) -> StepLosses:
        self.events.append(f"step {len(audio_batch[0])}+{len(text_batch[0])}")
        return StepLosses(torch.tensor(0.5), torch.tensor(0.25))

    def validate(self, _streams: object) -> dict[str, float]:
        self.events.append("validate")
        loss = next(self._losses)
        return {"image_audio": loss / 2, "image_text": loss / 2, "loss": loss}

    def end_epoch(self) -> None:
        self.events.append("end")

    def weights(self) -> dict[str, Tensor]:
        return self.network.state_dict()


@dataclass(kw_only=True)
class RecordedRun(Run):
    """Records each best epoch and its loss."""

    best_epochs: list[tuple[int, float]] = field(default_factory=list)

    def keep_best(
        self, weights: Mapping[str, Tensor], epoch: int, scores: Mapping[str, float]
    ) -> None:
        super().keep_best(weights, epoch, scores)
        self.best_epochs.append((epoch, scores["loss"]))


def run_scripted(
    data: TinyData,
    log_dir: Path,
    losses: list[float],
    machine: MachineConfig = THREE_STEPS,
    **changes: int | None,
) -> tuple[ScriptedTrainer, tuple[int, float], list[tuple[int, float]]]:
    config = replace(CONFIG, epochs=len(losses), **changes)
    streams = open_streams(
        data.av_dir,
        data.captions_dir,
        data.images_dir,
        config,
        data.front_end,
        data.augment,
        MACHINE.shard_cache,
    )
    trainer, run = ScriptedTrainer(losses), RecordedRun()
    with epoch_log(log_dir, config.loggers, log_dir / "loggers", "a run") as logged:
        run_epochs(
            trainer,  # type: ignore[arg-type]
            streams,
            config,
            machine,
            logged,
            run,
            lambda: trainer.events.append("save"),
        )
    return trainer, (run.best_epoch, run.best_loss), run.best_epochs


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "best_epochs"),
    [
        ([3.0, 2.0, 1.0], [(1, 3.0), (2, 2.0), (3, 1.0)]),
        ([3.0, 1.0, 2.0, 1.0], [(1, 3.0), (2, 1.0)]),
        ([NAN, 2.0, NAN, 1.0, NAN], [(2, 2.0), (4, 1.0)]),
        ([INF, 5.0], [(2, 5.0)]),
    ],
)
def test_best_epoch_on_validation_is_kept(
    losses: list[float], best_epochs: list[tuple[int, float]], tiny_data: TinyData, tmp_path: Path
) -> None:
    _, best, recorded = run_scripted(tiny_data, tmp_path / "log", losses)
    assert recorded == best_epochs
    assert best == best_epochs[-1]
    metrics = json.loads((tmp_path / "log" / "metrics.json").read_text())
    assert metrics["best"] == {"epoch": best[0], "val_loss": best[1]}


@pytest.mark.parametrize("losses", [[NAN, NAN], [INF], [NAN, INF]])
def test_training_without_a_finite_validation_loss_keeps_nothing(
    losses: list[float], tiny_data: TinyData, tmp_path: Path
) -> None:
    best_epochs: list[tuple[int, float]] = []
    with pytest.raises(RuntimeError, match="finite"):
        best_epochs = run_scripted(tiny_data, tmp_path / "log", losses)[2]
    assert best_epochs == []


def test_a_training_loss_that_is_not_finite_ends_the_run(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = StepLosses(torch.tensor(NAN), torch.tensor(0.25))
    monkeypatch.setattr(ScriptedTrainer, "step", lambda *_: broken)
    with pytest.raises(RuntimeError, match="the loss of epoch 1 is nan"):
        run_scripted(tiny_data, tmp_path / "log", [1.0])


def test_a_gpu_out_of_memory_gives_advice(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ScriptedTrainer, "step", out_of_memory)
    with pytest.raises(TrainingError, match=r"CUDA out of memory; .* train\.chunk_size"):
        run_scripted(tiny_data, tmp_path / "log", [1.0])


@pytest.mark.parametrize(
    ("steps", "batch_size", "expected"), [(None, 3, 2), (None, 2, 3), (5, 3, 5), (None, 100, 1)]
)
def test_an_epoch_has_the_shorter_streams_steps_or_steps_per_epoch(
    steps: int | None, batch_size: int, expected: int, tiny_data: TinyData, tmp_path: Path
) -> None:
    """7 clips and 8 images."""
    trainer, _, _ = run_scripted(
        tiny_data, tmp_path / "log", [1.0, 1.0], replace(MACHINE, checkpoint_every_steps=1000),
        steps_per_epoch=steps, batch_size=batch_size,
    )  # fmt: skip
    step = f"step {min(batch_size, 7)}+{min(batch_size, 8)}"
    assert trainer.events == [*[step] * expected, "validate", "end"] * 2 + ["save"]


def test_metrics_are_the_best_epochs_and_curves_hold_all(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    run_scripted(tiny_data, tmp_path / "log", [2.0, 1.0, 3.0])
    metrics = json.loads((tmp_path / "log" / "metrics.json").read_text())
    assert metrics == {"best": {"epoch": 2, "val_loss": 1.0}, "step": 2}
    curves = tmp_path / "log" / "plots" / "metrics"
    for name, values in {
        "val/loss": ["2.0", "1.0", "3.0"],
        "train/image_audio": ["0.5"] * 3,
        "train/image_text": ["0.25"] * 3,
        "train/loss": ["0.75"] * 3,
    }.items():
        column = [line.split("\t")[1] for line in (curves / f"{name}.tsv").read_text().splitlines()]
        assert column == [Path(name).name, *values]
