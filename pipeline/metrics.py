"""Stage ``metrics``: the results of all test sets, side by side; a few numbers of them for DVC."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the section ``evaluate``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True, help="in: a folder a test set")
    parser.add_argument("--retrieval", type=Path, required=True, help="out: headline numbers")
    parser.add_argument("--measures", type=Path, required=True, help="out: all of them")
    parser.add_argument("--audit", type=Path, required=True, help="out: JSON, counts")
    parser.add_argument("--curve", type=Path, required=True, help="out: CSV by audio weight")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("metrics"):
        from trimodal.core.config import Params
        from trimodal.evaluation.config import EvaluateConfig
        from trimodal.evaluation.merged import merge_results

        merge_results(
            args.evaluation,
            Params(args.params).section("evaluate", EvaluateConfig).sets,
            retrieval=args.retrieval,
            measures=args.measures,
            audit=args.audit,
            curve=args.curve,
        )


if __name__ == "__main__":
    main()
