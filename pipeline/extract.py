"""Stage ``extract``: clips -> shards of frames and mels."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``extract, mel, machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--clips", type=str, required=True, help="in: the clips' folder or URL")
    parser.add_argument(
        "--out", type=str, required=True, help="out: shards, index, stats; a folder or URL"
    )
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("extract"):
        from trimodal.core.config import Params
        from trimodal.core.machine import MachineConfig
        from trimodal.core.storage import storage_path
        from trimodal.media.mel import MelConfig
        from trimodal.preprocess.clip_shards import ExtractConfig
        from trimodal.preprocess.extract import extract

        section = Params(args.params).section
        extract(
            storage_path(args.clips) / "manifest.parquet",
            storage_path(args.out),
            section("extract", ExtractConfig),
            section("mel", MelConfig),
            section("machine", MachineConfig),
        )


if __name__ == "__main__":
    main()
