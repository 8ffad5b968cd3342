"""The report's plots, as SVG. Text and lines have the page's colour, light or dark."""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY = "#24292f", "#8c959f"
BLUE, ORANGE, GREEN = "#3b82f6", "#e0701a", "#10a37f"
_COLOURS = {"image": BLUE, "audio": ORANGE, "text": GREEN}
_LABELS = {"image": "images", "audio": "audio", "text": "sentences"}


def axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the report's style."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    ax = figure.add_subplot()
    ax.set_title(title, loc="left")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    return figure, ax


def recall_curves(ranks: Mapping[str, npt.NDArray[np.float64]], gallery: int) -> Figure:
    """The share of queries whose video is among the first K, by K on a logarithmic scale."""
    figure, ax = axes("Recall by K", "K", "recall, %")
    ks = np.arange(1, gallery + 1)
    for (name, values), colour in zip(ranks.items(), (BLUE, ORANGE), strict=False):
        shares = np.searchsorted(np.sort(values), ks, side="right") / len(values)
        ax.plot(ks, 100 * shares, color=colour, label=name)
    ax.plot(ks, 100 * ks / gallery, color=GREY, linestyle=":", label="chance")
    ax.set_xscale("log")
    ax.set_ylim(0, 100)
    ax.legend(frameon=False, loc="lower right")
    return figure


def rank_histogram(ranks: Mapping[str, npt.NDArray[np.float64]], gallery: int) -> Figure:
    """The number of queries by rank, in bins that double in width."""
    figure, ax = axes("Ranks of the true videos", "rank", "queries")
    edges = 2.0 ** np.arange(np.ceil(np.log2(gallery)) + 2) - 0.5
    middles = np.arange(len(edges) - 1)
    for number, ((name, values), colour) in enumerate(
        zip(ranks.items(), (BLUE, ORANGE), strict=False)
    ):
        counts = np.histogram(values, np.maximum(edges, 0.5))[0]
        ax.bar(middles + 0.4 * number - 0.2, counts, 0.4, color=colour, label=name)
    labels = [
        f"{int(low + 0.5)}" if high - low <= 1 else f"{int(low + 0.5)}-{int(high - 0.5)}"
        for low, high in pairwise(edges)
    ]
    ax.set_xticks(middles, labels, rotation=30)
    ax.legend(frameon=False)
    return figure


def weight_curves(
    weights: Sequence[float], curves: Mapping[str, Sequence[float]], used: float
) -> Figure:
    """R@10 by audio weight, for all videos and for those with audio."""
    figure, ax = axes("R@10 by audio weight", "audio weight", "R@10, %")
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=False):
        ax.plot(weights, values, color=colour, label=name)
    ax.axvline(used, color=GREY, linewidth=1.4, linestyle=":", label=f"used: {used:g}")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return figure


def recall_by_audio_weight(curve: Sequence[Mapping[str, float]], used: float) -> Figure:
    """R@1, R@5 and R@10 of text to video by audio weight: rows of ``audio_weight.csv``."""
    figure, ax = axes("Text to video by audio weight", "audio weight", "recall, %")
    weights = [row["audio_weight"] for row in curve]
    for metric, colour in (("R@10", BLUE), ("R@5", ORANGE), ("R@1", INK)):
        values = [row[metric] for row in curve]
        ax.plot(weights, values, color=colour)
        ax.annotate(
            metric, (weights[0], values[0]), (-4, 0), textcoords="offset points",
            ha="right", va="center", color=colour,
        )  # fmt: skip
    ax.axvline(used, color=GREY, linewidth=0.8, linestyle=":")
    ax.annotate(f"used: {used:g}", (used, 0), (4, 4), textcoords="offset points", color=GREY)
    ax.set_xlim(-0.13, 1.0)
    ax.set_ylim(bottom=0)
    return figure


def loss_curves(losses: Mapping[str, Sequence[float]], selected: int) -> Figure:
    """Loss by epoch, and the epoch that validation selected."""
    figure, ax = axes("Loss by epoch, sum of both streams", "epoch", "loss")
    for part, colour in (("train", INK), ("val", BLUE)):
        ax.plot(range(1, len(losses[part]) + 1), losses[part], color=colour, label=part)
    ax.axvline(selected, color=GREY, linewidth=1.4, linestyle=":", label="selected")
    ax.legend(frameon=False)
    ax.set_ylim(bottom=0)
    return figure


def space(layout: Mapping[str, npt.NDArray[np.float64]]) -> Figure:
    """The embedding space in the plane, coloured by modality."""
    figure, ax = axes("Embedding space (t-SNE)", "", "")
    for name, positions in layout.items():
        x, y = positions.T
        ax.scatter(x, y, s=9, color=_COLOURS[name], alpha=0.75, linewidths=0, label=_LABELS[name])
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=2)
    return figure


def inline_svg(draw: Callable[[], Figure], name: str, label: str) -> Markup:
    """An SVG element for an HTML page, which screen readers announce as ``label``: its text stays
    text, and INK becomes ``currentColor``.
    """
    style: dict[Any, Any] = {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10}
    style |= dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context(style):
        content = io.StringIO()
        draw().savefig(
            content, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = content.getvalue()
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    element = element.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    return Markup(element)  # noqa: S704 - Matplotlib escapes the text that it draws
