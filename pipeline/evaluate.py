"""Stage ``evaluate@NAME``: checkpoint and a test set -> embeddings, ranks, metrics."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``evaluate``, ``leaks`` and ``machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--set", type=str, required=True, help="a name in evaluate.sets")
    parser.add_argument("--model", type=Path, required=True, help="in: the model's folder")
    parser.add_argument("--av", type=str, required=True, help="in: clip shards, a folder or URL")
    parser.add_argument("--captions", type=Path, required=True, help="in: for the query bank")
    parser.add_argument("--images", type=str, required=True, help="in: the image index, as --av")
    parser.add_argument(
        "--world", type=Path, required=True, help="in: the demo's ground truth, if any"
    )
    parser.add_argument("--out", type=Path, required=True, help="out: a folder, also a cache")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("evaluate"):
        from trimodal.core.config import Params
        from trimodal.core.machine import MachineConfig
        from trimodal.core.storage import storage_path
        from trimodal.evaluation.config import EvaluateConfig
        from trimodal.evaluation.evaluate import evaluate
        from trimodal.evaluation.task import Inputs
        from trimodal.training.distributed import process_group
        from trimodal.training.launch import run_on_devices
        from trimodal.training.leaks import LeaksConfig

        section = Params(args.params).section
        machine = section("machine", MachineConfig)
        if run_on_devices(machine.devices, machine.device):
            return
        with process_group(machine.device) as world:
            evaluate(
                args.set,
                Inputs(
                    model=args.model,
                    av=storage_path(args.av),
                    captions=args.captions,
                    images=storage_path(args.images),
                    world=args.world,
                ),
                args.out,
                config=section("evaluate", EvaluateConfig),
                machine=machine,
                world=world,
                leaks=section("leaks", LeaksConfig),
            )


if __name__ == "__main__":
    main()
