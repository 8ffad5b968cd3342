"""Stage ``extract``: clips -> shards of frames and mels."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``extract, mel, engine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--clips", type=str, required=True, help="in: the clips' folder or URL")
    parser.add_argument(
        "--out", type=str, required=True, help="out: shards, index, stats; a folder or URL"
    )
    args = parser.parse_args()

    from trimodal.core.config import load_section
    from trimodal.core.progress import stage
    from trimodal.core.storage import place
    from trimodal.media.mel import MelConfig
    from trimodal.parallel.executor import EngineConfig
    from trimodal.preprocess.clip_shards import ExtractConfig
    from trimodal.preprocess.extract import extract

    with stage("extract"):
        extract(
            place(args.clips) / "manifest.parquet",
            place(args.out),
            load_section(args.params, "extract", ExtractConfig),
            load_section(args.params, "mel", MelConfig),
            load_section(args.params, "engine", EngineConfig),
        )


if __name__ == "__main__":
    main()
