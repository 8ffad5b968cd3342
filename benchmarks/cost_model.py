"""What a data set takes on 2 cores, on 64, on ten nodes: ``python -m benchmarks.cost_model``.

Times one clip, one picture and one training step here with the paper's params, as ``trimodal
doctor`` does, and scales them up. A stage's wall time is its work shared among the cores or, where
that is longer and marked with a star, the serial time of its own process. With it goes the rate at
which media must be read. A core here stands for a core there; a GPU is in no figure.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import machine, params_at, say
from trimodal.doctor import read_sections
from trimodal.estimate import Sections, Sizes, estimate

# A clip's processor time in the stage's own process, which more workers do not share: the slope
# from 10,000 clips to 100,000 in benchmarks.growth.
OWN_MS = {"download": 0.25, "extract": 0.05, "captions": 0.20}
# Reading and augmenting one row of each stream on one core: benchmarks.loading.
ROW_MS = 0.696 + 0.505
MACHINES = {"2 cores": 2, "64 cores": 64, "10 nodes of 64": 640}


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Clips of ten seconds, captioned pictures, and the MB of a clip as its site has it."""

    name: str
    clips: int
    pictures: int
    clip_mb: float


DATA_SETS = (
    DataSet(name="VGGSound, COCO, Flickr30k", clips=190_000, pictures=155_070, clip_mb=1.6),
    # 134,472 hours of video (Miech et al., 2019) in pieces of ten seconds, as heavy as VGGSound's.
    DataSet(name="HowTo100M", clips=48_409_920, pictures=155_070, clip_mb=1.6),
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """What one clip or picture costs: core seconds, and bytes on disk."""

    seconds: float
    bytes: float


def main() -> None:
    """Prints what was measured and the tables."""
    argparse.ArgumentParser(description=str(__doc__).splitlines()[0]).parse_args()
    with TemporaryDirectory() as folder:
        sections = read_sections(params_at("paper", Path(folder)))
    costs = measured(sections)
    say(f"{machine()}\n")
    say("| one | core ms | of it serial | KB left on disk |\n| --- | ---: | ---: | ---: |")
    for stage, one in (("download", "a look into a clip"), ("extract", "a clip's extraction"),
                       ("captions", "a picture")):  # fmt: skip
        item = costs[stage]
        say(f"| {one} | {1000 * item.seconds:.1f} | {OWN_MS[stage]} | {item.bytes / 1000:.0f} |")
    step = costs["train"].seconds
    batch = sections.train.batch_size
    say(f"| a step of {batch}, on these cores' CPU | {1000 * step:,.0f} | | |")
    say(
        "\n| data | machines | download | extract | captions | media read | TB left | rows loaded |"
    )
    say(f"| --- | --- |{' ---: |' * 6}")
    for data in DATA_SETS:
        for name, cores in MACHINES.items():
            say(row(data, name, cores, costs))


def measured(sections: Sections) -> dict[str, Item]:
    """By stage, one item's cost on one core here (train: a step's, on all of them)."""
    alone = replace(
        sections,
        extract=replace(sections.extract, workers=1),
        captions=replace(sections.captions, workers=1),
        train=replace(sections.train, epochs=1, steps_per_epoch=1, device="cpu"),
    )
    one = Sizes(train_clips=1, test_videos=0, images=1)
    return {
        cost.stage: Item(seconds=cost.seconds, bytes=cost.bytes) for cost in estimate(alone, one)
    }


def row(data: DataSet, name: str, cores: int, costs: dict[str, Item]) -> str:
    """A line: hours of the stages, GB a second to read while extracting, TB left, rows a second."""
    items = {"download": data.clips, "extract": data.clips, "captions": data.pictures}
    cells = []
    seconds = {}
    for stage, count in items.items():
        shared, serial = costs[stage].seconds / cores, OWN_MS[stage] / 1000
        seconds[stage] = count * max(shared, serial)
        cells.append(f"{hours(seconds[stage])}{'*' if serial > shared else ''}")
    read = data.clips * data.clip_mb / 1000 / seconds["extract"]
    left = data.clips * costs["extract"].bytes / 1e12
    return (
        f"| {data.name} | {name} | {' | '.join(cells)} | {read:.3g} GB/s | {left:.3g} | "
        f"{cores / ROW_MS * 1000:,.0f}/s |"
    )


def hours(seconds: float) -> str:
    """The time in the unit that people would use."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    main()
