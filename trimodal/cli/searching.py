"""Commands that use a trained model: ``index``, ``search``, ``serve`` and ``embed``."""

import json
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trimodal.cli.options import MODEL, STORE, Model, Store, Workers, check_model, check_store
from trimodal.core.console import show
from trimodal.core.errors import UserError
from trimodal.core.runtime import uncollected


def end_orderly() -> None:
    """Makes the end by SIGTERM remove temporary files, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def index(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders of videos.", show_default=False),
    ] = None,
    store: Store = STORE,
    model: Model = MODEL,
    workers: Workers = 2,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete the index first, damaged or not.")
    ] = False,
    drop: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Remove an indexed folder's videos from the index."),
    ] = None,
) -> None:
    """Index folders of videos, or what is new and changed in them.

    Folders that were indexed before stay in the index.
    """
    from trimodal.search.folder import check_apart, check_videos, left_out, real_folders

    if not folders and not drop:
        raise typer.BadParameter("give a folder of videos", param_hint="FOLDER")
    if folders:
        roots = real_folders(folders)
        check_apart(roots)
        check_videos(roots)
        check_model(model)
    if drop:
        check_store(store)
    end_orderly()
    for folder in drop or ():
        from trimodal.search.index import drop_folder

        show(f"{folder}: {drop_folder(store, folder)} videos removed from {store}")
    if not folders:
        return
    from trimodal.search.api import Trimodal

    report = Trimodal.from_pretrained(model).index(folders, store, workers=workers, rebuild=rebuild)
    for path, problem in sorted(report.problems.items()):
        show(f"{path}: {problem}")
    show(
        f"{report.moments} moments; videos: {report.added} new, {report.changed} changed, "
        f"{report.kept} unchanged, {report.dropped} deleted, {len(report.problems)} with problems"
    )
    if report.others or report.hidden:
        show(f"left out: {left_out(report.others, report.hidden)}")
    if report.unread:
        raise UserError(f"{report.unread} could not be read; index again when they can be")
    if not report.moments:
        raise UserError(f"{', '.join(map(str, folders))}: no video that can be searched")


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE", help="What is seen or heard.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="SENTENCE", help="Another; may be given repeatedly.")
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A sound, or a video's."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A picture."),
    ] = None,
    _and: Annotated[bool, typer.Option("--and", hidden=True)] = False,  # between inputs, as words
    top: Annotated[
        int, typer.Option(metavar="N", min=1, max=10**6, help="The number of videos.")
    ] = 10,
    audio_weight: Annotated[
        float | None,
        typer.Option(
            metavar="W", min=0, max=1, show_default=False,
            help="How much the sound counts, 0 to 1; the picture counts 1 - W. Default: 0.2 for "
            "sentences, 1 for sounds, 0 for pictures, the mean for several inputs.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    store: Store = STORE,
    model: Model = MODEL,
) -> None:  # fmt: skip
    """Find moments of the indexed videos: trimodal search "an owl hoots".

    Several sentences, sounds and pictures make one query.
    """
    sentences = [*([" ".join(words)] if words else []), *(text or [])]
    if not sentences and not audio and not image:
        raise typer.BadParameter("nothing is asked: give a sentence, --audio or --image",
                                 param_hint="SENTENCE")  # fmt: skip
    check_store(store)
    check_model(model)
    with uncollected():  # LanceDB is imported by the search
        from trimodal.search.api import Trimodal, as_text

        loaded = Trimodal.from_pretrained(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            hits = loaded.search(
                sentences, audio or (), image or (),
                top=top, audio_weight=audio_weight, store=store, exact=True,
            )  # fmt: skip
    for warning in caught:
        show(f"trimodal: {warning.message}", error=True)
    if not hits:
        show("trimodal: nothing is indexed that can be compared with this query", error=True)
    if as_json:
        place = store if "://" in store else str(Path(store).resolve())
        videos = [asdict(hit) | {"path": str(hit.location)} for hit in hits]
        show(json.dumps({"store": place, "hits": videos}, indent=2))
    elif hits:
        show(as_text(hits))


def serve(
    store: Store = STORE,
    model: Model = MODEL,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65_535, help="0: any free one.")
    ] = 8731,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    token: Annotated[
        str | None,
        typer.Option(
            help="The token in the address, instead of a random one; other accounts of this "
            "machine can see a command line."
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let in every account of this machine.")
    ] = False,
) -> None:
    """Serve a page to search with, on this machine only."""
    if no_token and token is not None:
        raise typer.BadParameter("not together with --token", param_hint="--no-token")
    check_store(store)
    check_model(model)
    import webbrowser

    with uncollected():
        from trimodal.core.files import temporary_folder
        from trimodal.search.guard import write_redirect
        from trimodal.search.server import serve as serve_page

    def ready(address: str) -> None:
        show(f"Search your videos at {address} (Ctrl-C stops it)")
        if open_browser:
            webbrowser.open(write_redirect(folder, address))

    end_orderly()
    with temporary_folder() as folder:
        serve_page(str(model), store, port=port, ready=ready, token="" if no_token else token)


def embed(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, help="Videos, sounds and pictures."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", dir_okay=False, help="The file to write.")
    ] = Path("embeddings.parquet"),
    model: Model = MODEL,
    workers: Workers = 2,
) -> None:
    """Write the embeddings of a folder's files to a Parquet file."""
    check_model(model)
    end_orderly()
    from trimodal.search.api import Trimodal
    from trimodal.search.embed_files import embed_files

    report = embed_files(Trimodal.from_pretrained(model), folder, out, workers=workers)
    for path, problem in sorted(report.problems.items()):
        show(f"{path}: {problem}")
    hidden = f", {report.hidden} hidden passed over" if report.hidden else ""
    show(f"{out}: {report.rows} embeddings, {len(report.problems)} with problems{hidden}")
