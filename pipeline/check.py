"""Stage ``check``: params.yaml as a whole, before DVC removes the outputs of any stage."""

import argparse
from pathlib import Path


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="where training will write")
    parser.add_argument("--done", type=Path, required=True, help="out: a file, always the same")
    args = parser.parse_args()

    from trimodal.core.progress import log, stage

    with stage("check"):
        from trimodal.core.files import write_text
        from trimodal.params import check_params

        check_params(args.params, args.model)
        write_text(args.done, "done\n")
        log.info(f"check: {args.params} is valid; nothing left out")


if __name__ == "__main__":
    main()
