"""The report's tables as data, which the templates render as HTML and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimodal.report.results import Results

Summary = Mapping[str, Any]
COLUMNS = ("R@1", "R@5", "R@10", "MedR")
SEARCHES = {"image": "image alone", "image_audio": "image + audio"}

# Published figures on MSR-VTT 1k-A (the paper's table 1): docs/method.md, Results.
_PUBLISHED = (
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
_MEASURES = ("R@1", "R@5", "R@10", "R@50", "MedR", "MeanR", "MRR", "nDCG@10")
_SEARCH_NAMES = {
    "text_to_video, image": "text to video, image alone",
    "text_to_video, image_audio": "text to video, image + audio",
    "audio_to_image_text": "audio to image, helped by text",
}
_ORACLES = {"image": "sees", "audio": "hears", "both": "sees and hears"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as plain text. ``left_columns`` are aligned left, the others right; ``our_rows`` are
    set in bold. Both hold indices from 0.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_columns: frozenset[int] = frozenset({0})
    our_rows: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raises ValueError for a row with more or fewer cells than the header."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{len(row)} cells in {row}, {len(self.header)} in the header")


def main_table(results: Results) -> Table:
    """The paper's table 1, then chance, the demo's oracles and the rows of this run."""
    audit, retrieval = results.audit, results.retrieval
    gallery, demo = audit["gallery"], retrieval.get("demo")
    test_set = f"demo world, {gallery}" if demo else f"{gallery} videos"
    rows: list[Sequence[str]] = [
        (method, data, "MSR-VTT, 1000", *(f"{recall:.1f}" for recall in recalls), str(median))
        for method, data, *recalls, median in _PUBLISHED
    ]
    chance = [f"{100 * min(1.0, k / gallery):.1f}" for k in (1, 5, 10)]
    rows.append(("random", "-", test_set, *chance, f"{(gallery + 1) / 2:g}"))
    if demo:
        rows += [
            (f"oracle that {senses} everything", "ground truth", test_set,
             *_cells(demo["oracle"][name]))
            for name, senses in _ORACLES.items()
        ]  # fmt: skip
    rows += [
        (f"ours: {audit['margin_mode']} margin, {search}", "this run", test_set,
         *_cells(retrieval["text_to_video"][mode]))
        for mode, search in SEARCHES.items()
    ]  # fmt: skip
    return Table(
        header=("method", "training data", "test set", *COLUMNS),
        rows=rows,
        left_columns=frozenset({0, 1, 2}),
        our_rows=frozenset(range(len(rows) - len(SEARCHES), len(rows))),
    )


def sets_table(results: Results) -> Table | None:
    """Every test set that is searched, in every direction: each measure with its interval, if there
    is one. None without such a set.
    """
    rows = []
    for name, metrics in results.metrics.items():
        audit = results.audits[name]
        for search, summary in searches(metrics):
            size = f"{audit['queries']} / {audit['gallery']}"
            measures = [with_interval(summary, measure) for measure in _MEASURES]
            sums = metrics.get("rsum", {}).get(search.replace("_to_", "_"), {})
            rsum = with_interval(sums, "rsum") if sums else ""
            label = _SEARCH_NAMES.get(search) or search.replace("_", " ")
            rows.append((name, label, size, *measures, rsum))
    if not rows:
        return None
    return Table(
        header=("test set", "search", "queries / items", *_MEASURES, "rsum"),
        rows=rows,
        left_columns=frozenset({0, 1, 2}),
    )


def zero_shot_table(results: Results) -> Table | None:
    """The test sets of kind zero_shot; None without one."""
    rows = []
    for name in results.of_kind("zero_shot"):
        metrics, audit = results.metrics[name], results.audits[name]
        unknown = len(audit["unknown_classes"])
        classes = f"{audit['classes']} ({unknown} unknown)" if unknown else str(audit["classes"])
        measures = [_accuracy(metrics, measure) for measure in ("top1", "top5", "mAP")]
        probe = _accuracy(metrics.get("linear_probe", {}), "accuracy")
        rows.append((name, audit["modality"], str(audit["items"]), classes, *measures, probe))
    if not rows:
        return None
    return Table(
        header=(
            "test set", "modality", "items", "classes", "top-1", "top-5", "mAP", "linear probe",
        ),
        rows=rows,
        left_columns=frozenset({0, 1}),
    )  # fmt: skip


def _accuracy(metrics: Summary, measure: str) -> str:
    """'12.5 (8.0..17.0)', '' without the measure."""
    if measure not in metrics:
        return ""
    value, low, high = (metrics[f"{measure}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.1f} ({low:.1f}..{high:.1f})"


def searches(metrics: Summary) -> list[tuple[str, Summary]]:
    """The summaries of a test set's metrics by name, but those of parts and of other protocols."""
    found: list[tuple[str, Summary]] = []
    for name, value in metrics.items():
        if name in ("demo", "other_protocol", "all_items") or not isinstance(value, Mapping):
            continue
        if "R@1" in value:
            found.append((name, value))
        elif name == "directions":
            found += value.items()
        else:
            found += [
                (f"{name}, {part}", of)
                for part, of in value.items()
                if isinstance(of, Mapping) and "R@1" in of
            ]
    return found


def with_interval(summary: Summary, measure: str, *, unit: str = "") -> str:
    """'12.5 (8.0..17.0)'; without an interval '12.5', without the measure ''."""
    if measure not in summary:
        return ""
    value = f"{summary[measure]:.1f}{unit}"
    if measure not in summary.get("intervals", {}):
        return value
    low, high = summary["intervals"][measure]
    return f"{value} ({low:.1f}..{high:.1f})"


def search_table(by_search: Summary) -> Table:
    """Text-to-video metrics of either search: summaries by ``image`` and ``image_audio``."""
    rows = [(search, *_cells(by_search[mode])) for mode, search in SEARCHES.items()]
    return Table(header=("text to video", *COLUMNS), rows=rows)


def direction_table(retrieval: Summary) -> Table:
    """Metrics of each retrieval direction."""
    summaries = dict(retrieval["directions"])
    if "audio_to_image_text" in retrieval:
        summaries["audio_to_image, helped by text"] = retrieval["audio_to_image_text"]
    rows = [
        (direction.replace("_", " "), *_cells(summary), f"{summary['MeanR']:.1f}")
        for direction, summary in summaries.items()
    ]
    return Table(header=("direction", *COLUMNS, "MeanR"), rows=rows)


def oracle_table(retrieval: Summary) -> Table:
    """The demo's oracles, each followed by the model's search with the same modalities."""
    oracle, model = retrieval["demo"]["oracle"], retrieval["text_to_video"]
    summaries = {
        "oracle that sees everything": oracle["image"],
        "model, image alone": model["image"],
        "oracle that sees and hears everything": oracle["both"],
        "model, image + audio": model["image_audio"],
    }
    columns = (*COLUMNS, "MeanR")
    rows = [
        (name, *(f"{summary[column]:.1f}" for column in columns))
        for name, summary in summaries.items()
    ]
    return Table(header=("system", *columns), rows=rows)


def audit_table(audit: Summary) -> Table:
    """Every entry of the audit except the geometry, which :func:`geometry_table` has."""
    rows = [
        (name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in audit.items()
        if name != "geometry"
    ]
    return Table(header=("quantity", "value"), rows=rows)


def geometry_table(audit: Summary) -> Table:
    """How much of the embedding space each modality uses."""
    rows = [
        (modality, str(of["rows"]), f"{of['effective_rank']:.1f}", f"{of['mean_cosine']:.3f}")
        for modality, of in audit["geometry"].items()
    ]
    return Table(header=("embeddings", "rows", "effective rank", "mean cosine"), rows=rows)


def _cells(summary: Summary) -> list[str]:
    return [*(f"{summary[column]:.1f}" for column in COLUMNS[:3]), f"{summary['MedR']:.3g}"]
