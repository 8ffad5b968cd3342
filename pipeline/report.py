"""Stage ``report``: metrics -> results table, plots, model card."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=Path, required=True, help="in: the metrics folder")
    parser.add_argument("--model", type=Path, required=True, help="in: the checkpoint's JSON")
    parser.add_argument("--params", type=Path, required=True, help="in: params.yaml")
    parser.add_argument("--evaluation", type=Path, required=True, help="in: embeddings and ranks")
    parser.add_argument("--av", type=Path, required=True, help="in: the shards, for frames")
    parser.add_argument("--manifest", type=Path, required=True, help="in: the clips, for sounds")
    parser.add_argument("--out", type=Path, required=True, help="out: Markdown and plots")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("report"):
        from trimodal.report.report import write_report

        write_report(
            args.metrics, args.model, args.params, args.evaluation, args.av, args.manifest, args.out
        )


if __name__ == "__main__":
    main()
