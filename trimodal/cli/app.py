"""All commands, in the order of the help."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from trimodal.cli import experimenting, exporting, preparing, searching
from trimodal.cli.options import Command
from trimodal.core.console import show, show_traceback
from trimodal.core.errors import UserError

NAME = "trimodal"
SECTIONS = {
    "Search your videos": ("index", "search", "serve"),
    "Train a model": ("doctor", "scale", "sentences"),
    "Compare results": ("compare", "experiments"),
    "Use it elsewhere": ("embed", "export"),
}


class Commands(TyperGroup):
    """Shows the commands in sections, and an error that a user can fix as one line."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            show(f"{NAME}: {error}", error=True)
            raise typer.Exit(1) from error
        except BrokenPipeError:  # typer ends quietly
            raise
        except OSError as error:
            from trimodal.core.progress import advice

            what = advice(error, "run it again")
            show(f"{NAME}: {error}{'' if what == 'run it again' else f'; {what}'}", error=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            show(f"{NAME}: interrupted", error=True)
            raise typer.Exit(130) from error

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Writes a list for each section."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(limit=80)) for name in names]
                )


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show(f"{NAME} {version(NAME)}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # Rich takes longer to import than the rest of the help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(exporting.app, name="export")


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """One embedding space for pictures, sounds and words: search videos by what is seen and heard.

    "trimodal COMMAND --help" tells more about a command.
    """


for _command in (
    searching.index, searching.search, searching.serve, searching.embed,
    preparing.doctor, preparing.scale, preparing.sentences,
    experimenting.compare, experimenting.experiments,
):  # fmt: skip
    app.command(cls=Command)(_command)


def run() -> None:
    """Runs the command of ``sys.argv``; returns if it succeeds, and raises SystemExit if not."""
    sys.excepthook = show_traceback
    try:
        get_command(app)(prog_name=NAME)
    except SystemExit as end:
        if end.code:
            raise
