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

    from trimodal.core.progress import stage

    with stage("captions", removed=args.captions):
        from trimodal.core.config import Params
        from trimodal.core.machine import MachineConfig
        from trimodal.preprocess.captions import CaptionsConfig, prepare_captions

        section = Params(args.params).section
        prepare_captions(
            section("captions", CaptionsConfig),
            args.captions,
            args.images,
            section("machine", MachineConfig),
        )


if __name__ == "__main__":
    main()
