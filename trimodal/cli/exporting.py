"""The commands of ``trimodal export``."""

from pathlib import Path
from typing import Annotated

import typer

from trimodal.cli.options import MODEL, Command, Model, check_model
from trimodal.cli.searching import end_orderly
from trimodal.core.arguments import missing_packages
from trimodal.core.console import show
from trimodal.core.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Write the model or its data for other tools.")


@app.command(cls=Command)
def onnx(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A new folder, or one of an earlier export.")
    ],
    model: Model = MODEL,
) -> None:
    """Write the three encoders as ONNX files, for use without PyTorch."""
    if missing := missing_packages("onnx", "onnxruntime", "onnxscript"):
        raise UserError(f"{missing[0]} is not installed: pip install 'trimodal[onnx]'")
    check_model(model)
    end_orderly()
    from trimodal.search.encoder import Encoder
    from trimodal.search.export import export_encoders

    for exported in export_encoders(Encoder.from_pretrained(model, device="cpu"), folder):
        path = folder / exported.file
        show(f"{path}: differs from PyTorch by at most {exported.difference:.0e}")


@app.command("model", cls=Command)
def model_folder(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    model: Model = MODEL,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A model card, instead of the model's.",
        ),
    ] = None,
) -> None:
    """Write the model and its card as a folder to hand on."""
    check_model(model)
    end_orderly()
    from trimodal.search.hub import export_model

    export_model(model, folder, card)
    show(f"{folder}: the model and its card")


@app.command(cls=Command)
def pairs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    params: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="Sections mel, window and machine are read."
        ),
    ] = Path("params.yaml"),
    av: Annotated[
        str, typer.Option(metavar="FOLDER", help="Clip shards: a folder or URL.")
    ] = "data/av",
    captions: Annotated[Path, typer.Option(metavar="FOLDER", help="Caption tables.")] = Path(
        "data/captions"
    ),
    images: Annotated[
        str, typer.Option(metavar="FOLDER", help="Image shards: a folder or URL.")
    ] = "data/images",
    frames_per_clip: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Evenly spaced ones, instead of all whose window fits."
        ),
    ] = None,
) -> None:
    """Write the training pairs as Parquet files for Hugging Face datasets."""
    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.storage import storage_path
    from trimodal.data.export_pairs import ShardFolders, export_pairs
    from trimodal.media.mel import MelConfig
    from trimodal.media.windows import AudioFrontEnd, WindowConfig

    configurations = export_pairs(
        storage_path(folder),
        ShardFolders(av=storage_path(av), captions=captions, images=storage_path(images)),
        AudioFrontEnd(
            mel=load_section(params, "mel", MelConfig),
            window=load_section(params, "window", WindowConfig),
        ),
        load_section(params, "machine", MachineConfig).shard_cache,
        frames_per_clip=frames_per_clip,
    )
    for configuration in configurations:
        rows = ", ".join(f"{split} {rows}" for split, rows in configuration.splits.items())
        left_out = f"; left out: {configuration.left_out}" if configuration.left_out else ""
        show(f"{folder}/{configuration.name}: {rows} pairs{left_out}")
