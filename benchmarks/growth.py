"""The cost per clip as the number of clips grows: ``python -m benchmarks.growth``.

Runs download, extract, captions and evaluate, each as the process that DVC would start, on demo
worlds of different numbers of small clips (3 s, 32 pixels, one captioned image per clip; evaluate
with untrained networks). Times and file sizes are per clip; memory is the stage's peak, of its main
process and of its largest worker. More workers do not shorten the CPU time of the main process.
``--work`` keeps the clips between runs, so that download resumes with them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
import yaml

from benchmarks.measuring import ROOT, describe_machine, say
from trimodal.core.arguments import Distinct, positive
from trimodal.core.config import load_section
from trimodal.core.text import read_vocabulary
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import WindowConfig
from trimodal.models.checkpoint import Checkpoint, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig

SMALL: dict[str, dict[str, Any]] = {
    "demo": {
        "clip_seconds": 3.0, "images_per_clip": 1, "frame_px": 32, "fps": 1, "audio_rate_hz": 8000,
    },
    "extract": {"frame_px": 32, "clips_per_shard": 500},
    "mel": {"sample_rate_hz": 8000, "n_fft": 512, "window_samples": 320, "hop_samples": 160,
            "mels": 16},
    "captions": {"image_px": 32, "images_per_shard": 5000},
    "augment": {"crop_px": 32},
    "model": {"width": 4},
    "leaks": {"test_in_training": "keep"},  # images this small are often identical
    "evaluate": {"curve_steps": 4, "min_effective_rank": 1.0, "max_mean_cosine": 1.0},
}  # fmt: skip
FILES = {
    "download": "data/clips/manifest.parquet",
    "extract": "data/av/index.parquet",
    "captions": "data/captions/captions.parquet",
    "evaluate": "data/evaluation/msrvtt/ranks.parquet",
}
POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a stage: wall seconds, CPU seconds of its main process, peak bytes of it and of its
    largest worker, and the size of its output table.
    """

    wall_s: float
    main_cpu_s: float
    main_bytes: int
    worker_bytes: int
    table_bytes: int


def main() -> None:
    """Runs every size and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--clips", type=positive, nargs="+", action=Distinct, default=[1000, 10_000]
    )
    parser.add_argument(
        "--stages", nargs="+", action=Distinct, choices=list(FILES), default=list(FILES)
    )
    parser.add_argument(
        "--work", type=Path, help="a folder that is kept (default: a temporary one)"
    )
    args = parser.parse_args()
    say(f"{describe_machine()}\n")
    say(
        "| stage | clips | ms per clip | of it CPU ms of the main process | "
        "peak of the main process, MB | its growth from the smallest run, bytes per clip | "
        "largest worker, MB | table, bytes per clip |"
    )
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    first: dict[str, tuple[int, Cost]] = {}
    for clips in args.clips:
        with folder_for(args.work, clips) as folder:
            write_params(folder, clips)
            for stage in args.stages:
                if stage == "evaluate":
                    write_model(folder)
                cost = stage_cost(stage, folder)
                fewest, smallest = first.setdefault(stage, (clips, cost))
                growth = (cost.main_bytes - smallest.main_bytes) / max(1, clips - fewest)
                say(
                    f"| {stage} | {clips:,} | {1000 * cost.wall_s / clips:.2f} | "
                    f"{1000 * cost.main_cpu_s / clips:.2f} | "
                    f"{cost.main_bytes / 1e6:.0f} | "
                    f"{f'{growth:,.0f}' if clips > fewest else '-'} | "
                    f"{cost.worker_bytes / 1e6:.0f} | {cost.table_bytes / clips:.0f} |"
                )


@contextmanager
def folder_for(work: Path | None, clips: int) -> Iterator[Path]:
    """The working folder for a world of ``clips`` clips."""
    if work is None:
        with TemporaryDirectory(prefix="growth-") as name:
            yield Path(name)
        return
    folder = work.resolve() / str(clips)
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def write_params(folder: Path, clips: int) -> None:
    """The demo's params with the small sizes of :data:`SMALL`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    params["demo"]["clips"] = clips
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def write_model(folder: Path) -> None:
    """A checkpoint of untrained networks."""
    params = folder / "params.yaml"
    vocabulary = read_vocabulary(folder / "data/captions/vocabulary.parquet")
    model, mel = load_section(params, "model", ModelConfig), load_section(params, "mel", MelConfig)
    torch.manual_seed(1)
    network = TrimodalNet(model, torch.from_numpy(vocabulary.vectors.copy()))
    facts = Checkpoint(
        model=model, loss=asdict(load_section(params, "loss", LossConfig)), mel=mel,
        window=load_section(params, "window", WindowConfig),
        augment=load_section(params, "augment", AugmentConfig),
        frame_px=SMALL["extract"]["frame_px"], text_input=vocabulary.fingerprint, towers={},
        front_end=mel.front_end_fingerprint(), data={}, code="", epoch=1, validation_loss=1.0,
    )  # fmt: skip
    save_checkpoint(folder / "models/trimodal", network.state_dict(), facts, vocabulary)


def stage_cost(stage: str, folder: Path) -> Cost:
    """Runs a stage with dvc.yaml's command; raises RuntimeError if it fails."""
    spec = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    command = spec.get("do", spec)["cmd"].replace("${key}", "msrvtt").split()
    assert command[0] == "python"  # noqa: S101
    if stage != "download":  # which resumes with the clips of an earlier run
        for path in (folder / FILES[stage]).parent.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    began = time.perf_counter()
    process = psutil.Popen(
        [sys.executable, *command[1:]], cwd=folder, env=environment(), stdout=subprocess.DEVNULL
    )
    peaks: dict[int, int] = {}
    main_cpu_s = 0.0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            main_cpu_s = sum(process.cpu_times()[:2])
        for running in (process, *_children(process)):
            _record_peak(running, peaks)
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{stage}: exit code {process.returncode}")
    main_bytes = peaks.pop(process.pid)
    return Cost(
        wall_s=time.perf_counter() - began,
        main_cpu_s=main_cpu_s,
        main_bytes=main_bytes,
        worker_bytes=max(peaks.values(), default=0),
        table_bytes=(folder / FILES[stage]).stat().st_size,
    )


def environment() -> Mapping[str, str]:
    """The environment of a stage: it imports this checkout's code in any working directory."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _record_peak(process: psutil.Process, peaks: dict[int, int]) -> None:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)


if __name__ == "__main__":
    main()
