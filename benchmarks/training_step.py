"""Training fed by the loaders against tensors in memory: ``python -m benchmarks.training_step``.

Renders a few clips and pictures of the demo world, extracts them with the params' sizes, and times
blocks of steps in turn: batches from the real loaders, and the same batches kept in memory. At the
demo's size, and with the paper's networks, mel and crops in small batches. A block of the loaders
begins after as many uncounted steps as they read ahead; a block of memory waits until they rest.

``--device cuda`` times the step alone instead, images a second on made-up tensors, in bfloat16 and
channels-last, with ``--compile`` through torch.compile; any device will do.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from benchmarks.measuring import ROOT, machine, params_at, ratio, say
from trimodal.core.config import load_section
from trimodal.core.manifest import write_manifest
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.doctor import read_sections
from trimodal.download.demo.world import DemoConfig
from trimodal.download.demo_clips import render_world
from trimodal.estimate import Sections
from trimodal.models.devices import pick_device
from trimodal.models.networks import TrimodalNet
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.extract import extract
from trimodal.training.datasets import Pair
from trimodal.training.distributed import Ranks
from trimodal.training.streams import Streams, open_streams, paired_batches
from trimodal.training.trainer import Trainer

KEPT_BATCHES = 4
RESTING_SHARE = 0.05  # of a core: loaders that use less have filled their queues

Batches = Iterator[tuple[Pair, Pair]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A step's seconds in one block, and the processor seconds of this process and the loaders."""

    wall_s: float
    own_cpu_s: float
    loaders_cpu_s: float


def main() -> None:
    """Measures what was asked for and prints its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--scales", nargs="+", default=["demo", "paper"])
    parser.add_argument("--paper-batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="of each stream's loader")
    parser.add_argument("--steps", type=int, default=8, help="of a block")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="time the step alone")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    say(f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if given.device:
        say("| scale | batch of each stream | images/s | step ms |")
        say("| --- | ---: | ---: | ---: |")
    else:
        say("| scale | batch of each stream | fed by | step ms | times memory | loaders' CPU |")
        say("| --- | ---: | --- | ---: | ---: | ---: |")
    for scale in given.scales:
        with TemporaryDirectory(prefix="training-step-") as folder:
            sections = sections_of(scale, Path(folder), given.paper_batch, given.workers)
            if given.device:
                alone(scale, sections, given.device, given.steps, compiled=given.compile)
            else:
                against_memory(scale, sections, Path(folder), given.steps, given.rounds)


def sections_of(scale: str, folder: Path, paper_batch: int, workers: int) -> Sections:
    """The params of a scale (``demo`` or an overlay's name), copied into ``folder``; overlays in
    whole batches of ``paper_batch`` and without downloaded weights.
    """
    sections = read_sections(params_at(scale, folder))
    batch = sections.train.batch_size if scale == "demo" else paper_batch
    model = replace(sections.model, image_weights="none", audio_weights="none")
    train = replace(sections.train, batch_size=batch, chunk_size=None, loader_workers=workers)
    return replace(sections, model=model, train=train)


def made_streams(sections: Sections, folder: Path) -> Streams:
    """Both streams of a demo world with enough clips for a batch and a validation set, its
    pictures as large and its sound as fine as they are stored.
    """
    demo = load_section(ROOT / "params.yaml", "demo", DemoConfig)
    demo = replace(
        demo,
        clips=2 * sections.train.batch_size + 12,
        frame_px=max(demo.frame_px, sections.extract.frame_px),
        audio_rate_hz=sections.mel.sample_rate_hz,
    )
    world, manifest = folder / "world", folder / "manifest.parquet"
    workers = sections.extract.workers
    write_manifest(manifest, render_world(demo, folder / "clips", world, workers))
    extract(manifest, folder / "av", sections.extract, sections.mel)
    captions = replace(
        sections.captions,
        coco=str(world / "coco"),
        flickr30k=str(world / "flickr30k"),
        vectors=str(world / "word2vec.bin"),
    )
    prepare_captions(captions, folder / "captions", folder / "images")
    return open_streams(
        folder / "av", folder / "captions", folder / "images",
        sections.train, sections.mel, sections.augment,
    )  # fmt: skip


def new_trainer(sections: Sections, device: torch.device) -> Trainer:
    """Untrained networks, and word vectors that are all zero."""
    network = TrimodalNet(sections.model, torch.zeros(100_000, VECTOR_DIM))
    return Trainer(network, sections.train, sections.loss, Ranks(device=device))


def against_memory(scale: str, sections: Sections, folder: Path, steps: int, rounds: int) -> None:
    """Times both feeds in turn and prints a line for each."""
    trainer = new_trainer(sections, pick_device(sections.train.device))
    loaded, _ = paired_batches(made_streams(sections, folder), sections.train)
    kept = cycle(list(islice(loaded, KEPT_BATCHES)))
    read_ahead = 2 * max(1, sections.train.loader_workers)
    blocks: dict[str, list[Block]] = {"memory": [], "loaders": []}
    for turn in range(rounds + 1):
        for feed in sorted(blocks, reverse=turn % 2 == 0):
            wait_for_loaders()
            batches = kept if feed == "memory" else loaded
            for pair in islice(batches, 1 if feed == "memory" else read_ahead + 1):
                trainer.step(*pair)
            block = timed(trainer, batches, steps)
            if turn:
                blocks[feed].append(block)
    memory = tuple(block.wall_s for block in blocks["memory"])
    for feed, found in blocks.items():
        walls = tuple(block.wall_s for block in found)
        share = statistics.median(
            block.loaders_cpu_s / (block.loaders_cpu_s + block.own_cpu_s) for block in found
        )
        say(
            f"| {scale} | {sections.train.batch_size} | {feed} | "
            f"{1000 * statistics.median(walls):.0f} | {ratio(walls, memory):.3f} | "
            f"{1000 * statistics.median(block.loaders_cpu_s for block in found):.0f} ms a step, "
            f"{100 * share:.1f} % |"
        )


def timed(trainer: Trainer, batches: Batches, steps: int) -> Block:
    """What a step takes, the wait for its batch included."""
    own, others, began = time.process_time(), loaders_cpu_seconds(), time.perf_counter()
    for pair in islice(batches, steps):
        losses = trainer.step(*pair)
    losses.image_audio.item()
    return Block(
        wall_s=(time.perf_counter() - began) / steps,
        own_cpu_s=(time.process_time() - own) / steps,
        loaders_cpu_s=(loaders_cpu_seconds() - others) / steps,
    )


def loaders_cpu_seconds() -> float:
    """Processor seconds so far of the living child processes."""
    used = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(times.user + times.system for times in used))


def wait_for_loaders() -> None:
    """Returns when the loaders rest."""
    used, pause_s = -1.0, 0.5
    while (now := loaders_cpu_seconds()) - used > RESTING_SHARE * pause_s:
        used = now
        time.sleep(pause_s)


def alone(scale: str, sections: Sections, device_name: str, steps: int, *, compiled: bool) -> None:
    """Times the joint step on tensors that are on the device and prints a line."""
    half = replace(sections.train, precision="bfloat16")
    device = torch.device(device_name)
    trainer = new_trainer(replace(sections, train=half), device)
    if compiled:
        trainer.network.image.compile()
        trainer.network.audio.compile()
        trainer.network.text.compile()
    rows, side, mel = half.batch_size, sections.augment.crop_px, sections.mel
    pixels = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, device=device)
    windows = torch.randn(rows, 1, mel.mels, mel.columns, device=device)
    words = torch.randint(0, 100, (rows, WORDS), device=device)
    batches = cycle([((pixels, windows), (pixels, words))])
    timed(trainer, batches, 3)  # the first steps choose algorithms and compile
    step_s = timed(trainer, batches, steps).wall_s
    say(f"| {scale} | {rows} | {2 * rows / step_s:,.0f} | {1000 * step_s:.1f} |")


if __name__ == "__main__":
    main()
