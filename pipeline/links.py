"""Stage ``links``: in an experiment's folder, links to sources that only the repository has."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="which name the sources")
    parser.add_argument("--stages", type=Path, required=True, help="dvc.yaml, for their outputs")
    parser.add_argument(
        "--done", type=Path, nargs="+", required=True, help="out: files, always the same"
    )
    args = parser.parse_args()

    from trimodal.core.progress import log, stage

    with stage("links"):
        from trimodal.core.files import write_text
        from trimodal.core.links import link_sources

        for link in link_sources(args.params, args.stages, Path.cwd()):
            log.info(f"linked {link} -> {link.readlink()}")
        for done in args.done:
            write_text(done, "done\n")


if __name__ == "__main__":
    main()
