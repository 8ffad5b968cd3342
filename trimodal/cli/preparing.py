"""Commands before a model is trained: ``doctor``, ``scale`` and ``sentences``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trimodal.core.console import show

OVERLAYS = Path("params")


def doctor() -> None:
    """Check what is missing here, and estimate what each stage takes."""
    from trimodal.doctor import diagnose, format_diagnosis

    diagnosis = diagnose(Path("params.yaml"))
    show(format_diagnosis(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _known_overlays() -> list[tuple[str, str]]:
    from trimodal.overlay import list_overlays

    return list(list_overlays(OVERLAYS).items())


def scale(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Overlays, applied in this order: files of params/ without .yaml.",
            autocompletion=_known_overlays,
            show_default=False,
        ),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show what overlays there are.")
    ] = False,
) -> None:
    """Change params.yaml to another scale or recipe, of params/."""
    if not names and not show_list:
        raise typer.BadParameter("which one? `trimodal scale --list` shows them", param_hint="NAME")
    from trimodal.overlay import apply_overlay, find_overlay, list_overlays

    if show_list:
        overlays = list_overlays(OVERLAYS)
        width = max(map(len, overlays), default=0)
        for name, what in overlays.items():
            show(f"{name:{width}}  {what}")
        return
    paths = [find_overlay(OVERLAYS, name) for name in names or ()]
    changed = apply_overlay(Path("params.yaml"), *paths)
    for key, (before, after) in changed.items():
        show(f"{key}: {before} -> {after}")
    show(f"applied {', '.join(map(str, paths))}: {len(changed)} values changed")


def sentences(
    form: Annotated[
        Literal["msrvtt", "msvd", "vatex", "didemo", "lsmdc", "vggsound"],
        typer.Argument(
            metavar="DATASET", help="One of msrvtt, msvd, vatex, didemo, lsmdc and vggsound."
        ),
    ],
    annotations: Annotated[
        Path,
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Its official file."),
    ],
    video_list: Annotated[
        Path, typer.Argument(metavar="LIST", help="The CSV of video_id and sentence to add to.")
    ],
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Only these: a file, a name a line."
        ),
    ] = None,
) -> None:
    """Add sentences of a data set's official file to a list of videos."""
    from trimodal.sources.video_lists import write_video_list

    count, written, left_out = write_video_list(form, annotations, video_list, videos=videos)
    counts = ", ".join(f"{number} {reason}" for reason, number in left_out.items()) or "nothing"
    show(f"{video_list}: added {written} sentences of {count} videos; {counts} left out")
