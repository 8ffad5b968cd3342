"""Results on real media: ``python -m benchmarks.real [flickr8k] [clips]`` (``make real``).

Reads a folder laid out as docs/results.md says (``--shared``), keeps what it computes in
``data/real``, prints Markdown and writes ``metrics/real/*.json``.
"""

import argparse
import time
from pathlib import Path

from benchmarks.measuring import machine, say
from benchmarks.real import clips, flickr8k
from benchmarks.real.prepared import prepare
from trimodal.core.files import write_json
from trimodal.core.progress import start_logging

EXPERIMENTS = {"flickr8k": (flickr8k.run, "seeds"), "clips": (clips.run, "divisions")}


def main() -> None:
    """Prepares the data and runs the experiments that are named, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", choices=[*EXPERIMENTS, []], help="default: all")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folder", type=Path, default=Path("data/real"))
    parser.add_argument("--out", type=Path, default=Path("metrics/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--divisions", type=int, nargs="+", default=[1, 2], help="seeds of folds")
    args = parser.parse_args()
    start_logging()
    began = time.monotonic()
    data = prepare(args.shared, args.folder)
    say(f"{machine()}; data prepared in {time.monotonic() - began:.0f} s")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.experiments or EXPERIMENTS:
        run, seeds = EXPERIMENTS[name]
        write_json(args.out / f"{name}.json", run(data, getattr(args, seeds)))
    say(f"\nIn all {(time.monotonic() - began) / 60:.0f} min")


if __name__ == "__main__":
    main()
