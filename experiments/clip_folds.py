"""The CSV of test videos of each fold: ``python -m experiments.clip_folds``.

Divides the videos of a CSV in MSR-VTT's format at random into folds and writes, for each, the rows
of its videos: those are the fold's test videos, and all others of the folder train
(params/clips.yaml, experiments/clips.yaml).
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trimodal.core.arguments import positive, seed_number
from trimodal.core.console import show
from trimodal.core.files import write_text


def main() -> None:
    """Writes ``fold1.csv``, ... into a folder."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--csv", type=Path, default=Path("../shared/data/msrvtt_style_test.csv"))
    parser.add_argument("--folds", type=positive, default=5)
    parser.add_argument("--seed", type=seed_number, default=1)
    parser.add_argument("--out", type=Path, default=Path("data/sources/clips"))
    args = parser.parse_args()
    if not args.csv.is_file():
        parser.error(f"--csv: {args.csv} does not exist")
    for path, videos in write_folds(args.csv, args.folds, args.seed, args.out):
        show(f"{path}: {videos} videos")


def write_folds(source: Path, folds: int, seed: int, out: Path) -> list[tuple[Path, int]]:
    """Writes each fold's rows; returns the files and how many videos each has. Folds differ by at
    most one video.
    """
    with source.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("video_id")
    videos = list(dict.fromkeys(row[column] for row in rows))
    order = np.random.default_rng(seed).permutation(len(videos))
    written = []
    for number, part in enumerate(np.array_split(order, folds), start=1):
        chosen = {videos[index] for index in part}
        path = out / f"fold{number}.csv"
        write_text(path, _text([header, *(row for row in rows if row[column] in chosen)]))
        written.append((path, len(chosen)))
    return written


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    main()
