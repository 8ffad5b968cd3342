"""Stage ``captions``: caption sets -> Parquet and image shards."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``captions`` and ``machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True, help="out: Parquet, stats")
    parser.add_argument("--images", type=Path, required=True, help="out: shards, index")
    args = parser.parse_args()

    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.progress import stage
    from trimodal.preprocess.captions import CaptionsConfig, prepare_captions

    with stage("captions"):
        prepare_captions(
            load_section(args.params, "captions", CaptionsConfig),
            args.captions,
            args.images,
            load_section(args.params, "machine", MachineConfig),
        )


if __name__ == "__main__":
    main()
