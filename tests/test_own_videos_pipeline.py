"""A folder of one's own videos and a CLIP, without captions, through the whole DAG as users run it:
params/own-videos.yaml at a tiny scale; also thawed, warm-started, killed, and without weights.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from kills import leftovers, products
from repository import ROOT, Repository, make_repository
from safetensors.torch import load_file
from tower_fixtures import write_clip

from trimodal.media.container import encode_video
from trimodal.models.checkpoint import WEIGHTS
from trimodal.overlay import apply_overlay
from trimodal.search.api import Trimodal

pytest.importorskip("open_clip", reason="an optional extra")
pytestmark = pytest.mark.nightly

VIDEOS = 16
MODEL = Path("models/trimodal")
TINY: dict[str, dict[str, Any]] = {
    "download": {"vggsound_media": "../videos"},
    "extract": {"frame_px": 40, "clips_per_shard": 4},
    "augment": {"crop_px": 32},
    "model": {
        "image_backbone": "open_clip:../clip", "text_network": "open_clip:../clip",
        "embedding_dim": 24, "width": 2,
    },
    "train": {"batch_size": 4, "epochs": 2},
    "machine": {"workers": 1, "loader_workers": 0, "checkpoint_every_steps": 2},
}  # fmt: skip
# A stage that SIGKILL ends as it begins a call of a function for the n-th time.
KILLED = """
import os, runpy, signal, sys
from importlib import import_module
stage, name, calls, *sys.argv[1:] = sys.argv[1:]
module, _, function = name.rpartition(":")
place = import_module(module)
for part in function.split(".")[:-1]:
    place = getattr(place, part)
last = function.split(".")[-1]
called, left = getattr(place, last), [int(calls)]
def counted(*args, **kwargs):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return called(*args, **kwargs)
setattr(place, last, counted)
runpy.run_module(stage, run_name="__main__")
"""


def write_video(path: Path, number: int) -> None:
    """Four seconds in a colour and with a tone of its own."""
    rng = np.random.default_rng(number)
    frames = [rng.integers(0, 255, (1, 1, 3), np.uint8).repeat(48, 0).repeat(48, 1)] * 16
    tone = np.sin(np.arange(4 * 16_000) * 0.05 * (number + 1)).astype(np.float32) / 2
    encode_video(path, frames, fps=4, audio=tone, audio_rate_hz=16_000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos and a CLIP; repositories lie beside them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "videos").mkdir()
    for number in range(VIDEOS):
        write_video(folder / "videos" / f"clip {number}.mp4", number)
    write_clip(folder / "clip")
    return folder


def repository_with_overlay(folder: Path, temporary: Path | None = None) -> Repository:
    repository = make_repository(folder, {}, temporary or Path(gettempdir()))
    apply_overlay(folder / "params.yaml", ROOT / "params" / "own-videos.yaml")
    set_params(repository, TINY)
    repository.commit("own videos")
    return repository


def set_params(repository: Repository, changes: Mapping[str, Mapping[str, Any]]) -> None:
    path = repository.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        assert values.keys() <= params[section].keys()
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def reproduced(place: Path) -> Repository:
    """Reproduced without a disturbance, and not changed by any test."""
    repository = repository_with_overlay(place / "quiet")
    repository.run("dvc", "repro")
    return repository


@pytest.fixture
def copied(reproduced: Repository, tmp_path: Path) -> Repository:
    """A copy, with the same neighbours."""
    for name in ("videos", "clip"):
        (tmp_path / name).symlink_to(reproduced.folder.parent / name)
    folder = tmp_path / "repository"
    shutil.copytree(reproduced.folder, folder, symlinks=True)
    return Repository(folder, reproduced.temporary)


def weights_of(repository: Repository) -> dict[str, torch.Tensor]:
    return load_file(repository.folder / MODEL / WEIGHTS)


def changed_towers(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}


def test_it_runs_to_the_end_without_captions_or_test_sets(reproduced: Repository) -> None:
    folder = reproduced.folder
    assert "up to date" in reproduced.run("dvc", "repro")
    assert json.loads((folder / "metrics/retrieval.json").read_text()) == {}
    assert (folder / "metrics/report/report.md").exists()
    assert not list((folder / "data/images").glob("*.tar"))
    assert len(list((folder / "data/features/av").glob("*.npy"))) >= VIDEOS // 4
    curves = folder.glob("metrics/train/plots/metrics/train/*.tsv")
    assert {path.stem for path in curves} == {"image_audio", "loss"}
    clip = load_file(folder.parent / "clip/open_clip_model.safetensors")
    weights = weights_of(reproduced)
    for name in ("positional_embedding", "visual.conv1.weight"):
        tower = "image" if name.startswith("visual.") else "text"
        kept = weights[f"{tower}.backbone.network.{name.removeprefix('visual.')}"]
        assert torch.equal(kept, clip[name]), name


def test_its_model_searches_the_videos_in_clips_space(
    reproduced: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's folder is enough: without CLIP's."""
    import open_clip

    place = reproduced.folder.parent
    clip = open_clip.create_model(f"local-dir:{place / 'clip'}")
    clip.eval()
    sentences = ["a chainsaw", "A helicopter over the sea!"]
    with torch.inference_mode():
        ids = open_clip.tokenize(sentences, context_length=20)
        expected = clip.encode_text(ids, normalize=True).numpy()
    shutil.copytree(reproduced.folder / MODEL, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    model = Trimodal.from_pretrained(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(model.embed_text(sentences), expected, atol=1e-5)
    report = model.index(place / "videos", tmp_path / "index", workers=1)
    assert (report.added, report.problems) == (VIDEOS, {})
    hits = model.search("a chainsaw", top=VIDEOS, store=tmp_path / "index", audio_weight=0.0)
    assert {hit.path for hit in hits} == {f"clip {n}.mp4" for n in range(VIDEOS)}
    sound = place / "videos" / "clip 5.mp4"
    best = model.search(audio=sound, top=3, store=tmp_path / "index")[0]
    assert (best.path, round(best.score, 3)) == ("clip 5.mp4", 1.0)


def test_the_commands_search_too(reproduced: Repository, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "index"))
    reproduced.run("trimodal", "index", "../videos", *store)
    assert ".mp4" in reproduced.run("trimodal", "search", "--text", "a chainsaw", *store)
    said = reproduced.run("trimodal", "search", "--audio", "../videos/clip 5.mp4", *store)
    assert "clip 5.mp4" in said.splitlines()[0]


@pytest.mark.parametrize(
    ("tower", "said"),
    [
        ("open_clip:../moved", "model.image_backbone: neither a folder nor MODEL/TAG of OpenCLIP"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "model.image_weights: the weights of 'ViT-B-32/"),
    ],
)
def test_towers_that_are_not_there_end_it_before_training(
    tower: str, said: str, copied: Repository, tmp_path: Path
) -> None:
    set_params(copied, {"model": {"image_backbone": tower, "text_network": tower}})
    empty = ("env", "HF_HUB_OFFLINE=1", f"HF_HUB_CACHE={tmp_path / 'cache'}")
    lines = failed(copied, *empty, "dvc", "repro").splitlines()
    assert [line for line in lines if said in line]
    assert "ERROR: failed to reproduce 'features'" in " ".join(lines)
    assert "Traceback" not in " ".join(lines)
    assert (copied.folder / MODEL / WEIGHTS).exists()
    assert [line for line in failed(copied, *empty, "trimodal", "doctor").splitlines()
            if line.startswith("missing") and said in line]  # fmt: skip


def test_thawed_the_image_tower_learns_and_stays_a_model(copied: Repository) -> None:
    """No sentence is in the videos, so their tower stays as it is; no features are made again."""
    before = weights_of(copied)
    set_params(copied, {"train": {"freeze_epochs": 1, "select_by": "last"}})
    said = copied.run("dvc", "repro")
    assert "Stage 'features' didn't change, skipping" in said
    assert changed_towers(before, weights_of(copied)) == {"image", "audio"}
    model = Trimodal.from_pretrained(copied.folder / MODEL, device="cpu")
    assert model.embed_text(["a chainsaw"]).shape == (1, 24)


def test_warm_started_it_goes_on_from_the_first_model(copied: Repository) -> None:
    """With a rate of almost nothing it ends there; without CLIP's weights."""
    before = weights_of(copied)
    shutil.copytree(copied.folder / MODEL, copied.folder / "models/first")
    changes = {"model": {"init_from": "models/first"}, "train": {"learning_rate": 1e-12}}
    set_params(copied, changes)
    copied.run("dvc", "repro")
    after = weights_of(copied)
    assert changed_towers(before, after) == {"audio"}
    for name, tensor in before.items():
        if not name.rpartition(".")[2].startswith(("running_", "num_")):  # of batch norm
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-8, msg=name)


def test_killed_in_features_and_in_training_it_ends_in_the_same_bytes(
    reproduced: Repository, place: Path
) -> None:
    """From scratch: the files of features and the saved run from before each kill are used, and
    nothing else is left.
    """
    with TemporaryDirectory(prefix="own-") as temporary:
        repository = repository_with_overlay(place / "killed", Path(temporary))
        repository.run("dvc", "repro", "extract", "captions")
        kill(repository, "features", "trimodal.features.compute:_write", call=3)
        kept = {p: p.stat().st_mtime_ns for p in repository.folder.glob("data/features/av/*.npy")}
        assert len(kept) == 2
        repository.run("dvc", "repro", "features")
        assert {p: p.stat().st_mtime_ns for p in kept} == kept
        kill(repository, "train", "trimodal.training.trainer:Trainer.step", call=6)
        assert not (repository.folder / MODEL).exists()
        assert "resumes after step 4" in repository.run("dvc", "repro")
        assert leftovers(repository) == []
    expected, found = products(reproduced.folder), products(repository.folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_twice_from_scratch_it_leaves_the_same_bytes(reproduced: Repository, place: Path) -> None:
    repository = repository_with_overlay(place / "again")
    repository.run("dvc", "repro")
    assert products(repository.folder) == products(reproduced.folder)


def kill(repository: Repository, stage: str, function: str, *, call: int) -> None:
    """Runs the command of a stage as dvc.yaml has it, and kills it by SIGKILL in a call."""
    stages = yaml.safe_load((repository.folder / "dvc.yaml").read_text())["stages"]
    python, option, module, *arguments = stages[stage]["cmd"].split()
    assert (python, option) == ("python", "-m")
    command = [sys.executable, "-c", KILLED, module, function, str(call), *arguments]
    done = subprocess.run(
        command, cwd=repository.folder, env=repository.environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def failed(repository: Repository, *command: str) -> str:
    """Runs a command, which must fail, and returns what it printed."""
    done = subprocess.run(
        command, cwd=repository.folder, env=repository.environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr
