"""What a data set costs on 2 cores, on 64, on ten nodes: ``python -m benchmarks.cost_model``.

Times one clip, one image and one training step here with the paper-scale params, as ``trimodal
doctor`` does, and scales them up. A stage's wall time is its work divided by the number of cores
or, where that is longer (marked with a star), the serial time of its main process. Beside it stands
the rate at which media must be read. All cores are taken to be as fast as this machine's; no figure
includes a GPU.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import describe_machine, params_at, say
from trimodal.doctor import read_sections
from trimodal.estimate import Sections, Sizes, estimate

# CPU time per clip in the stage's main process, which more workers do not shorten: the slope from
# 10,000 clips to 100,000 in benchmarks.growth.
MAIN_PROCESS_MS = {"download": 0.25, "extract": 0.05, "captions": 0.20}
# Reading and augmenting one row of each stream on one core, from benchmarks.loading.
ROW_MS = 0.696 + 0.505
MACHINES = {"2 cores": 2, "64 cores": 64, "10 nodes of 64": 640}


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Number of ten-second clips and of captioned images, and the MB of a clip as downloaded."""

    name: str
    clips: int
    images: int
    clip_mb: float


DATA_SETS = (
    DataSet(name="VGGSound, COCO, Flickr30k", clips=190_000, images=155_070, clip_mb=1.6),
    # 134,472 hours of video (Miech et al., 2019) in clips of ten seconds, of VGGSound's bit rate.
    DataSet(name="HowTo100M", clips=48_409_920, images=155_070, clip_mb=1.6),
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """What one clip or image costs: core seconds, and bytes on disk."""

    seconds: float
    bytes: float


def main() -> None:
    """Prints the measured costs and the table."""
    argparse.ArgumentParser(description=str(__doc__).splitlines()[0]).parse_args()
    with TemporaryDirectory() as folder:
        sections = read_sections(params_at("paper", Path(folder)))
    costs = measured(sections)
    say(f"{describe_machine()}\n")
    say("| work | core ms | of it serial | KB written |\n| --- | ---: | ---: | ---: |")
    for stage, work in (("download", "probing a clip"), ("extract", "extracting a clip"),
                       ("captions", "storing an image")):  # fmt: skip
        item = costs[stage]
        say(
            f"| {work} | {1000 * item.seconds:.1f} | {MAIN_PROCESS_MS[stage]} | "
            f"{item.bytes / 1000:.0f} |"
        )
    step = costs["train"].seconds
    batch = sections.train.batch_size
    say(f"| a training step of {batch}, on these CPU cores | {1000 * step:,.0f} | | |")
    say(
        "\n| data | machines | download | extract | captions | media read | TB written | "
        "rows loaded | a stream reads |"
    )
    say(f"| --- | --- |{' ---: |' * 7}")
    for data in DATA_SETS:
        for name, cores in MACHINES.items():
            say(row(data, name, cores, costs))


def measured(sections: Sections) -> dict[str, Item]:
    """By stage, the cost of one item on one core here (train: of a step on all cores)."""
    one_worker = replace(
        sections,
        machine=replace(sections.machine, workers=1, device="cpu"),
        train=replace(sections.train, epochs=1, steps_per_epoch=1),
    )
    one_item = Sizes(train_clips=1, test_videos=0, images=1, train_images=1)
    return {
        cost.stage: Item(seconds=cost.seconds, bytes=cost.bytes)
        for cost in estimate(one_worker, one_item)
    }


def row(data: DataSet, name: str, cores: int, costs: dict[str, Item]) -> str:
    """A line: time per stage, GB per second read while extracting, TB written, rows per second, and
    GB per second read for these where ``train.reader`` is ``stream``: whole shards, each epoch.
    """
    items = {"download": data.clips, "extract": data.clips, "captions": data.images}
    cells = []
    seconds = {}
    for stage, count in items.items():
        shared, serial = costs[stage].seconds / cores, MAIN_PROCESS_MS[stage] / 1000
        seconds[stage] = count * max(shared, serial)
        cells.append(f"{duration(seconds[stage])}{'*' if serial > shared else ''}")
    read_gb_per_second = data.clips * data.clip_mb / 1000 / seconds["extract"]
    written_tb = data.clips * costs["extract"].bytes / 1e12
    rows_per_second = cores / ROW_MS * 1000
    streamed_bytes = rows_per_second * (costs["extract"].bytes + costs["captions"].bytes)
    return (
        f"| {data.name} | {name} | {' | '.join(cells)} | {read_gb_per_second:.3g} GB/s | "
        f"{written_tb:.3g} | {rows_per_second:,.0f}/s | {streamed_bytes / 1e9:.3g} GB/s |"
    )


def duration(seconds: float) -> str:
    """The time in a readable unit."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    main()
