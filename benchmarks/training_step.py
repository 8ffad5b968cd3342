"""Training from the data loaders against training from memory:
``python -m benchmarks.training_step``.

Renders some clips and images of the demo world, extracts them with the params' sizes, and times
blocks of steps in turn: on batches from the data loaders, and on batches kept in memory; at demo
scale, and with the networks, mel and crops of paper scale in small batches. Before a block with the
loaders, as many steps as they prefetch are not counted; a block from memory starts when they are
idle.

``--device cuda`` (or ``cpu``) times the step alone instead, in images per second on synthetic
tensors, in bfloat16 and channels-last; with ``--compile`` through torch.compile.
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

from benchmarks.measuring import ROOT, SCALES, describe_machine, params_at, ratio, say
from trimodal.core.arguments import Distinct, positive
from trimodal.core.config import load_section
from trimodal.core.manifest import write_manifest
from trimodal.core.schemas import VECTOR_DIM, WORDS
from trimodal.data.readers import Pair
from trimodal.doctor import read_sections
from trimodal.download.demo.world import DemoConfig
from trimodal.download.demo_clips import render_world
from trimodal.estimate import Sections
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.devices import pick_device
from trimodal.models.networks import TrimodalNet
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.extract import extract
from trimodal.training.distributed import World
from trimodal.training.streams import Streams, open_streams, paired_batches
from trimodal.training.trainer import Trainer

KEPT_BATCHES = 4
IDLE_SHARE = 0.05  # of a core: loaders that use less have filled their queues

Batches = Iterator[tuple[Pair, Pair | None]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Per step of one block: wall seconds, and CPU seconds of this process and of the loaders."""

    wall_s: float
    own_cpu_s: float
    loaders_cpu_s: float


def main() -> None:
    """Runs the benchmark that the arguments select and prints its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--scales", nargs="+", action=Distinct, choices=SCALES, default=["demo", "paper"]
    )
    parser.add_argument("--paper-batch", type=positive, default=16)
    parser.add_argument("--workers", type=positive, default=1, help="of the loader of each stream")
    parser.add_argument("--steps", type=positive, default=8, help="in a block")
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="time the step alone")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    say(f"{describe_machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    if args.device:
        say("| scale | batch size per stream | images/s | step ms |")
        say("| --- | ---: | ---: | ---: |")
    else:
        say("| scale | batch size per stream | source | step ms | times memory | loaders' CPU |")
        say("| --- | ---: | --- | ---: | ---: | ---: |")
    for scale in args.scales:
        with TemporaryDirectory(prefix="training-step-") as folder:
            sections = sections_of(scale, Path(folder), args.paper_batch, args.workers)
            if args.device:
                step_alone(scale, sections, args.device, args.steps, compiled=args.compile)
            else:
                against_memory(scale, sections, Path(folder), args.steps, args.rounds)


def sections_of(scale: str, folder: Path, paper_batch: int, workers: int) -> Sections:
    """The params of a scale (``demo`` or the name of an overlay), without pretrained weights;
    overlays with batches of ``paper_batch`` in one chunk.
    """
    sections = read_sections(params_at(scale, folder))
    batch = sections.train.batch_size if scale == "demo" else paper_batch
    model = replace(sections.model, image_weights="none", audio_weights="none")
    train = replace(sections.train, batch_size=batch, chunk_size=None)
    machine = replace(sections.machine, loader_workers=workers)
    return replace(sections, model=model, train=train, machine=machine)


def rendered_streams(sections: Sections, folder: Path) -> Streams:
    """The streams of a demo world with enough clips for a batch and a validation set, with images
    and audio rendered at the stored size and sample rate or above.
    """
    demo = load_section(ROOT / "params.yaml", "demo", DemoConfig)
    demo = replace(
        demo,
        clips=2 * sections.train.batch_size + 12,
        frame_px=max(demo.frame_px, sections.extract.frame_px),
        audio_rate_hz=sections.mel.sample_rate_hz,
    )
    world, manifest = folder / "world", folder / "manifest.parquet"
    machine = sections.machine
    write_manifest(manifest, render_world(demo, folder / "clips", world, machine, []))
    extract(manifest, folder / "av", sections.extract, sections.mel, machine)
    captions = replace(
        sections.captions,
        coco=str(world / "coco"),
        flickr30k=str(world / "flickr30k"),
        vectors=str(world / "word2vec.bin"),
    )
    prepare_captions(captions, folder / "captions", folder / "images", machine)
    return open_streams(
        folder / "av", folder / "captions", folder / "images",
        sections.train, front_end_of(sections), sections.augment, machine.shard_cache,
    )  # fmt: skip


def front_end_of(sections: Sections) -> AudioFrontEnd:
    """How these params turn audio into the audio network's input."""
    return AudioFrontEnd(mel=sections.mel, window=sections.window)


def new_trainer(sections: Sections, device: torch.device) -> Trainer:
    """A trainer of untrained networks; all word vectors are zero."""
    network = TrimodalNet(sections.model, torch.zeros(100_000, VECTOR_DIM))
    return Trainer(network, sections.train, sections.loss, World(device=device))


def against_memory(scale: str, sections: Sections, folder: Path, steps: int, rounds: int) -> None:
    """Times steps from the loaders and from memory in turn and prints a line for each."""
    trainer = new_trainer(sections, pick_device(sections.machine.device))
    loader_workers = sections.machine.loader_workers
    loaded, _ = paired_batches(
        rendered_streams(sections, folder), sections.train, loader_workers=loader_workers
    )
    kept = cycle(list(islice(loaded, KEPT_BATCHES)))
    prefetched = 2 * max(1, loader_workers)
    blocks: dict[str, list[Block]] = {"memory": [], "loaders": []}
    for turn in range(rounds + 1):
        for source in sorted(blocks, reverse=turn % 2 == 0):
            wait_for_loaders()
            batches = kept if source == "memory" else loaded
            for pair in islice(batches, 1 if source == "memory" else prefetched + 1):
                trainer.step(*pair)
            block = timed(trainer, batches, steps)
            if turn:
                blocks[source].append(block)
    memory = tuple(block.wall_s for block in blocks["memory"])
    for source, of_source in blocks.items():
        walls = tuple(block.wall_s for block in of_source)
        share = statistics.median(
            block.loaders_cpu_s / (block.loaders_cpu_s + block.own_cpu_s) for block in of_source
        )
        say(
            f"| {scale} | {sections.train.batch_size} | {source} | "
            f"{1000 * statistics.median(walls):.0f} | {ratio(walls, memory):.3f} | "
            f"{1000 * statistics.median(block.loaders_cpu_s for block in of_source):.0f} ms "
            f"per step, {100 * share:.1f} % |"
        )


def timed(trainer: Trainer, batches: Batches, steps: int) -> Block:
    """The cost of a step, including the wait for its batch."""
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
    """CPU seconds so far of the running child processes."""
    used = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(times.user + times.system for times in used))


def wait_for_loaders() -> None:
    """Returns when the loaders are idle."""
    used, pause_s = -1.0, 0.5
    while (now := loaders_cpu_seconds()) - used > IDLE_SHARE * pause_s:
        used = now
        time.sleep(pause_s)


def step_alone(
    scale: str, sections: Sections, device_name: str, steps: int, *, compiled: bool
) -> None:
    """Times the joint step on tensors on the device and prints a line."""
    half = replace(sections.train, precision="bfloat16")
    device = torch.device(device_name)
    trainer = new_trainer(replace(sections, train=half), device)
    if compiled:
        trainer.network.image.compile()
        trainer.network.audio.compile()
        trainer.network.text.compile()
    rows, crop_px, front_end = half.batch_size, sections.augment.crop_px, front_end_of(sections)
    pixels = torch.randint(0, 256, (rows, 3, crop_px, crop_px), dtype=torch.uint8, device=device)
    windows = torch.randn(rows, 1, sections.mel.mels, front_end.columns, device=device)
    words = torch.randint(0, 100, (rows, WORDS), device=device)
    batches = cycle([((pixels, windows), (pixels, words))])
    timed(trainer, batches, 3)  # the first steps choose algorithms and compile
    step_s = timed(trainer, batches, steps).wall_s
    say(f"| {scale} | {rows} | {2 * rows / step_s:,.0f} | {1000 * step_s:.1f} |")


if __name__ == "__main__":
    main()
