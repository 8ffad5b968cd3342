"""A killed training run resumes exactly; a run with other params, data or code does not."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import MACHINE, config_for_tests
from data_fixtures import contents
from model_fixtures import MODEL
from safetensors import safe_open
from safetensors.torch import save_file
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.losses.config import LossConfig
from trimodal.models.config import ModelConfig
from trimodal.training import train as module
from trimodal.training.config import TrainConfig
from trimodal.training.leaks import LeaksConfig
from trimodal.training.train import train
from trimodal.training.trainer import Trainer

CONFIG = config_for_tests(
    TrainConfig, batch_size=3, epochs=2, steps_per_epoch=3, learning_rate=1e-3, weight_decay=1e-5,
    rate_step_epochs=1, image_rate_factor=0.5, text_rate_factor=2.0,
)  # fmt: skip
EVERY_SECOND = replace(MACHINE, checkpoint_every_steps=2)
STEPS = 6
LOSS = VARIABLE_MARGIN
# Drops whole blocks at random while it trains: its result depends on PyTorch's random state.
RANDOM_MODEL = replace(MODEL, dropout=0.5)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it. (tests/test_kills.py sends real ones.)"""


@dataclass
class Killer:
    """Counts the training steps and ends the run before one of them."""

    before_step: int = -1
    steps: int = 0


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    killer, step = Killer(), Trainer.step

    def counted(self: Trainer, *batches: Any) -> Any:
        if killer.steps == killer.before_step:
            raise Killed
        killer.steps += 1
        return step(self, *batches)

    monkeypatch.setattr(Trainer, "step", counted)
    return killer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing; PyTorch's seed is another one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(99)


def run(data: TinyData, folder: Path, config: TrainConfig = CONFIG, **others: Any) -> None:
    sections = {
        "loss": LOSS,
        "model": MODEL,
        "front_end": data.front_end,
        "augment": data.augment,
        "machine": EVERY_SECOND,
        "leaks": LeaksConfig(test_in_training="fail"),
    } | others
    train(
        data.av_dir, data.captions_dir, data.images_dir, folder / "model.safetensors",
        folder / "log", folder / "run.safetensors", config=config, **sections,
    )  # fmt: skip


def results(folder: Path) -> dict[str, bytes]:
    """Checkpoint and curves, without the run itself."""
    return {k: v for k, v in contents(folder).items() if k != "run.safetensors"}


def killed_and_resumed(
    data: TinyData, folder: Path, killer: Killer, step: int, config: TrainConfig, **others: Any
) -> int:
    """Kills a run before a step and resumes it; returns the number of steps taken twice."""
    killer.before_step, killer.steps = step, 0
    with pytest.raises(Killed):
        run(data, folder, config, **others)
    torch.manual_seed(7)  # another process
    killer.before_step = -1
    run(data, folder, config, **others)
    return killer.steps - STEPS


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        run(tiny_data, folder := tmp_path_factory.mktemp("uninterrupted"))
    return contents(folder)


@pytest.mark.parametrize(
    "loss",
    [replace(LOSS, kind="info_nce"), replace(LOSS, final_variable_margin=0.1)],
    ids=["logit scale", "margin"],
)
def test_the_state_of_the_loss_is_restored(
    loss: LossConfig, tiny_data: TinyData, tmp_path: Path, killer: Killer
) -> None:
    run(tiny_data, tmp_path / "uninterrupted", loss=loss)
    killed_and_resumed(tiny_data, tmp_path / "run", killer, 5, CONFIG, loss=loss)
    assert results(tmp_path / "run") == results(tmp_path / "uninterrupted")


MAPS = Path("/proc/self/maps")


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux says what a process has mapped")
def test_a_resumed_run_does_not_hold_the_file_that_it_came_from(
    tiny_data: TinyData, tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a replaced file stays on disk, beside its successor and the one that is being saved."""
    held: list[bool] = []
    save = module.save_run

    def save_and_look(path: Path, *rest: Any) -> None:
        save(path, *rest)
        held.append(str(path) in MAPS.read_text())

    monkeypatch.setattr(module, "save_run", save_and_look)
    killed_and_resumed(tiny_data, tmp_path / "run", killer, 5, CONFIG)
    assert len(held) >= 3
    assert not any(held)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_run_killed_at_any_step_ends_in_the_same_bytes(
    step: int, tiny_data: TinyData, tmp_path: Path, killer: Killer, uninterrupted: dict[str, bytes]
) -> None:
    """Weights, metadata and curves; at most ``checkpoint_every_steps`` steps are taken twice."""
    repeated = killed_and_resumed(tiny_data, tmp_path / "run", killer, step, CONFIG)
    assert contents(tmp_path / "run") == uninterrupted
    assert repeated == step % EVERY_SECOND.checkpoint_every_steps
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("changes", "machine", "model"),
    [
        ({"update": "alternating"}, {}, MODEL),
        ({"update": "alternating", "alternating_momentum": "shared"}, {}, MODEL),
        ({"chunk_size": 2}, {}, MODEL),
        ({}, {"loader_workers": 1}, MODEL),
        ({}, {"checkpoint_every_steps": 3}, MODEL),
        ({"warmup_steps": 6}, {}, MODEL),
        ({"image_rate_factor": 0.05, "epochs": 1, "steps_per_epoch": STEPS}, {}, RANDOM_MODEL),
    ],
    ids=["alternating", "shared momentum", "chunks", "worker", "every third step", "warm-up",
         "random network"],
)  # fmt: skip
def test_runs_with_other_settings_resume_too(
    changes: dict[str, Any], machine: dict[str, Any], model: ModelConfig, tiny_data: TinyData,
    tmp_path: Path, killer: Killer,
) -> None:  # fmt: skip
    config = replace(CONFIG, **changes)
    others = {
        "model": model,
        "augment": replace(tiny_data.augment, crop_px=32),
        "machine": replace(EVERY_SECOND, **machine),
    }
    run(tiny_data, tmp_path / "uninterrupted", config, **others)
    killed_and_resumed(tiny_data, tmp_path / "run", killer, 5, config, **others)
    assert results(tmp_path / "run") == results(tmp_path / "uninterrupted")


def test_the_random_network_does_depend_on_the_random_state(
    tiny_data: TinyData, tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the test above would pass without restoring it."""
    config = replace(CONFIG, epochs=1, steps_per_epoch=STEPS)
    others = {"model": RANDOM_MODEL, "augment": replace(tiny_data.augment, crop_px=32)}
    run(tiny_data, tmp_path / "uninterrupted", config, **others)
    monkeypatch.setattr(module.Run, "restore_random", lambda _run, _rank: None)
    killed_and_resumed(tiny_data, tmp_path / "run", killer, 5, config, **others)
    assert results(tmp_path / "run") != results(tmp_path / "uninterrupted")


def test_a_finished_run_is_not_trained_again(
    tiny_data: TinyData, tmp_path: Path, killer: Killer, uninterrupted: dict[str, bytes]
) -> None:
    run(tiny_data, tmp_path / "run")
    for path in results(tmp_path / "run"):
        (tmp_path / "run" / path).unlink()  # as DVC does before it runs a stage
    killer.before_step, killer.steps = 0, 0
    run(tiny_data, tmp_path / "run")
    assert contents(tmp_path / "run") == uninterrupted


def identity_in(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        identity: dict[str, str] = json.loads(json.loads(file.metadata()["run"])["header"])[
            "identity"
        ]
    return identity


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("params", {"config": replace(CONFIG, learning_rate=2e-3)}),
        ("params", {"loss": replace(LOSS, margin_mode="fixed")}),
        ("params", {"model": replace(MODEL, width=3)}),
        ("data", {}),
        ("code", {}),
    ],
)
def test_another_run_is_not_resumed_and_the_log_has_both_fingerprints(
    what: str, change: dict[str, Any], tiny_data: TinyData, tmp_path: Path, killer: Killer,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    killer.before_step = 4
    with pytest.raises(Killed):
        run(tiny_data, tmp_path / "run")
    if what == "data":
        monkeypatch.setattr(module, "file_fingerprint", lambda path: f"another {path.name}")
    if what == "code":
        monkeypatch.setattr(module, "code_fingerprint", lambda *_: "another code")
    before = identity_in(tmp_path / "run" / "run.safetensors")
    killer.before_step, killer.steps = -1, 0
    caplog.set_level("INFO", "trimodal")
    run(tiny_data, tmp_path / "run", **change)
    after = identity_in(tmp_path / "run" / "run.safetensors")
    assert {key for key in before if before[key] != after[key]} == {what}
    (message,) = [text for text in caplog.messages if "starting a new run" in text]
    assert f"a run with other {what}: fingerprint {before[what]}, not {after[what]}" in message
    assert killer.steps == STEPS


@pytest.mark.parametrize("change", [{"device": "auto"}, {"checkpoint_every_steps": 5}])
def test_settings_without_an_effect_on_the_result_may_change(
    change: dict[str, Any], tiny_data: TinyData, tmp_path: Path, killer: Killer,
    uninterrupted: dict[str, bytes],
) -> None:  # fmt: skip
    killer.before_step = 4
    with pytest.raises(Killed):
        run(tiny_data, tmp_path / "run")
    killer.before_step, killer.steps = -1, 0
    run(tiny_data, tmp_path / "run", machine=replace(EVERY_SECOND, **change))
    assert killer.steps == STEPS - 4
    assert contents(tmp_path / "run") == uninterrupted


def not_a_run(path: Path) -> None:
    path.write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")


def half_a_run(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def a_run_in_another_format(path: Path) -> None:
    header = json.dumps({"format": 99})
    save_file({"a": torch.zeros(1)}, path, {"run": json.dumps({"digest": "", "header": header})})


@pytest.mark.parametrize("spoil", [not_a_run, half_a_run, a_run_in_another_format])
def test_a_file_that_is_not_a_run_is_not_resumed(
    spoil: Any, tiny_data: TinyData, tmp_path: Path, killer: Killer,
    uninterrupted: dict[str, bytes], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    killer.before_step = 4
    with pytest.raises(Killed):
        run(tiny_data, tmp_path / "run")
    spoil(tmp_path / "run" / "run.safetensors")
    killer.before_step = -1
    caplog.set_level("INFO", "trimodal")
    run(tiny_data, tmp_path / "run")
    assert any(
        "run.safetensors: " in text and "starting a new run" in text for text in caplog.messages
    )
    assert contents(tmp_path / "run") == uninterrupted


def test_a_stream_resumes_in_its_order(tiny_data: TinyData, tmp_path: Path, killer: Killer) -> None:
    """Several frames of each clip; another number of loaders is another order, so a new run."""
    config = replace(CONFIG, reader="stream", shuffle_shards=1, frames_per_clip=3)
    run(tiny_data, tmp_path / "whole", config)
    taken = killed_and_resumed(tiny_data, tmp_path / "killed", killer, 5, config)
    assert taken == 1
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    killer.steps = 0
    two = replace(EVERY_SECOND, loader_workers=2)
    run(tiny_data, tmp_path / "killed", config, machine=two)
    assert killer.steps == STEPS
