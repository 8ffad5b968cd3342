"""Stage ``download``: annotations -> clips and their manifest."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line and the sections ``download, youtube, demo, machine``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument(
        "--clips", type=str, required=True, help="out: media and manifest; a folder or URL"
    )
    parser.add_argument("--world", type=Path, required=True, help="out: the demo's annotations")
    args = parser.parse_args()

    from trimodal.core.progress import stage

    with stage("download"):
        from trimodal.core.config import Params
        from trimodal.core.machine import MachineConfig
        from trimodal.core.storage import storage_path
        from trimodal.download.demo.world import DemoConfig
        from trimodal.download.download import DownloadConfig, download
        from trimodal.download.youtube import YoutubeConfig

        section = Params(args.params).section
        download(
            section("download", DownloadConfig),
            section("youtube", YoutubeConfig),
            section("demo", DemoConfig),
            storage_path(args.clips),
            args.world,
            section("machine", MachineConfig),
        )


if __name__ == "__main__":
    main()
