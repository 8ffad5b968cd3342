"""Experiments on real media: ``python -m experiments.real [flickr8k] [clips]`` (``make real``).

Reads a folder laid out as docs/results.md describes (``--shared``), keeps intermediate data in
``data/real``, prints Markdown tables and writes ``metrics/real/*.json``; what an experiment has so
far is in ``*.unfinished.json``.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from benchmarks.measuring import describe_machine, say
from experiments.real import clips, flickr8k
from experiments.real.prepared import missing_files, prepare
from trimodal.core.arguments import Distinct, seed_number
from trimodal.core.files import check_writable, remove, write_json
from trimodal.core.progress import start_logging

EXPERIMENTS = {"flickr8k": (flickr8k.run, "seeds"), "clips": (clips.run, "divisions")}


def main() -> None:
    """Prepares the data and runs the named experiments, by default both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []], help="default: all")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folder", type=Path, default=Path("data/real"))
    parser.add_argument("--out", type=Path, default=Path("metrics/real"))
    parser.add_argument("--seeds", type=seed_number, nargs="+", action=Distinct, default=[1, 2, 3])
    parser.add_argument(
        "--divisions",
        type=seed_number,
        nargs="+",
        action=Distinct,
        default=[1, 2],
        help="seeds of the divisions into folds",
    )
    args = parser.parse_args()
    names = args.experiments or list(EXPERIMENTS)
    if missing := missing_files(args.shared):
        parser.error(f"--shared {args.shared} has no {', '.join(missing)} (docs/results.md)")
    try:
        for path in (args.folder / "overlay.yaml", *(args.out / f"{name}.json" for name in names)):
            check_writable(path)
    except OSError as error:
        parser.error(str(error))
    start_logging()
    began = time.monotonic()
    data = prepare(args.shared, args.folder)
    say(f"{describe_machine()}; data prepared in {time.monotonic() - began:.0f} s")
    for name in names:
        run, seeds = EXPERIMENTS[name]
        unfinished = args.out / f"{name}.unfinished.json"
        write_json(
            args.out / f"{name}.json",
            run(data, getattr(args, seeds), partial(write_json, unfinished)),
        )
        remove(unfinished)
    say(f"\nTotal: {(time.monotonic() - began) / 60:.0f} min")


if __name__ == "__main__":
    main()
