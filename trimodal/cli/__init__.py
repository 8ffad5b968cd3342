"""The command line, ``trimodal``: a file for each group of commands.

A command checks what it was given before it imports PyTorch; each imports what it needs.
"""

import sys


def main() -> None:
    """Runs the command of ``sys.argv``. Errors a user can fix are one line on standard error, with
    exit code 1, and so is Ctrl-C, with exit code 130; a wrong command line has exit code 2.
    """
    try:
        from trimodal.cli.app import run

        run()
    except KeyboardInterrupt:  # also while the command is being imported
        sys.stderr.write("trimodal: interrupted\n")
        sys.exit(130)
