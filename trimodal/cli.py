"""The command line, ``trimodal``. Heavy imports wait their turn."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Runs a subcommand; an error a user can mend is one line on standard error, exit code 1."""
    parser = argparse.ArgumentParser(prog="trimodal", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scale = commands.add_parser("scale", help="write an overlay of params/ into params.yaml")
    scale.add_argument("name", help="an overlay: the stem of a file in params/")
    compare = commands.add_parser("compare", help="fixed against variable margin, several seeds")
    compare.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    commands.add_parser("doctor", help="what is missing here, and what each stage will take")
    args = parser.parse_args()
    try:
        if args.command == "scale":
            _scale(args.name)
        elif args.command == "doctor":
            _doctor()
        else:
            _compare(args.seeds)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"trimodal: {error}", file=sys.stderr)
        sys.exit(1)


def _scale(name: str) -> None:
    from trimodal.scale import apply_overlay

    changed = apply_overlay(Path("params.yaml"), Path("params") / f"{name}.yaml")
    for key, (before, after) in changed.items():
        print(f"{key}: {before} -> {after}")
    print(f"params.yaml is at scale '{name}': {len(changed)} values changed")


def _doctor() -> None:
    from trimodal.doctor import as_text, diagnose

    diagnosis = diagnose(Path("params.yaml"))
    print(as_text(diagnosis))
    if not diagnosis.healthy:
        sys.exit(1)


def _compare(seeds: list[int]) -> None:
    from trimodal.comparison import compare_margins

    print(compare_margins(seeds))


if __name__ == "__main__":
    main()
