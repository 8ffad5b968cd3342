"""What several commands have: options, and checks that need no PyTorch."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from trimodal.core.errors import UserError

MODEL = Path("models/trimodal")
STORE = "data/search"

Model = Annotated[Path, typer.Option("--model", metavar="FOLDER", help="The model's folder.")]
Store = Annotated[
    str,
    typer.Option(
        "--store", metavar="FOLDER", help="The index: a folder, or a URL of an object store."
    ),
]
Workers = Annotated[
    int,
    typer.Option("--workers", metavar="N", min=1, max=1000, help="Processes that decode files."),
]


class Command(TyperCommand):
    """A command whose help shows the names of its arguments without types of Python."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda **_: None  # type: ignore[method-assign]


def check_model(folder: Path) -> None:
    """Raises UserError if there is no model in the folder."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no model here: run `make repro`, or name another folder with --model"
        )


def check_store(location: str) -> None:
    """Raises NoStoreError if there is no index; one at a URL is not looked for."""
    if "://" not in location and not (Path(location) / "about.lance").is_dir():
        from trimodal.search.store_errors import no_store

        raise no_store(location)
