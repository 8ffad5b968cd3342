"""The reports' drawings, as SVG. Ink is the page's own colour: they live in light and in dark."""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY = "#24292f", "#8c959f"
BLUE, ORANGE, GREEN = "#3b82f6", "#e0701a", "#10a37f"
_COLOURS = {"image": BLUE, "audio": ORANGE, "text": GREEN}
_PLURALS = {"image": "pictures", "audio": "sounds", "text": "sentences"}


def axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure with one set of axes in the house's style."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    found = figure.add_subplot()
    found.set_title(title, loc="left")
    found.set_xlabel(xlabel)
    found.set_ylabel(ylabel)
    found.spines[["top", "right"]].set_visible(False)
    found.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    return figure, found


def recall_curves(ranks: Mapping[str, npt.NDArray[np.float64]], gallery: int) -> Figure:
    """The share of queries whose video is among the first K, by K on a logarithmic scale."""
    figure, found = axes("Recall by K", "K", "recall, %")
    places = np.arange(1, gallery + 1)
    for (name, of), colour in zip(ranks.items(), (BLUE, ORANGE), strict=False):
        shares = np.searchsorted(np.sort(of), places, side="right") / len(of)
        found.plot(places, 100 * shares, color=colour, label=name)
    found.plot(places, 100 * places / gallery, color=GREY, linestyle=":", label="chance")
    found.set_xscale("log")
    found.set_ylim(0, 100)
    found.legend(frameon=False, loc="lower right")
    return figure


def rank_histogram(ranks: Mapping[str, npt.NDArray[np.float64]], gallery: int) -> Figure:
    """How many queries have which rank, in bins that double."""
    figure, found = axes("Ranks of the true videos", "rank", "queries")
    edges = 2.0 ** np.arange(np.ceil(np.log2(gallery)) + 2) - 0.5
    middles = np.arange(len(edges) - 1)
    for number, ((name, of), colour) in enumerate(zip(ranks.items(), (BLUE, ORANGE), strict=False)):
        counts = np.histogram(of, np.maximum(edges, 0.5))[0]
        found.bar(middles + 0.4 * number - 0.2, counts, 0.4, color=colour, label=name)
    labels = [
        f"{int(low + 0.5)}" if high - low <= 1 else f"{int(low + 0.5)}-{int(high - 0.5)}"
        for low, high in pairwise(edges)
    ]
    found.set_xticks(middles, labels, rotation=30)
    found.legend(frameon=False)
    return figure


def weight_curves(
    weights: Sequence[float], curves: Mapping[str, Sequence[float]], used: float
) -> Figure:
    """R@10 by audio weight, for all videos and for those that have sound."""
    figure, found = axes("R@10 by audio weight", "audio weight", "R@10, %")
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=False):
        found.plot(weights, values, color=colour, label=name)
    found.axvline(used, color=GREY, linewidth=0.8, linestyle=":", label=f"used: {used:g}")
    found.set_ylim(bottom=0)
    found.legend(frameon=False)
    return figure


def loss_curves(losses: Mapping[str, Sequence[float]], kept: int) -> Figure:
    """Loss by epoch, and the epoch that was kept."""
    figure, found = axes("Loss by epoch, both streams added", "epoch", "loss")
    for part, colour in (("train", INK), ("val", BLUE)):
        found.plot(range(1, len(losses[part]) + 1), losses[part], color=colour, label=part)
    found.axvline(kept, color=GREY, linewidth=0.8, linestyle=":", label="kept")
    found.legend(frameon=False)
    found.set_ylim(bottom=0)
    return figure


def space(layout: Mapping[str, npt.NDArray[np.float64]]) -> Figure:
    """The joint space in the plane, coloured by modality."""
    figure, found = axes("The joint space (t-SNE)", "", "")
    for name, points in layout.items():
        x, y = points.T
        found.scatter(
            x, y, s=9, color=_COLOURS[name], alpha=0.75, linewidths=0, label=_PLURALS[name]
        )
    found.set_xticks([])
    found.set_yticks([])
    found.spines[["left", "bottom"]].set_visible(False)
    found.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def inline_svg(draw: Callable[[], Figure], name: str) -> str:
    """An SVG element for an HTML page: text is text, ink is ``currentColor``, nothing around it."""
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
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
