"""Training steps on a GPU against synthetic input: ``bash benchmarks/gpu.sh``.

Times the joint step of a scale's networks (without pretrained weights) on random tensors: in
float32, in bfloat16, with channels-last, through torch.compile, with batches copied from pinned
memory as the loaders hand them over, and in DistributedDataParallel with one process; and how many
samples one CPU core can prepare, hence how many cores a GPU keeps busy. With ``--write`` the table
replaces the one in docs/benchmarks.md. Every candidate is timed in turn, in several rounds.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import simplejpeg
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trimodal.core.arguments import positive
from trimodal.core.config import load_section
from trimodal.core.console import show
from trimodal.core.files import write_text
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.data.augment import VIEW_FIELDS, random_fields, training_views
from trimodal.data.readers import Pair
from trimodal.losses.config import LossConfig
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.config import ModelConfig
from trimodal.models.devices import Compile, Precision
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig, decode_jpeg
from trimodal.overlay import apply_overlay
from trimodal.training import trainer as trainer_module
from trimodal.training.config import TrainConfig
from trimodal.training.distributed import World
from trimodal.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- gpu table: bash benchmarks/gpu.sh -->", "<!-- end of gpu table -->"
WORD_VECTORS = 10_000
JPEGS = 64  # decoded and augmented by one core


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sections of the params that a step depends on."""

    model: ModelConfig
    loss: LossConfig
    train: TrainConfig
    augment: AugmentConfig
    front_end: AudioFrontEnd


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """How the step is done. ``precision`` and ``compile`` are those of section ``train``."""

    name: str
    precision: Precision = "bfloat16"
    channels_last: bool = True
    compile: Compile = "off"
    pinned: bool = False
    data_parallel: bool = False


CANDIDATES = (
    Candidate(name="float32", precision="float32", channels_last=False),
    Candidate(name="float32, channels-last", precision="float32"),
    Candidate(name="bfloat16", channels_last=False),
    Candidate(name="bfloat16, channels-last (the pipeline's)"),
    Candidate(name="... compiled", compile="on"),
    Candidate(name="... batches copied from pinned memory", pinned=True),
    Candidate(name="... in DistributedDataParallel, one process", data_parallel=True),
)


class OneProcess(World):
    """A world of one process whose networks are wrapped all the same."""

    def data_parallel(self, network: nn.Module) -> nn.Module:
        """See :class:`~trimodal.training.distributed.World`."""
        return DistributedDataParallel(network, forward_sync_buffers=False)


def main() -> None:
    """Measures all candidates and prints the table, or writes it to docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scale", default="paper", help="an overlay of params/, or demo")
    parser.add_argument("--batch-size", type=positive, default=512, help="of each stream")
    parser.add_argument("--steps", type=positive, default=10, help="in a round")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    args = parser.parse_args()
    device = torch.device(args.device)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; --device cpu tries the script")
    with TemporaryDirectory(prefix="gpu-") as folder:
        scale = read_scale(args.scale, args.batch_size, Path(folder))
    table = measure(args.scale, scale, device, args.steps, args.rounds)
    show(table)
    if args.write:
        write_into_page(table)


def read_scale(name: str, batch_size: int, folder: Path) -> Scale:
    """The params of a scale, without pretrained weights, in one chunk."""
    params = folder / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    if name != "demo":
        apply_overlay(params, ROOT / "params" / f"{name}.yaml")
    model = load_section(params, "model", ModelConfig)
    train = load_section(params, "train", TrainConfig)
    return Scale(
        model=replace(model, image_weights="none", audio_weights="none"),
        loss=load_section(params, "loss", LossConfig),
        train=replace(train, batch_size=batch_size, chunk_size=None),
        augment=load_section(params, "augment", AugmentConfig),
        front_end=AudioFrontEnd(
            mel=load_section(params, "mel", MelConfig),
            window=load_section(params, "window", WindowConfig),
        ),
    )


def measure(name: str, scale: Scale, device: torch.device, steps: int, rounds: int) -> str:
    """The Markdown table: images and audio windows a second, times the first candidate's."""
    rows = 2 * scale.train.batch_size
    lines = [
        f"{describe(device)}; networks of the {name} scale, {scale.train.batch_size} samples of "
        f"each stream, median of {rounds} rounds of {steps} steps.",
        "",
        "| step | images/s | times float32 | step ms | peak memory |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    first = 0.0
    fastest = 0.0
    for candidate in CANDIDATES:
        step_s, peak_bytes = timed(candidate, scale, device, steps, rounds)
        speed = rows / step_s
        first, fastest = first or speed, max(fastest, speed)
        lines.append(
            f"| {candidate.name} | {speed:,.0f} | {speed / first:.2f} | {1000 * step_s:.1f} | "
            f"{peak_bytes / 1e9:.1f} GB |"
        )
    per_core = images_per_core(scale)
    lines += [
        "",
        f"One CPU core decodes and augments {per_core:,.0f} stored images a second: the fastest "
        f"step needs {fastest / per_core:.1f} such cores to be fed.",
    ]
    return "\n".join(lines)


def describe(device: torch.device) -> str:
    """The device and PyTorch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, PyTorch {torch.__version__}, {os.cpu_count()} CPU cores"


def timed(
    candidate: Candidate, scale: Scale, device: torch.device, steps: int, rounds: int
) -> tuple[float, int]:
    """Median seconds of a step over the rounds, and the peak memory of the device in bytes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(1)
    network = TrimodalNet(scale.model, torch.zeros(WORD_VECTORS, VECTOR_DIM))
    config = replace(scale.train, precision=candidate.precision, compile=candidate.compile)
    with _layout(candidate), _world(candidate, device) as world:
        trainer = Trainer(network, config, scale.loss, world)
        batches = endless_batches(candidate, scale, device)
        run(trainer, batches, 4)  # these choose algorithms and compile
        seconds = [run(trainer, batches, steps) / steps for _ in range(rounds)]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return statistics.median(seconds), peak


def run(trainer: Trainer, batches: Iterator[tuple[Pair, Pair]], steps: int) -> float:
    """Seconds of so many steps, the last one's loss read."""
    began = time.perf_counter()
    for audio, text in islice(batches, steps):
        losses = trainer.step(audio, text)
    losses.image_audio.item()
    return time.perf_counter() - began


def endless_batches(
    candidate: Candidate, scale: Scale, device: torch.device
) -> Iterator[tuple[Pair, Pair]]:
    """The same random batch of both streams for ever, on the device or in pinned memory."""
    rows, side = scale.train.batch_size, scale.augment.crop_px
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    windows = torch.rand(
        rows, 1, scale.front_end.mel.mels, scale.front_end.columns, generator=generator
    )
    words = torch.randint(2, WORD_VECTORS, (rows, WORDS), generator=generator)
    if candidate.pinned:
        place = [t.pin_memory() if device.type == "cuda" else t for t in (pixels, windows, words)]
    else:
        place = [tensor.to(device) for tensor in (pixels, windows, words)]
    while True:
        yield (place[0], place[1]), (place[0], place[2])


@contextmanager
def _layout(candidate: Candidate) -> Iterator[None]:
    """Contiguous instead of the layout that the trainer would choose."""
    chosen = trainer_module.memory_layout
    if not candidate.channels_last:
        trainer_module.memory_layout = lambda *_: torch.contiguous_format
    try:
        yield
    finally:
        trainer_module.memory_layout = chosen


@contextmanager
def _world(candidate: Candidate, device: torch.device) -> Iterator[World]:
    if not candidate.data_parallel:
        yield World(device=device)
        return
    with TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/rendezvous", rank=0, world_size=1,
        )  # fmt: skip
        try:
            yield OneProcess(device=device)
        finally:
            dist.destroy_process_group()


def images_per_core(scale: Scale) -> float:
    """Stored images, somewhat larger than the crop, that one core decodes and augments a second."""
    rng = np.random.default_rng(3)
    side = round(scale.augment.crop_px * 256 / 224)
    coarse = rng.integers(0, 256, (JPEGS, side // 8 + 1, side // 8 + 1, 3), np.uint8)
    smooth = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)[:, :side, :side]
    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(image), 90) for image in smooth]
    fields = np.zeros(JPEGS, random_fields(*VIEW_FIELDS))
    for name in VIEW_FIELDS:
        fields[name] = rng.random(JPEGS)
    seconds: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(5):
        began = time.perf_counter()
        training_views([decode_jpeg(jpeg) for jpeg in jpegs], scale.augment, fields)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return JPEGS / statistics.median(seconds)


def write_into_page(table: str, page: Path = PAGE) -> None:
    """Replaces the table between its two marks in docs/benchmarks.md."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(page, f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


if __name__ == "__main__":
    main()
