"""The captions stage at paper scale: ``python -m benchmarks.captions_stage``.

Writes COCO 2017 and Flickr30k as zips in their official layouts, with five captions per image
(variations of real COCO captions where ``../shared/data`` has them, with rare words among them) and
220,000 word vectors, and runs the stage on them in a fresh process. A run with all images as
thumbnails measures everything but the images; two runs with few images of COCO's size (real ones
where available) differ by what an image costs without the start-up of the workers. Prints seconds
and peak memory. CPU seconds are reliable on a busy machine, too. Needs 3 GB of disk.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from benchmarks.caption_corpus import make_corpus, photographs, thumbnails
from benchmarks.measuring import ROOT, in_child, say
from trimodal.core.arguments import positive, writable_folder
from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.preprocess.captions import CaptionsConfig, prepare_captions
from trimodal.preprocess.images import write_images

PHOTOGRAPHS = 2_000


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """Wall and CPU seconds of the stage's images and of the rest."""

    image_seconds: float
    rest_seconds: float
    rest_cpu_seconds: float


@dataclass
class Usage:
    """Peak resident bytes of the largest process and of all together (shared pages are counted in
    each), and the CPU seconds of all.
    """

    peak_bytes: int = 0
    all_peak_bytes: int = 0
    cpu_seconds: float = 0.0


def main() -> None:
    """Writes each corpus, runs the stage on it, prints the table, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=positive, default=150_000, help="number of thumbnails")
    parser.add_argument(
        "--photographs", type=positive, default=PHOTOGRAPHS, help="number of images of COCO's size"
    )
    parser.add_argument(
        "--folder", type=writable_folder, help="where to write the files (default: temporary)"
    )
    parser.add_argument("--workers", type=positive, default=2)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="captions-stage-", dir=args.folder))
    try:
        say("| kind | images | captions | part | seconds | CPU seconds | each |")
        say("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
        measure(folder / "many", "thumbnails", args.images, thumbnails(), args.workers)
        jpegs, few = photographs(), args.photographs // 10
        less = measure(folder / "few", "COCO's size", few, jpegs, args.workers)
        more = measure(folder / "more", "COCO's size", args.photographs, jpegs, args.workers)
        wall, cpu = (
            1000 * (a - b) / (args.photographs - few) for a, b in zip(more, less, strict=True)
        )
        say(f"\nAn image of COCO's size: {wall:.2f} ms with {args.workers} workers, ")
        say(f"{cpu:.2f} ms CPU: {wall * args.images / 1000:.0f} s for {args.images:,}.")
    finally:
        shutil.rmtree(folder)


def measure(
    folder: Path, kind: str, images: int, jpegs: Sequence[bytes], workers: int
) -> tuple[float, float]:
    """Writes a corpus, runs the stage on it, deletes it, prints its rows of the table; returns wall
    and CPU seconds of its images.
    """
    config = make_corpus(folder, images, jpegs)
    with measured_usage() as usage:
        stage = in_child(run_stage, config, folder / "out", workers)
    stats = json.loads((folder / "out" / "captions" / "stats.json").read_text())
    captions = sum(sum(counts.values()) for counts in stats["captions"].values())
    head = f"| {kind} | {images:,} | {captions:,} |"
    image_cpu = usage.cpu_seconds - stage.rest_cpu_seconds
    say(
        f"{head} images, {workers} workers | {stage.image_seconds:.1f} | {image_cpu:.1f} | "
        f"{1000 * image_cpu / images:.2f} ms CPU per image |"
    )
    say(
        f"{head} the rest | {stage.rest_seconds:.1f} | {stage.rest_cpu_seconds:.1f} | "
        f"{1e6 * stage.rest_cpu_seconds / captions:.0f} us CPU per caption |"
    )
    say(
        f"{head} peak memory | the stage {usage.peak_bytes / 1e6:,.0f} MB | "
        f"with its workers {usage.all_peak_bytes / 1e6:,.0f} MB | |"
    )
    shutil.rmtree(folder)
    return stage.image_seconds, image_cpu


def run_stage(config: CaptionsConfig, out: Path, workers: int) -> StageSeconds:
    """Runs the stage in this process and times the writing of its images."""
    machine = replace(load_section(ROOT / "params.yaml", "machine", MachineConfig), workers=workers)
    watch: dict[str, float] = {}
    began, cpu_began = time.perf_counter(), time.process_time()
    with patch("trimodal.preprocess.captions.write_images", timed(write_images, watch)):
        prepare_captions(config, out / "captions", out / "images", machine)
    return StageSeconds(
        image_seconds=watch["seconds"],
        rest_seconds=time.perf_counter() - began - watch["seconds"],
        rest_cpu_seconds=time.process_time() - cpu_began - watch["cpu"],
    )


def timed(work: Callable[..., Any], watch: dict[str, float]) -> Callable[..., Any]:
    """``work``, which writes its wall seconds and this process's CPU seconds into ``watch``."""

    def run(*args: Any) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = work(*args)
        watch["seconds"] = time.perf_counter() - began
        watch["cpu"] = time.process_time() - cpu_began
        return result

    return run


@contextmanager
def measured_usage() -> Iterator[Usage]:
    """Memory and CPU time of this process's child processes, sampled five times a second."""
    usage = Usage()
    seconds: dict[int, float] = {}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.2):
            sizes = [0]
            for process in psutil.Process().children(recursive=True):
                try:
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system
                    sizes.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            usage.peak_bytes = max(usage.peak_bytes, *sizes)
            usage.all_peak_bytes = max(usage.all_peak_bytes, sum(sizes))

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield usage
    finally:
        stop.set()
        watcher.join()
        usage.cpu_seconds = sum(seconds.values())


if __name__ == "__main__":
    main()
