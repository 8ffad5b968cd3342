"""Stage ``evaluate``: checkpoint and test videos -> embeddings, ranks, metrics."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``evaluate``, ``leaks`` and ``machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="in: the model's folder")
    parser.add_argument("--av", type=str, required=True, help="in: clip shards, a folder or URL")
    parser.add_argument("--images", type=str, required=True, help="in: the image index, as --av")
    parser.add_argument(
        "--world", type=Path, required=True, help="in: the demo's ground truth, if any"
    )
    parser.add_argument("--embeddings", type=Path, required=True, help="out: Parquet")
    parser.add_argument("--ranks", type=Path, required=True, help="out: Parquet, a row per query")
    parser.add_argument("--metrics", type=Path, required=True, help="out: JSON, numbers only")
    parser.add_argument("--audit", type=Path, required=True, help="out: JSON, counts")
    parser.add_argument("--curve", type=Path, required=True, help="out: CSV by audio weight")
    args = parser.parse_args()

    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.progress import stage
    from trimodal.core.storage import storage_path
    from trimodal.evaluation.evaluate import EvaluateConfig, Outputs, evaluate
    from trimodal.training.distributed import process_group
    from trimodal.training.launch import run_on_devices
    from trimodal.training.leaks import LeaksConfig

    with stage("evaluate"):
        machine = load_section(args.params, "machine", MachineConfig)
        if run_on_devices(machine.devices, machine.device):
            return
        with process_group(machine.device) as world:
            evaluate(
                args.model,
                storage_path(args.av),
                storage_path(args.images),
                args.world,
                Outputs(
                    embeddings=args.embeddings,
                    ranks=args.ranks,
                    metrics=args.metrics,
                    audit=args.audit,
                    curve=args.curve,
                ),
                config=load_section(args.params, "evaluate", EvaluateConfig),
                machine=machine,
                world=world,
                leaks=load_section(args.params, "leaks", LeaksConfig),
            )


if __name__ == "__main__":
    main()
