"""The captions stage at the paper's size: ``python -m benchmarks.captions_stage``.

Makes COCO 2017 and Flickr30k as zips in their official layouts, five captions an image (real COCO
sentences where ``../shared/data`` has them, varied, with rare words among them), 220,000 word
vectors, and runs the stage on them in a process of its own: with all images as thumbnails, which
measures all but the pictures, and twice with few pictures of COCO's size (real ones where they are
there), whose difference is what a picture costs without the start of the workers. Prints seconds
and peak memory. CPU seconds hold on a busy machine, too. Needs 3 GB of disk.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from benchmarks.caption_corpus import make_corpus, photographs, thumbnails
from benchmarks.measuring import in_child, say
from trimodal.preprocess.captions import CaptionsConfig, prepare_captions
from trimodal.preprocess.images import write_images

PICTURES = 2_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Wall and processor seconds of the stage's pictures and of the rest."""

    image_seconds: float
    rest_seconds: float
    rest_cpu_seconds: float


@dataclass
class Usage:
    """Peak resident bytes of the largest process and of all together (pages that they share are
    counted in each), and the processor seconds of all.
    """

    peak_bytes: int = 0
    all_peak_bytes: int = 0
    cpu_seconds: float = 0.0


def main() -> None:
    """Makes both corpora, runs the stage on them, prints the tables, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=int, default=150_000)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of COCO's size")
    parser.add_argument("--folder", type=Path, help="where to make the files (default: temporary)")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="captions-stage-", dir=given.folder))
    try:
        say("| pictures | images | captions | part | seconds | CPU seconds | each |")
        say("| --- | ---: | ---: | --- | ---: | ---: | ---: |")
        measure(folder / "many", "thumbnails", given.images, thumbnails(), given.workers)
        pictures, few = photographs(), given.pictures // 10
        less = measure(folder / "few", "COCO's size", few, pictures, given.workers)
        more = measure(folder / "more", "COCO's size", given.pictures, pictures, given.workers)
        wall, cpu = (
            1000 * (a - b) / (given.pictures - few) for a, b in zip(more, less, strict=True)
        )
        say(f"\nA picture of COCO's size: {wall:.2f} ms with {given.workers} workers, ")
        say(f"{cpu:.2f} ms CPU: {wall * given.images / 1000:.0f} s for {given.images:,}.")
    finally:
        shutil.rmtree(folder)


def measure(
    folder: Path, kind: str, images: int, pictures: Sequence[bytes], workers: int
) -> tuple[float, float]:
    """Makes a corpus, runs the stage on it, deletes it, prints its rows of the table; returns wall
    and processor seconds of its pictures.
    """
    config = make_corpus(folder, images, pictures, workers)
    with watched() as usage:
        found = in_child(run_stage, config, folder / "out")
    stats = json.loads((folder / "out" / "captions" / "stats.json").read_text())
    captions = sum(sum(counts.values()) for counts in stats["captions"].values())
    head = f"| {kind} | {images:,} | {captions:,} |"
    image_cpu = usage.cpu_seconds - found.rest_cpu_seconds
    say(
        f"{head} pictures, {workers} workers | {found.image_seconds:.1f} | {image_cpu:.1f} | "
        f"{1000 * image_cpu / images:.2f} ms CPU a picture |"
    )
    say(
        f"{head} all the rest | {found.rest_seconds:.1f} | {found.rest_cpu_seconds:.1f} | "
        f"{1e6 * found.rest_cpu_seconds / captions:.0f} us CPU a caption |"
    )
    say(
        f"{head} peak memory | the stage {usage.peak_bytes / 1e6:,.0f} MB | "
        f"with its workers {usage.all_peak_bytes / 1e6:,.0f} MB | |"
    )
    shutil.rmtree(folder)
    return found.image_seconds, image_cpu


def run_stage(config: CaptionsConfig, out: Path) -> Measured:
    """The stage in this process, with stopwatches around its pictures."""
    watch: dict[str, float] = {}
    began, cpu_began = time.perf_counter(), time.process_time()
    with patch("trimodal.preprocess.captions.write_images", stopped(write_images, watch)):
        prepare_captions(config, out / "captions", out / "images")
    return Measured(
        image_seconds=watch["seconds"],
        rest_seconds=time.perf_counter() - began - watch["seconds"],
        rest_cpu_seconds=time.process_time() - cpu_began - watch["cpu"],
    )


def stopped(work: Callable[..., Any], watch: dict[str, float]) -> Callable[..., Any]:
    """``work``, which notes its wall seconds and this process's processor seconds."""

    def timed(*given: Any) -> Any:
        began, cpu_began = time.perf_counter(), time.process_time()
        result = work(*given)
        watch["seconds"] = time.perf_counter() - began
        watch["cpu"] = time.process_time() - cpu_began
        return result

    return timed


@contextmanager
def watched() -> Iterator[Usage]:
    """What the processes below this one use, looked at five times a second."""
    usage = Usage()
    seconds: dict[int, float] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
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

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield usage
    finally:
        over.set()
        watcher.join()
        usage.cpu_seconds = sum(seconds.values())


if __name__ == "__main__":
    main()
