"""Commands that compare results: ``compare`` and ``experiments``."""

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Annotated

import typer

from trimodal.core.arguments import seed_number
from trimodal.core.console import show

REVISION = "a commit, a tag, a DVC experiment, or workspace: the files as they are now"


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"The old one: {REVISION}.")] = "HEAD",
    second: Annotated[str, typer.Argument(metavar="B", help="The new one.")] = "workspace",
    test_set: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One of evaluate.sets, instead of the first that ranks."),
    ] = None,
) -> None:
    """Test whether two revisions differ by more than chance.

    As in "dvc metrics diff A B", differences are B minus A; of the files as they are now minus
    those of the last commit, if neither is given.
    """
    from trimodal.report.experiments import compare_revisions

    show(compare_revisions(first, second, test_set))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [seed_number(number) for number in text.split(",")]
    except ArgumentTypeError as error:
        raise typer.BadParameter(str(error), param_hint="--seeds") from error
    if len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"{text}: one of them is given twice", param_hint="--seeds")
    return seeds


def _known_series() -> list[str]:
    return sorted(path.stem for path in Path("experiments").glob("*.yaml"))


def experiments(
    series: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A YAML file, or the name of one in experiments/; table1: the paper's comparison.",
            autocompletion=_known_series,
        ),
    ],
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Seeds instead of the file's, such as 1,2,3."),
    ] = None,
) -> None:
    """Run a series of DVC experiments and compare them over seeds."""
    chosen = None if seeds is None else _seeds(seeds)
    from trimodal.report.experiments import run_series
    from trimodal.report.series import find_series

    show(run_series(find_series(series), chosen))
