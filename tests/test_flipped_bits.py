"""One flipped bit in any file that training or evaluation reads, at an unchanged size and time, is
refused with the file's name and what to do.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest
from configs import MACHINE
from evaluation_fixtures import SET
from evaluation_fixtures import config as evaluation
from model_fixtures import MODEL, make_tool
from report_fixtures import make_evaluated
from trainer_fixtures import CONFIG, LOSS, network
from training_fixtures import TinyData

from trimodal.core.errors import UserError
from trimodal.core.files import read_table
from trimodal.core.records import DataError
from trimodal.evaluation import text_video as text_video_module
from trimodal.evaluation.evaluate import evaluate
from trimodal.evaluation.task import Inputs
from trimodal.models.checkpoint import read_checkpoint
from trimodal.report.evaluated import read_test_set
from trimodal.search.api import Trimodal
from trimodal.training import train as train_module
from trimodal.training.caption_inputs import check_token_ids
from trimodal.training.distributed import SINGLE_PROCESS
from trimodal.training.leaks import LeaksConfig
from trimodal.training.resume import ResumeError, Run, RunIdentity, load_run, save_run
from trimodal.training.train import train
from trimodal.training.trainer import Trainer

LEAKS = LeaksConfig(test_in_training="fail")
IDENTITY = RunIdentity(params="p", data="d", code="c")
FLIPS = pytest.mark.parametrize("flips", [5, pytest.param(200, marks=pytest.mark.nightly)])
INPUTS = {
    "train": (
        "av/index.parquet", "av/train-000000.tar", "av/val-000000.tar", "images/index.parquet",
        "images/train-000000.tar", "captions/captions.parquet", "captions/token_ids.npy",
        "captions/vocabulary.parquet",
    ),
    "evaluate": (
        "av/index.parquet", "av/test-000000.tar", "model/vocabulary.parquet",
        "model/model.safetensors", "model/config.json",
    ),
}  # fmt: skip


class NotRefused(BaseException):
    """The stage has read all its inputs."""


def reached(*_: Any, **__: Any) -> NoReturn:
    raise NotRefused


@pytest.fixture
def folder(tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stages before training leave, a model and a test set, in one folder."""
    for name, source in {
        "av": tiny_data.av_dir, "captions": tiny_data.captions_dir, "images": tiny_data.images_dir
    }.items():  # fmt: skip
        shutil.copytree(source, tmp_path / name)
    rows = ["key,vid_key,video_id,sentence", "ret0,msr9,video9,a dog", "ret1,msr10,video10,a bird"]
    (tmp_path / "test.csv").write_text("\n".join(rows))
    make_tool(tiny_data, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_module, "Trainer", reached)
    monkeypatch.setattr(text_video_module, "embed_test_set", reached)
    return tmp_path


def run_train(folder: Path, data: TinyData) -> None:
    train(
        folder / "av", folder / "captions", folder / "images", folder / "m.safetensors",
        folder / "log", folder / "run.safetensors", config=CONFIG, loss=LOSS, model=MODEL,
        front_end=data.front_end, augment=data.augment, leaks=LEAKS, machine=MACHINE,
    )  # fmt: skip


def run_evaluate(folder: Path, _data: TinyData) -> None:
    inputs = Inputs(
        model=folder / "model", av=folder / "av", captions=folder / "captions",
        images=folder / "images", world=folder / "no world",
    )  # fmt: skip
    evaluate(SET, inputs, folder / "out", leaks=LEAKS, machine=MACHINE, config=evaluation())


STAGES: dict[str, Callable[[Path, TinyData], None]] = {
    "train": run_train,
    "evaluate": run_evaluate,
}


def refusal(read: Callable[[], None]) -> str:
    """The message of the error; empty if there is none."""
    try:
        read()
    except UserError as error:
        return str(error)
    except NotRefused:
        return ""
    return ""


def flipped(path: Path, count: int) -> Iterator[str]:
    """Flips bits of a file drawn at random, one at a time, and puts each back."""
    content, state = path.read_bytes(), path.stat()
    bits = np.arange(8 * len(content))
    if path.suffix == ".parquet":  # without the digest's key, read_table does not look for a digest
        key = content.rfind(b"sha256")
        bits = np.delete(bits, slice(8 * (key - 1), 8 * (key + 6)))
    for bit in np.random.default_rng(len(content)).choice(bits, count, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        yield f"bit {bit} of {path}"
    path.write_bytes(content)


@FLIPS
@pytest.mark.parametrize("stage", STAGES)
def test_every_flip_is_refused(stage: str, flips: int, folder: Path, tiny_data: TinyData) -> None:
    run = STAGES[stage]
    with pytest.raises(NotRefused):
        run(folder, tiny_data)
    for name in INPUTS[stage]:
        for where in flipped(folder / name, flips):
            message = refusal(lambda: run(folder, tiny_data))
            assert Path(name).name in message, where
            assert "delete" in message, (where, message)


@FLIPS
def test_results_are_refused_by_the_report(flips: int, tiny_data: TinyData, tmp_path: Path) -> None:
    evaluated = make_evaluated(tiny_data, tmp_path)
    paths = [evaluated.folder / f"{name}.parquet" for name in ("embeddings", "ranks")]
    read_test_set(evaluated.folder)
    for path in paths:
        for where in flipped(path, flips):
            with pytest.raises(DataError, match=path.name):
                pytest.fail(f"{where}: {read_test_set(evaluated.folder)}")


def test_search_and_export_load_no_damaged_model(folder: Path) -> None:
    """Both load it as Trimodal.from_pretrained does."""
    model = folder / "model"
    Trimodal.from_pretrained(model, device="cpu")
    for damaged in sorted(model.iterdir()):
        for _ in flipped(damaged, 2):
            with pytest.raises(DataError, match=rf"{damaged.name}\W.*delete"):
                Trimodal.from_pretrained(model, device="cpu")


@FLIPS
def test_a_damaged_run_is_not_resumed(flips: int, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    trainer = Trainer(network(), CONFIG, LOSS, SINGLE_PROCESS)
    save_run(path, Run(step=3), IDENTITY, trainer, SINGLE_PROCESS)
    assert load_run(path, IDENTITY, trainer).step == 3
    for where in flipped(path, 4 * flips):
        with pytest.raises(ResumeError, match=r"run\.safetensors: (damaged|not a tr|a run in for)"):
            pytest.fail(f"{where}: {load_run(path, IDENTITY, cast(Any, None))}")


def test_a_flipped_digit_in_a_header_is_refused(folder: Path, tmp_path: Path) -> None:
    """Still valid JSON with valid values."""
    path = tmp_path / "run.safetensors"
    trainer = Trainer(network(), CONFIG, LOSS, SINGLE_PROCESS)
    save_run(path, Run(step=3), IDENTITY, trainer, SINGLE_PROCESS)
    content = path.read_bytes()
    path.write_bytes(re.sub(rb'(step\\+": )3', rb"\g<1>2", content))
    assert path.read_bytes() != content
    with pytest.raises(ResumeError, match="damaged"):
        load_run(path, IDENTITY, trainer)
    described = (folder / "model/config.json").read_text()
    (folder / "model/config.json").write_text(described.replace('"epoch": 1', '"epoch": 3'))
    with pytest.raises(DataError, match=r"config\.json: damaged: .*delete"):
        read_checkpoint(folder / "model")


def test_word_ids_that_no_word_has_are_refused(folder: Path) -> None:
    words = read_table(folder / "captions/vocabulary.parquet").num_rows
    check_token_ids(folder / "captions", words)
    with pytest.raises(DataError, match=r"token_ids\.npy: ids from 0 to \d+, but .* words"):
        check_token_ids(folder / "captions", 5)


def test_ranks_of_a_machine_share_the_check(folder: Path, tiny_data: TinyData) -> None:
    """Each shard is hashed by one of two ranks, on each of two machines."""
    shards = sorted((folder / "av").glob("tra*.tar")) + sorted((folder / "images").glob("tra*.tar"))
    assert len(shards) >= 4
    for shard in shards:
        for _ in flipped(shard, 1):
            refused = []
            for rank in range(4):
                world = replace(
                    SINGLE_PROCESS, rank=rank, size=4, local_rank=rank % 2, local_size=2
                )
                message = refusal(lambda w=world: open_inputs(folder, tiny_data, w))
                if message:
                    refused.append(rank)
                    assert shard.name in message
            assert refused in ([0, 2], [1, 3])


def open_inputs(folder: Path, data: TinyData, world: Any) -> None:
    train_module.open_streams(
        folder / "av", folder / "captions", folder / "images", CONFIG, data.front_end, data.augment,
        MACHINE.shard_cache, world,
    )  # fmt: skip
