"""The command line, ``trimodal``. Each subcommand imports what it needs."""

import argparse
import json
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from trimodal.core.arguments import Distinct, seed_number
from trimodal.core.console import show, show_traceback
from trimodal.core.errors import UserError
from trimodal.core.runtime import uncollected

MODEL = "models/trimodal"
STORE = "data/search"
AV, CAPTIONS, IMAGES = "data/av", "data/captions", "data/images"


def main() -> None:
    """Runs a subcommand; errors a user can fix are one line on standard error, with exit code 1."""
    parser = argparse.ArgumentParser(prog="trimodal", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scale = commands.add_parser("scale", help="apply overlays of params/ to params.yaml")
    scale.add_argument(
        "names", nargs="*", metavar="NAME",
        help="overlays, applied in this order: the name of a file in params/ without .yaml",
    )  # fmt: skip
    scale.add_argument("--list", action="store_true", help="show the overlays and what they are")
    compare = commands.add_parser(
        "compare", help="compare the metrics of two revisions, with significance"
    )
    for name in ("first", "second"):
        compare.add_argument(name, help="a commit, a DVC experiment, or workspace")
    compare.add_argument("--test-set", metavar="NAME", help="one of evaluate.sets")
    experiments = commands.add_parser(
        "experiments", help="run a series of DVC experiments and compare them"
    )
    experiments.add_argument("series", metavar="FILE", help="a YAML file, or the name of one in "
                             "experiments/; table1: the paper's comparison")  # fmt: skip
    experiments.add_argument("--seeds", type=seed_number, nargs="+", action=Distinct,
                             help="instead of the file's")  # fmt: skip
    commands.add_parser("doctor", help="check what is missing and estimate what each stage takes")
    _add_sentences(commands)
    _add_search(commands)
    _add_export(commands)
    args = parser.parse_args()
    sys.excepthook = show_traceback
    try:
        if args.command == "scale":
            _scale(args.names, show_list=args.list)
        elif args.command == "doctor":
            _doctor()
        elif args.command == "compare":
            _compare(args.first, args.second, args.test_set)
        elif args.command == "experiments":
            _experiments(args.series, args.seeds)
        elif args.command == "sentences":
            _sentences(args)
        elif args.command == "index":
            _index(args)
        elif args.command == "search":
            _search(args)
        elif args.command == "serve":
            _serve(args)
        elif args.format == "onnx":
            _export_onnx(args)
        else:
            _export_pairs(args)
    except UserError as error:
        show(f"trimodal: {error}", error=True)
        sys.exit(1)
    except OSError as error:
        from trimodal.core.progress import advice

        what = advice(error, "run it again")
        show(f"trimodal: {error}{'' if what == 'run it again' else f'; {what}'}", error=True)
        sys.exit(1)
    except KeyboardInterrupt:
        show("trimodal: interrupted", error=True)
        sys.exit(130)


def _add_sentences(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sentences = commands.add_parser(
        "sentences", help="add the sentences of a video data set's official file to a list"
    )
    sentences.add_argument(
        "form", choices=["msrvtt", "msvd", "vatex", "didemo", "lsmdc", "vggsound"]
    )
    sentences.add_argument("annotations", type=Path, help="in: the official file")
    sentences.add_argument("list", type=Path, help="out: a CSV of video_id and sentence")
    sentences.add_argument("--videos", type=Path, help="in: only these, a name a line")


def _add_search(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    model = _model_arguments()
    model.add_argument("--store", default=STORE, help="the index, a folder or a URL of an object "
                       "store; default: %(default)s")  # fmt: skip
    index = commands.add_parser(
        "index", parents=[model], help="index the new and changed videos of a folder"
    )
    index.add_argument("folder")
    index.add_argument("--workers", type=_between(1, 1000), default=2)
    index.add_argument(
        "--rebuild", action="store_true", help="delete the index first, damaged or not"
    )
    search = commands.add_parser(
        "search", parents=[model], help="retrieve moments of the indexed videos",
        description="Several --text, --audio and --image form one query.",
    )  # fmt: skip
    search.add_argument("--text", action="append", default=[], metavar="SENTENCE")
    search.add_argument("--audio", action="append", default=[], metavar="FILE")
    search.add_argument("--image", action="append", default=[], metavar="FILE")
    search.add_argument(
        "--and", action="store_true", help="may be written between them; has no effect"
    )
    search.add_argument(
        "--top", type=_between(1, 10**6), default=10, help="number of videos; default: %(default)s"
    )
    search.add_argument(
        "--audio-weight",
        type=float,
        metavar="W",
        help="of the audio, 0 to 1; the frame's is 1 - W; default: 0.2 for text, 1 for audio, 0 "
        "for images, the mean for several inputs",
    )
    search.add_argument("--json", action="store_true")
    serve = commands.add_parser(
        "serve", parents=[model], help="serve a search page on this machine"
    )
    serve.add_argument("--port", type=_between(0, 65_535), default=8731)
    serve.add_argument("--open", action="store_true", help="open it in the browser")
    token = serve.add_mutually_exclusive_group()
    token.add_argument("--token", help="the token in the address, instead of a random one; other "
                       "accounts of this machine can see a command line")  # fmt: skip
    token.add_argument("--no-token", dest="token", action="store_const", const="",
                       help="serve every account of this machine")  # fmt: skip


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in {least} to {most}")
        return int(text)

    return number


def _model_arguments() -> argparse.ArgumentParser:
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default=MODEL, help="its folder; default: %(default)s")
    return model


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write the model or its data for other tools")
    formats = export.add_subparsers(dest="format", required=True)
    onnx = formats.add_parser(
        "onnx", parents=[_model_arguments()], help="write the three encoders as ONNX files"
    )
    onnx.add_argument("folder", type=Path)
    pairs = formats.add_parser(
        "pairs",
        help="write image-audio and image-text pairs as Parquet files for Hugging Face datasets",
    )
    pairs.add_argument("folder", help="a new or empty folder")
    pairs.add_argument("--params", type=Path, default=Path("params.yaml"),
                       help="sections mel, window and machine; default: %(default)s")  # fmt: skip
    pairs.add_argument(
        "--av", default=AV, help="clip shards, a folder or URL; default: %(default)s"
    )
    pairs.add_argument("--captions", type=Path, default=CAPTIONS, help="default: %(default)s")
    pairs.add_argument(
        "--images", default=IMAGES, help="image shards, as --av; default: %(default)s"
    )
    pairs.add_argument("--frames-per-clip", type=_positive, metavar="N",
                       help="evenly spaced; default: all whose window fits")  # fmt: skip


def _sentences(args: argparse.Namespace) -> None:
    from trimodal.sources.video_lists import write_video_list

    videos, sentences, left_out = write_video_list(
        args.form, args.annotations, args.list, videos=args.videos
    )
    counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing"
    show(f"{args.list}: added {sentences} sentences of {videos} videos; {counts} left out")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _index(args: argparse.Namespace) -> None:
    from trimodal.search.api import Trimodal

    _end_orderly()
    report = Trimodal.load(args.model).index(
        args.folder, args.store, workers=args.workers, rebuild=args.rebuild
    )
    for path, problem in sorted(report.problems.items()):
        show(f"{path}: {problem}")
    hidden = f", {report.hidden} hidden passed over" if report.hidden else ""
    show(
        f"{report.moments} moments; videos: {report.added} new, {report.changed} changed, "
        f"{report.kept} unchanged, {report.dropped} deleted, {len(report.problems)} with problems"
        f"{hidden}"
    )
    if report.unread:
        raise UserError(f"{report.unread} could not be read; index again when they can be")
    if not report.moments:
        raise UserError(f"{args.folder}: no video that can be searched")


def _end_orderly() -> None:
    """Makes the end by SIGTERM remove temporary files, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _search(args: argparse.Namespace) -> None:
    with uncollected():  # LanceDB is imported by the search
        from trimodal.search.api import Trimodal, as_text

        model = Trimodal.load(args.model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            hits = model.search(
                args.text, args.audio, args.image,
                top=args.top, audio_weight=args.audio_weight, store=args.store, exact=True,
            )  # fmt: skip
    for warning in caught:
        show(f"trimodal: {warning.message}", error=True)
    if not hits:
        show("trimodal: nothing is indexed that can be compared with this query", error=True)
    show(json.dumps([asdict(hit) for hit in hits], indent=2) if args.json else as_text(hits))


def _serve(args: argparse.Namespace) -> None:
    import webbrowser

    with uncollected():
        from trimodal.core.files import temporary_folder
        from trimodal.search.guard import write_redirect
        from trimodal.search.server import serve

    def ready(address: str) -> None:
        show(f"Search your videos at {address} (Ctrl-C stops it)")
        if args.open:
            webbrowser.open(write_redirect(folder, address))

    _end_orderly()
    with temporary_folder() as folder:
        serve(args.model, args.store, port=args.port, ready=ready, token=args.token)


def _export_onnx(args: argparse.Namespace) -> None:
    from trimodal.search.encoder import Encoder
    from trimodal.search.export import export_encoders

    _end_orderly()
    model = Encoder.load(args.model, device="cpu")
    for exported in export_encoders(model, args.folder):
        path = args.folder / exported.file
        show(f"{path}: differs from PyTorch by at most {exported.difference:.0e}")


def _export_pairs(args: argparse.Namespace) -> None:
    from trimodal.core.config import load_section
    from trimodal.core.machine import MachineConfig
    from trimodal.core.storage import storage_path
    from trimodal.data.export_pairs import ShardFolders, export_pairs
    from trimodal.media.mel import MelConfig
    from trimodal.media.windows import AudioFrontEnd, WindowConfig

    configurations = export_pairs(
        storage_path(args.folder),
        ShardFolders(
            av=storage_path(args.av), captions=args.captions, images=storage_path(args.images)
        ),
        AudioFrontEnd(
            mel=load_section(args.params, "mel", MelConfig),
            window=load_section(args.params, "window", WindowConfig),
        ),
        load_section(args.params, "machine", MachineConfig).shard_cache,
        frames_per_clip=args.frames_per_clip,
    )
    for configuration in configurations:
        rows = ", ".join(f"{split} {rows}" for split, rows in configuration.splits.items())
        left_out = f"; left out: {configuration.left_out}" if configuration.left_out else ""
        show(f"{args.folder}/{configuration.name}: {rows} pairs{left_out}")


def _scale(names: list[str], *, show_list: bool) -> None:
    from trimodal.overlay import apply_overlay, find_overlay, list_overlays

    folder = Path("params")
    if show_list:
        overlays = list_overlays(folder)
        width = max(map(len, overlays), default=0)
        for name, what in overlays.items():
            show(f"{name:{width}}  {what}")
        return
    if not names:
        raise UserError("which overlay? trimodal scale --list shows them")
    paths = [find_overlay(folder, name) for name in names]
    changed = apply_overlay(Path("params.yaml"), *paths)
    for key, (before, after) in changed.items():
        show(f"{key}: {before} -> {after}")
    show(f"applied {', '.join(map(str, paths))}: {len(changed)} values changed")


def _doctor() -> None:
    from trimodal.doctor import diagnose, format_diagnosis

    diagnosis = diagnose(Path("params.yaml"))
    show(format_diagnosis(diagnosis))
    if not diagnosis.healthy:
        sys.exit(1)


def _compare(first: str, second: str, test_set: str | None) -> None:
    from trimodal.report.experiments import compare_revisions

    show(compare_revisions(first, second, test_set))


def _experiments(name: str, seeds: list[int] | None) -> None:
    from trimodal.report.experiments import run_series
    from trimodal.report.series import find_series

    show(run_series(find_series(name), seeds))


if __name__ == "__main__":
    main()
