"""Experiments on real media: ``python -m experiments.real [flickr8k] [clips]`` (``make real``).

Reads a folder laid out as docs/results.md describes (``--shared``), keeps intermediate data in
``data/real``, prints Markdown tables and writes ``metrics/real/*.json``.
"""

import argparse
import time
from pathlib import Path

from benchmarks.measuring import describe_machine, say
from experiments.real import clips, flickr8k
from experiments.real.prepared import prepare
from trimodal.core.files import write_json
from trimodal.core.progress import start_logging

EXPERIMENTS = {"flickr8k": (flickr8k.run, "seeds"), "clips": (clips.run, "divisions")}


def main() -> None:
    """Prepares the data and runs the named experiments, by default both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []], help="default: all")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folder", type=Path, default=Path("data/real"))
    parser.add_argument("--out", type=Path, default=Path("metrics/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--divisions", type=int, nargs="+", default=[1, 2], help="seeds of the divisions into folds"
    )
    args = parser.parse_args()
    start_logging()
    began = time.monotonic()
    data = prepare(args.shared, args.folder)
    say(f"{describe_machine()}; data prepared in {time.monotonic() - began:.0f} s")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.experiments or EXPERIMENTS:
        run, seeds = EXPERIMENTS[name]
        write_json(args.out / f"{name}.json", run(data, getattr(args, seeds)))
    say(f"\nTotal: {(time.monotonic() - began) / 60:.0f} min")


if __name__ == "__main__":
    main()
