"""The report as one self-contained HTML page, for light and dark screens, wide and narrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trimodal.report.evaluated import EvaluatedTestSet, examples, metric_by_audio_weight, space_map
from trimodal.report.figures import (
    inline_svg,
    loss_curves,
    rank_histogram,
    recall_curves,
    space,
    weight_curves,
)
from trimodal.report.rendering import render
from trimodal.report.results import Metrics, Results
from trimodal.report.tables import (
    SEARCHES,
    main_table,
    oracle_table,
    sets_table,
    zero_shot_table,
)

_EXAMPLES = 10
_MODALITIES = ("text", "image", "audio")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing and the sentence below it, which may be empty."""

    svg: Markup
    caption: str = ""


def report_page(
    results: Results,
    test_set: EvaluatedTestSet | None,
    av_dir: Path,
    sound_maps: Sequence[Markup] = (),
) -> str:
    """HTML from what ``train`` and ``evaluate`` left, with images from the shards. ``test_set`` is
    that of kind text_video, None if there is none; ``sound_maps`` are sections about others.
    """
    losses = Plot(svg=inline_svg(lambda: loss_curves(results.losses, results.epoch), "loss"))
    return render(
        "report.html.j2",
        epoch=results.epoch,
        videos=_of_videos(results, test_set, av_dir, losses) if test_set else None,
        losses=losses,
        has_sets=bool(results.metrics),
        sets_table=sets_table(results),
        zero_shot_table=zero_shot_table(results),
        sound_maps=sound_maps,
    )


def _of_videos(
    results: Results, test_set: EvaluatedTestSet, av_dir: Path, losses: Plot
) -> dict[str, Any]:
    """What the template says of the test set of kind text_video."""
    audit, retrieval = results.audit, results.retrieval
    shown = examples(test_set, av_dir, audit["audio_weight"], _EXAMPLES)
    best = shown[: (len(shown) + 1) // 2]
    return {
        "audit": audit,
        "main_table": main_table(results),
        "plots": _plots(results, test_set, losses),
        "modalities": _MODALITIES,
        "directions": _direction_matrix(retrieval["directions"]),
        "oracle_table": oracle_table(retrieval) if "demo" in retrieval else None,
        "best": best,
        "worst": shown[len(best) :][::-1],
    }


def _plots(results: Results, test_set: EvaluatedTestSet, losses: Plot) -> list[Plot]:
    weights = [row["audio_weight"] for row in results.audio_weight_curve]
    by_weight = {"all videos": [row["R@10"] for row in results.audio_weight_curve]}
    if test_set.has_audio.sum() >= 2:
        by_weight["videos with audio"] = metric_by_audio_weight(test_set, weights, "R@10")
    ranks = {search: test_set.ranks[mode] for mode, search in SEARCHES.items()}
    videos = len(test_set.videos)
    used = results.audit["audio_weight"]
    return [
        Plot(svg=inline_svg(lambda: recall_curves(ranks, videos), "recall")),
        Plot(svg=inline_svg(lambda: rank_histogram(ranks, videos), "ranks")),
        Plot(
            svg=inline_svg(lambda: weight_curves(weights, by_weight, used), "weight"),
            caption="The audio weight is not chosen here: the weight that is best on the test set "
            "would be fitted to it.",
        ),
        losses,
        Plot(
            svg=inline_svg(lambda: space(space_map(test_set)), "space"),
            caption="Neighbouring embeddings are similar; distances between groups mean little.",
        ),
    ]


def _direction_matrix(directions: Metrics) -> list[tuple[str, Sequence[float | None]]]:
    """R@10 from each modality to each modality; None where there is no such direction."""
    return [
        (query, [directions.get(f"{query}_to_{item}", {}).get("R@10") for item in _MODALITIES])
        for query in _MODALITIES
    ]
