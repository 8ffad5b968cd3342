"""Stage ``extract``: clips -> shards of frames and mels."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``extract, mel, engine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True, help="in: the clips' folder")
    parser.add_argument("--out", type=Path, required=True, help="out: shards, index, stats")
    args = parser.parse_args()

    from trimodal.config import load_section
    from trimodal.engine import EngineConfig
    from trimodal.extract import ExtractConfig, extract
    from trimodal.mel import MelConfig
    from trimodal.progress import stage

    with stage("extract"):
        extract(
            args.clips / "manifest.parquet",
            args.out,
            load_section(args.params, "extract", ExtractConfig),
            load_section(args.params, "mel", MelConfig),
            load_section(args.params, "engine", EngineConfig),
        )


if __name__ == "__main__":
    main()
