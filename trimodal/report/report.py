"""The paper's table with our rows, in Markdown, and the plots beside it."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from trimodal.core.config import read_yaml
from trimodal.core.files import atomic_path, read_json, write_text
from trimodal.core.progress import log
from trimodal.report.comparison_table import comparison_table
from trimodal.report.figures import BLUE, GREY, INK, ORANGE, axes, loss_curves
from trimodal.report.html import report_page
from trimodal.report.model_card import model_card
from trimodal.report.test_set import read_tested

Metrics = dict[str, Any]

# Published figures: paper.md, Evaluation and results (the paper's table 1), on MSR-VTT 1k-A.
_PAPER = (
    ("C+LSTM+SA+FC7", "MSR-VTT, 41.2 h, supervised", 4.2, 12.9, 19.9, 55),
    ("VSE-LSTM", "MSR-VTT, 41.2 h, supervised", 3.8, 12.7, 17.1, 66),
    ("JSFusion", "MSR-VTT, 41.2 h, supervised", 10.2, 31.2, 43.2, 13),
    ("Miech et al.", "HowTo100M, 15 years, self-supervised", 7.5, 21.2, 29.6, 38),
    ("MIL-NCE", "HowTo100M, 15 years, self-supervised", 9.9, 24.0, 32.4, 30),
    ("MMV FAC", "HowTo100M + AudioSet, 16 years", 9.3, 23.0, 31.1, 38),
    ("the paper: simple loss", "VGGSound + COCO + Flickr30k, 550+ h", 5.3, 16.3, 23.6, 52),
    ("the paper: + audio feature", "VGGSound + COCO + Flickr30k, 550+ h", 6.0, 16.6, 25.0, 49),
    ("the paper: + VM-ranking loss", "VGGSound + COCO + Flickr30k, 550+ h", 6.1, 15.8, 24.2, 48),
)
_COLUMNS = ("R@1", "R@5", "R@10", "MedR")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the report is made from; see the ``evaluate`` and ``train`` stages."""

    retrieval: Metrics
    audit: Metrics
    curve: list[dict[str, float]]
    losses: dict[str, list[float]]
    comparison: Metrics


def write_report(
    metrics_dir: Path, model: Path, params: Path, evaluation: Path, av_dir: Path, out_dir: Path
) -> None:
    """Reads the metrics, the checkpoint's JSON, params.yaml, what ``evaluate`` left in
    ``evaluation`` and the shards, and writes ``report.md``, its first table alone as ``table.md``,
    ``report.html``, ``model_card.md``, and the plots ``audio_weight.svg`` and ``training.svg``.
    """
    results = _read(metrics_dir)
    card = model_card(read_json(model), read_yaml(params), results.retrieval, results.audit)
    page = report_page(
        _main_table(results), results.retrieval, results.audit, results.curve, results.losses,
        read_tested(evaluation / "embeddings.parquet", evaluation / "ranks.parquet"), av_dir,
    )  # fmt: skip
    with atomic_path(out_dir) as temporary:
        temporary.mkdir()
        write_text(temporary / "report.md", markdown(results))
        write_text(temporary / "table.md", _main_table(results) + "\n")
        write_text(temporary / "model_card.md", card)
        write_text(temporary / "report.html", page)
        with mpl.rc_context({"svg.hashsalt": "trimodal", "font.size": 10}):
            _save(_plot_audio_weight(results), temporary / "audio_weight.svg")
            losses = loss_curves(results.losses, results.audit["epoch"])
            _save(losses, temporary / "training.svg")
    log.info(f"report: {out_dir / 'report.html'}, report.md, model_card.md; nothing left out")


def _read(metrics_dir: Path) -> Results:
    curves = metrics_dir / "train" / "plots" / "metrics"
    return Results(
        retrieval=json.loads((metrics_dir / "retrieval.json").read_text()),
        audit=json.loads((metrics_dir / "audit.json").read_text()),
        curve=_numbers(metrics_dir / "audio_weight.csv", ","),
        losses={
            part: [row["loss"] for row in _numbers(curves / part / "loss.tsv", "\t")]
            for part in ("train", "val")
        },
        comparison=json.loads((metrics_dir / "comparison.json").read_text()),
    )


def _numbers(path: Path, delimiter: str) -> list[dict[str, float]]:
    with path.open(newline="") as lines:
        return [
            {name: float(value) for name, value in row.items() if name != "timestamp"}
            for row in csv.DictReader(lines, delimiter=delimiter)
        ]


def markdown(results: Results) -> str:
    """The whole report as Markdown."""
    audit = results.audit
    demo = results.retrieval.get("demo")
    parts = [
        "# Text to video retrieval",
        f"Margin: **{audit['margin_mode']}**. Protocol: {audit['protocol']}. Audio weight: "
        f"{audit['audio_weight']:g}. Kept epoch: {audit['epoch']}. "
        f"{audit['queries']} sentences, {audit['gallery']} videos, "
        f"{audit['gallery_without_audio']} of them without sound.",
        "## The paper's table, with our rows",
        _main_table(results),
        "The paper's rows are on MSR-VTT 1k-A (1,000 videos), ours on the test set named in the "
        "row. Rows on different test sets cannot be compared.",
    ]
    if demo and "sound_captions" in demo:
        parts += ["## Sentences that mention a sound", _sound_section(demo["sound_captions"])]
    if results.comparison["runs"] and results.comparison["data"] == audit["data"]:
        parts += [
            "## Variable against fixed margin",
            f"Measured by `make table` on this data at commit {results.comparison['git']}.",
            comparison_table(results.comparison),
        ]
    parts += [
        "## All six directions",
        _table(("direction", *_COLUMNS, "MeanR"), _direction_rows(results.retrieval)),
        "Directions with audio are among the videos that have sound.",
    ]
    if other := results.retrieval.get("other_protocol"):
        parts += [
            "## The other protocol",
            _table(
                ("text to video", *_COLUMNS),
                [(_mode_name(mode), *_values(other[mode])) for mode in ("image", "image_audio")],
            ),
            "`standard` keeps every video and searches a silent one by its image alone; `authors` "
            "leaves silent videos out, which makes the gallery smaller.",
        ]
    parts += [
        "## Audio weight",
        "![R@K by audio weight](audio_weight.svg)",
        "Computed on the test set from the embeddings. It is a diagnosis: a weight chosen here "
        "would be fitted to the test set.",
        "## Training",
        "![Losses by epoch](training.svg)",
        "## Audit",
        _audit_section(audit),
    ]
    return "\n\n".join(parts) + "\n"


def _audit_section(audit: Metrics) -> str:
    facts = [(k.replace("_", " "), _plain(v)) for k, v in audit.items() if k != "geometry"]
    spread = [
        (name, str(of["rows"]), f"{of['effective_rank']:.1f}", f"{of['mean_cosine']:.3f}")
        for name, of in audit["geometry"].items()
    ]
    return "\n\n".join(
        [
            _table(("what", "value"), facts),
            "How much of the space the embeddings use, from rank 1 (all point the same way) up to "
            "its dimensions:",
            _table(("embeddings", "rows", "effective rank", "mean cosine"), spread),
        ]
    )


def _main_table(results: Results) -> str:
    audit, retrieval = results.audit, results.retrieval
    gallery = audit["gallery"]
    demo = retrieval.get("demo")
    test = f"demo world, {gallery}" if demo else f"{gallery} videos"
    chance = [f"{100 * min(1.0, k / gallery):.1f}" for k in (1, 5, 10)]
    rows: list[Sequence[str]] = [
        (name, data, "MSR-VTT, 1000", *(f"{r:.1f}" for r in recalls), str(median))
        for name, data, *recalls, median in _PAPER
    ]
    rows.append(("random", "-", test, *chance, f"{(gallery + 1) / 2:g}"))
    if demo:
        for name, told in (("image", "sees"), ("audio", "hears"), ("both", "sees and hears")):
            oracle = demo["oracle"][name]
            rows.append((f"oracle that {told} everything", "the truth", test, *_values(oracle)))
    ours = retrieval["text_to_video"]
    loss = f"{audit['margin_mode']} margin"
    for mode in ("image", "image_audio"):
        rows.append(
            (f"**ours: {loss}, {_mode_name(mode)}**", "this run", test, *_values(ours[mode]))
        )
    return _table(("method", "training data", "test set", *_COLUMNS), rows)


def _sound_section(heard: Metrics) -> str:
    rows = [(_mode_name(mode), *_values(heard[mode])) for mode in ("image", "image_audio")]
    better = heard["image_audio"]["MeanR"] < heard["image"]["MeanR"]
    verdict = "helps" if better else "does not help"
    return (
        f"{heard['queries']} sentences mention a sound. On these, audio "
        f"**{verdict}** by mean rank ({heard['image']['MeanR']:.1f} without, "
        f"{heard['image_audio']['MeanR']:.1f} with).\n\n"
        + _table(("text to video", *_COLUMNS), rows)
    )


def _direction_rows(retrieval: Metrics) -> list[Sequence[str]]:
    named = dict(retrieval["directions"])
    if "audio_to_image_text" in retrieval:
        named["audio_to_image, helped by text"] = retrieval["audio_to_image_text"]
    return [
        (name.replace("_", " "), *_values(summary), f"{summary['MeanR']:.1f}")
        for name, summary in named.items()
    ]


def _mode_name(mode: str) -> str:
    return {"image": "image alone", "image_audio": "image + audio"}[mode]


def _values(summary: Metrics) -> list[str]:
    return [*(f"{summary[key]:.1f}" for key in _COLUMNS[:3]), f"{summary['MedR']:.3g}"]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---"] + [
        "---" if name in ("training data", "test set") else "---:" for name in head[1:]
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def _plot_audio_weight(results: Results) -> Figure:
    figure, found = axes("Text to video by audio weight", "audio weight", "recall, %")
    weights = [row["audio_weight"] for row in results.curve]
    for key, colour in (("R@10", BLUE), ("R@5", ORANGE), ("R@1", INK)):
        values = [row[key] for row in results.curve]
        found.plot(weights, values, color=colour)
        found.annotate(
            key, (weights[0], values[0]), (-4, 0), textcoords="offset points",
            ha="right", va="center", color=colour,
        )  # fmt: skip
    used = results.audit["audio_weight"]
    found.axvline(used, color=GREY, linewidth=0.8, linestyle=":")
    found.annotate(f"used: {used:g}", (used, 0), (4, 4), textcoords="offset points", color=GREY)
    found.set_xlim(-0.13, 1.0)
    found.set_ylim(bottom=0)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
