"""The report as one self-contained HTML page, for light and dark screens, wide and narrow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from trimodal.report.comparison_table import own_comparison
from trimodal.report.evaluated import EvaluatedTestSet, metric_by_audio_weight, space_map
from trimodal.report.examples import ExampleGroup
from trimodal.report.figures import (
    inline_svg,
    loss_curves,
    rank_histogram,
    recall_curves,
    space,
    weight_curves,
)
from trimodal.report.headline import headline, headline_table
from trimodal.report.rendering import render
from trimodal.report.results import Metrics, Results
from trimodal.report.tables import (
    SEARCHES,
    main_table,
    oracle_table,
    sets_table,
    zero_shot_table,
)

_MODALITIES = ("text", "image", "audio")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing and the sentence below it, which may be empty."""

    svg: Markup
    caption: str = ""


def report_page(
    results: Results,
    test_set: EvaluatedTestSet | None,
    facts: Mapping[str, str],
    commit: str,
    examples: Sequence[ExampleGroup] = (),
    sound_maps: Sequence[Markup] = (),
) -> str:
    """HTML from what ``train`` and ``evaluate`` left. ``test_set`` is that of kind text_video, None
    if there is none; ``facts`` identify the run, ``commit`` is the command that prints its commit;
    ``examples`` are of the test set, ``sound_maps`` sections about others.
    """
    losses = Plot(
        svg=inline_svg(
            lambda: loss_curves(results.losses, results.epoch),
            "loss",
            "Loss by epoch, of training and validation, and the selected epoch",
        )
    )
    return render(
        "report.html.j2",
        epoch=results.epoch,
        facts=facts,
        commit=commit,
        videos=_of_videos(results, test_set, losses) if test_set else None,
        examples=examples,
        losses=losses,
        has_sets=bool(results.metrics),
        sets_table=sets_table(results),
        zero_shot_table=zero_shot_table(results),
        sound_maps=sound_maps,
    )


def _of_videos(results: Results, test_set: EvaluatedTestSet, losses: Plot) -> dict[str, Any]:
    """What the template says of the test set of kind text_video."""
    retrieval = results.retrieval
    return {
        "audit": results.audit,
        "headline": headline(results),
        "headline_table": headline_table(results),
        "main_table": main_table(results),
        "comparison": own_comparison(results),
        "comparison_revision": results.comparison["git"],
        "plots": _plots(results, test_set, losses),
        "modalities": _MODALITIES,
        "directions": _direction_matrix(retrieval["directions"]),
        "oracle_table": oracle_table(retrieval) if "demo" in retrieval else None,
        "by_sound": _by_sound(test_set),
    }


def _by_sound(test_set: EvaluatedTestSet) -> dict[str, int]:
    """The numbers of queries of videos with audio, all and those whose true video it moves."""
    with_audio = test_set.has_audio[test_set.truth]
    image, both = (test_set.ranks[search][with_audio] for search in ("image", "image_audio"))
    return {
        "all": len(image), "up": int((both < image).sum()), "down": int((both > image).sum())
    }  # fmt: skip


def _plots(results: Results, test_set: EvaluatedTestSet, losses: Plot) -> list[Plot]:
    weights = [row["audio_weight"] for row in results.audio_weight_curve]
    by_weight = {"all videos": [row["R@10"] for row in results.audio_weight_curve]}
    if test_set.has_audio.sum() >= 2:
        by_weight["videos with audio"] = metric_by_audio_weight(test_set, weights, "R@10")
    ranks = {search: test_set.ranks[mode] for mode, search in SEARCHES.items()}
    videos = len(test_set.videos)
    used = results.audit["audio_weight"]
    return [
        Plot(
            svg=inline_svg(
                lambda: recall_curves(ranks, videos),
                "recall",
                "Share of sentences whose video is among the first K, by K",
            )
        ),
        Plot(
            svg=inline_svg(
                lambda: rank_histogram(ranks, videos),
                "ranks",
                "Number of sentences by the rank of their video",
            )
        ),
        Plot(
            svg=inline_svg(
                lambda: weight_curves(weights, by_weight, used),
                "weight",
                "Recall at 10 by audio weight, of all videos and of those with audio",
            ),
            caption="The audio weight is not chosen here: the weight that is best on the test set "
            "would be fitted to it.",
        ),
        losses,
        Plot(
            svg=inline_svg(
                lambda: space(space_map(test_set)),
                "space",
                "Map of the embeddings of images, audio and sentences",
            ),
            caption="Neighbouring embeddings are similar; distances between groups mean little.",
        ),
    ]


def _direction_matrix(directions: Metrics) -> list[tuple[str, Sequence[float | None]]]:
    """R@10 from each modality to each modality; None where there is no such direction."""
    return [
        (query, [directions.get(f"{query}_to_{item}", {}).get("R@10") for item in _MODALITIES])
        for query in _MODALITIES
    ]
