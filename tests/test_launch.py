"""A stage on several devices: what it writes, a rank that is killed, and how it resumes."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from configs import MACHINE
from evaluation_fixtures import SET, text_video
from evaluation_fixtures import config as evaluation
from forked import Forked
from ranks import free_port, on_ranks
from test_resume import CONFIG, LOSS, MODEL, results
from torch.distributed.run import get_args_parser
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.task import Inputs
from trimodal.models.devices import DeviceError, count_devices, pick_device
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.leaks import LeaksConfig
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import ShuffledRounds
from trimodal.training.sampler import EndlessBatches
from trimodal.training.train import train

LEAKS = LeaksConfig(test_in_training="fail")
TWO = replace(CONFIG, batch_size=4, epochs=2)
TWO_DEVICES = replace(MACHINE, devices=2, checkpoint_every_steps=1)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


def run(world: World, data: TinyData, folder: Path, config: TrainConfig) -> dict[str, Any]:
    train(
        data.av_dir, data.captions_dir, data.images_dir, folder / "model",
        folder / "log", folder / "run.safetensors", config=config, loss=LOSS, model=MODEL,
        front_end=data.front_end, augment=data.augment, leaks=LEAKS, machine=TWO_DEVICES,
        world=world,
    )  # fmt: skip
    return {}


def stage_command(data: TinyData, folder: Path) -> list[str]:
    """The train stage with TWO's params, written beside its results."""
    params = {
        "train": asdict(TWO), "loss": asdict(LOSS), "model": asdict(MODEL),
        "mel": asdict(data.mel), "window": asdict(data.front_end.window),
        "augment": asdict(data.augment), "leaks": asdict(LEAKS), "machine": asdict(TWO_DEVICES),
        "features": {"views": 1, "seed": 1},
    }  # fmt: skip
    folder.mkdir()
    path = folder.parent / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return [
        sys.executable, "-m", "pipeline.train", "--params", str(path), "--av", str(data.av_dir),
        "--captions", str(data.captions_dir), "--images", str(data.images_dir),
        "--features", "none", "--model", str(folder / "model"), "--curves", str(folder / "log"),
        "--resume", str(folder / "run.safetensors"),
    ]  # fmt: skip


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def a_rank_of(process: "subprocess.Popen[str]", rank: int) -> psutil.Process:
    ranks = [
        child
        for child in psutil.Process(process.pid).children()
        if child.environ().get("RANK") == str(rank)
    ]
    return ranks[0]


def killed(data: TinyData, folder: Path) -> list[str]:
    """A run on two ranks of which one is killed after the first step; returns its command."""
    command = stage_command(data, folder)
    job = start(command, folder)
    while not (folder / "run.safetensors").exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    victim = a_rank_of(job, 1)
    victim.send_signal(signal.SIGKILL)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "train: process 2 of 2 died of signal 9 (Killed); the others were terminated" in errors
    assert not victim.is_running()
    return command


def assert_resumed(out: str) -> None:
    assert "resumes after step" in out
    assert out.count("train: 2 epochs on 2 x cpu") == 1  # one rank logs


def killed_and_resumed(data: TinyData, folder: Path) -> None:
    """A run on two ranks of which one is killed, and its resumption."""
    again = start(killed(data, folder), folder)
    out, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert_resumed(out)


@pytest.mark.nightly
def test_a_killed_rank_ends_the_job_with_a_message_and_the_job_resumes(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    """It resumes in forked ranks, in the environment that torchrun gives."""
    _, _, module, *arguments = killed(tiny_data, tmp_path / "run")
    port = str(free_port())
    job = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    ranks = [
        Forked(
            module,
            *arguments,
            cwd=tmp_path,
            env={**os.environ, **job, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    outputs = [rank.communicate(timeout=60) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    assert_resumed("".join(out for out, _ in outputs))
    assert (tmp_path / "run" / "model").exists()


@pytest.mark.nightly
def test_a_killed_job_ends_with_the_bytes_of_an_uninterrupted_one(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed" / "run", tmp_path / "whole" / "run"
    killed.parent.mkdir()
    whole.parent.mkdir()
    killed_and_resumed(tiny_data, killed)
    uninterrupted = start(stage_command(tiny_data, whole), whole)
    errors = uninterrupted.communicate(timeout=60)[1]
    assert uninterrupted.returncode == 0, errors
    assert results(killed) == results(whole)


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_torchrun_takes_the_commands_of_dvc_yaml(stage: str) -> None:
    """Its parser refuses an option that could be an abbreviation of one of its own."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    spec = stages[stage]
    python, _, *command = spec.get("do", spec)["cmd"].split()
    parsed = get_args_parser().parse_args(["--nnodes", "2", "-m", *command])
    assert python == "python"
    assert [parsed.training_script, *parsed.training_script_args] == command


@pytest.mark.nightly
def test_torchrun_on_two_machines_trains_as_two_devices_of_one_do(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two launchers on the loopback address stand for the machines (docs/scaling.md)."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as torchrun sets it for several processes
    one, two = tmp_path / "one", tmp_path / "two"
    alone = start(stage_command(tiny_data, one), one)
    errors = alone.communicate(timeout=60)[1]
    assert alone.returncode == 0, errors
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}",
    ]  # fmt: skip
    command = torchrun + stage_command(tiny_data, two)[1:]
    machines = [start(command, two) for _ in range(2)]
    for machine in machines:
        errors = machine.communicate(timeout=120)[1]
        assert machine.returncode == 0, errors
    assert results(two) == results(one)


def evaluated(world: World, data: TinyData, model: Path, out: Path) -> dict[str, Any]:
    queries = out.parent / "test.csv"
    rows = ["key,vid_key,video_id,sentence", "ret0,msr9,video9,a dog", "ret1,msr10,video10,a bird"]
    queries.write_text("\n".join(rows))
    inputs = Inputs(
        model=model, av=data.av_dir, captions=data.captions_dir, images=data.images_dir,
        world=out / "no world",
    )  # fmt: skip
    settings = evaluation(text_video(str(queries)), min_effective_rank=1.0, max_mean_cosine=1.0)
    evaluate(SET, inputs, out, leaks=LEAKS, machine=MACHINE, world=world, config=settings)
    return {}


def test_an_evaluation_on_ranks_writes_the_same_bytes(tiny_data: TinyData, tmp_path: Path) -> None:
    run(World(), tiny_data, tmp_path / "run", replace(CONFIG, epochs=1))
    model = tmp_path / "run" / "model"
    evaluated(World(), tiny_data, model, tmp_path / "alone")
    on_ranks(2, evaluated, tmp_path, tiny_data, model, tmp_path / "two")
    alone, two = results(tmp_path / "alone"), results(tmp_path / "two")
    assert len(alone) == 5
    assert two == alone


@pytest.mark.parametrize(("samples", "batch", "ranks"), [(100, 10, 3), (9, 32, 2), (100, 4, 4)])
def test_a_batch_that_cannot_be_split_is_refused(samples: int, batch: int, ranks: int) -> None:
    with pytest.raises(DataError, match=r"train\.batch_size"):
        ShuffledRounds(samples, batch, 1, RandomStream.CLIP_ORDER, world_size=ranks)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_parts_of_ranks_make_the_batches_of_one_process(ranks: int) -> None:
    def first_batches(**part: int) -> list[Any]:
        rounds = ShuffledRounds(40, 12, 1, RandomStream.CLIP_ORDER)
        batches = iter(EndlessBatches(rounds, first=2, **part))
        return [next(batches) for _ in range(7)]

    parts = [first_batches(rank=rank, world_size=ranks) for rank in range(ranks)]
    together = [[draw for part in step for draw in part] for step in zip(*parts, strict=True)]
    assert together == first_batches()


def test_devices_are_counted_where_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert count_devices("all", "auto") == 1
    assert count_devices(3, "cpu") == 3
    with pytest.raises(DeviceError, match="no GPU"):
        count_devices("all", "cuda")


def test_each_rank_has_a_gpu_of_its_own_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert count_devices("all", "auto") == 2
    assert [str(pick_device("auto", rank)) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    with pytest.raises(DeviceError, match="process 3 of this machine"):
        pick_device("auto", 2)
