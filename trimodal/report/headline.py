"""What the report says first: the result in a sentence and a table, and which run it is of."""

from collections.abc import Mapping
from typing import Any

from trimodal.report.results import Results
from trimodal.report.tables import COLUMNS, SEARCHES, Table, with_interval

Facts = Mapping[str, Any]
_PERCENT = "\u00a0%"  # on the number's line


def headline(results: Results) -> str:
    """The main result of the test set of kind text_video, which there must be, in a sentence."""
    audit, searches = results.audit, results.retrieval["text_to_video"]
    gallery = audit["gallery"]
    found = with_interval(searches["image_audio"], "R@10", unit=_PERCENT)
    return (
        f"Of {audit['queries']} sentences, {found} find their video among the first 10 of "
        f"{gallery} by image and audio, {searches['image']['R@10']:.1f}{_PERCENT} by image alone, "
        f"{min(100.0, 1000 / gallery):.1f}{_PERCENT} by chance."
    )


def headline_table(results: Results) -> Table:
    """That test set's measures with their intervals, if there are any, and chance."""
    gallery = results.audit["gallery"]
    rows = [
        (name, *(with_interval(summary, measure) for measure in COLUMNS))
        for mode, name in reversed(SEARCHES.items())
        for summary in [results.retrieval["text_to_video"][mode]]
    ]
    chance = [f"{min(100.0, 100 * k / gallery):.1f}" for k in (1, 5, 10)]
    return Table(
        header=("text to video", *COLUMNS),
        rows=[*rows, ("chance", *chance, f"{(gallery + 1) / 2:g}")],
        our_rows=frozenset({0}),
    )


def run_facts(model: Facts, params: Facts) -> dict[str, str]:
    """What identifies the run, from the checkpoint's JSON and params.yaml: of the code, the data
    and the weights their fingerprints. A commit and a date would not be the same for the same
    inputs; git knows both of the results that it holds (:func:`commit_command`).
    """
    loss, data = model["loss"], model["data"]
    margin = f"{loss['kind']}, {loss['margin_mode']} margin of {loss['margin']:g}"
    return {
        "seed": str(params["train"]["seed"]),
        "loss": loss["kind"] if loss["kind"] == "info_nce" else margin,
        "epoch": f"{model['epoch']} of {params['train']['epochs']}, selected by validation",
        "weights": model["weights"],
        "training code": model["code"],
        "video data": data["av"],
        "captions": data["captions"],
    }


def commit_command(model: Facts) -> str:
    """The command that prints the commit and the date of the model's results."""
    return f"git log --reverse --format='%h %cs' -S{model['weights']} -- metrics | head -1"
