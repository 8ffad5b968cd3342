"""The model card of a run: what trimodal.models.model_card says of the weights, and beside it the
data, the training and the results, also as the Hub's ``model-index``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from trimodal.models.model_card import RunFacts
from trimodal.models.model_card import model_card as card_of_weights
from trimodal.report.rendering import render
from trimodal.report.results import Results
from trimodal.report.tables import COLUMNS, SEARCHES, Table, searches

Facts = Mapping[str, Any]
_COLUMNS = (*COLUMNS, "MeanR")
_SOURCES = {
    "demo": "the demo's rendered world: drawings and synthetic audio, made by the project itself",
    "files": "clips from a folder or archive of the user's",
    "videos": "videos from a folder or archive of the user's",
    "youtube": "clips from YouTube",
}
# The Hub's names of measures: those in percent are shares there.
_MEASURES = {
    "R@1": "recall_at_1", "R@5": "recall_at_5", "R@10": "recall_at_10", "MedR": "median_rank",
    "top1": "accuracy", "top5": "top_5_accuracy", "mAP": "mean_average_precision",
    "cIoU@0.5": "ciou_at_0.5", "AUC": "auc",
}  # fmt: skip
_NOT_IN_PERCENT = {"MedR"}
_CLASSIFIED = {"sound": "audio", "picture": "image", "video": "video"}


def model_card(model: Facts, params: Facts, results: Results) -> str:
    """Metadata and Markdown, from the model's JSON, params.yaml and what ``evaluate`` wrote."""
    source, captions = params["download"]["source"], params["captions"]
    train, is_demo = params["train"], source == "demo"
    image_folders = [
        captions[name]
        for name in ("coco", "flickr30k")
        if captions[name] and captions[f"{name}_annotations"] != "none"
    ]
    found = list(_results(results))
    measures = {metric["type"] for result in found for metric in result["metrics"]}
    lines, unknown_words = [], ""
    if results.main:
        audit = results.audit
        kept, left_out = (audit[f"videos_seen_in_training_{what}"] for what in ("kept", "left_out"))
        lines = [f"Test videos also seen in training: {kept} kept, {left_out} left out."]
        unknown_words = f"{100 * audit['unknown_word_share']:.1f}%"
    run = RunFacts(
        source=_SOURCES[source],
        is_demo=is_demo,
        captioned=is_demo or bool(image_folders),
        image_folders=image_folders,
        word_vectors=captions["vectors"],
        validation_share=params["extract"]["validation_share"],
        training=f"{train['epochs']} epochs, batches of {train['batch_size']} from each stream, "
        f"Adam at {train['learning_rate']:g}, seed {train['seed']}",
        metrics=_metrics(results, found),
        model_index=found,
        measures=sorted(measures),
        datasets=_datasets(source, captions),
        has_sets=bool(results.metrics),
        lines=lines,
        unknown_words=unknown_words,
    )
    return card_of_weights(model, language=captions["language"], run=run)


def _datasets(source: str, captions: Facts) -> list[str]:
    """The data sets whose own lists were read; a list of the user's has no name."""
    if source == "demo":
        return ["trimodal-demo"]
    names = ["vggsound"] if source in ("files", "youtube") else []
    names += [
        name
        for name in ("coco", "flickr30k")
        if captions[name] and captions[f"{name}_annotations"] in ("official", "karpathy")
    ]
    return names


def _results(results: Results) -> Iterator[dict[str, Any]]:
    """Headline measures of every test set as the entries of a ``model-index``."""
    for name, metrics in results.metrics.items():
        audit = results.audits[name]
        if audit["kind"] == "zero_shot":
            kind = _CLASSIFIED[audit["modality"]]
            task = {"type": f"zero-shot-{kind}-classification", "name": "zero-shot classification"}
            yield _entry(name, task, metrics, ("top1", "top5", "mAP"))
        elif audit["kind"] == "localisation":
            task = {"type": "sound-localisation", "name": "where it sounds in the picture"}
            yield _entry(name, task, metrics["sound"]["half"], ("cIoU@0.5", "AUC"))
        else:
            for search, summary in searches(metrics):
                direction, _, mode = search.partition(", ")
                task = {
                    "type": f"{direction.replace('_', '-')}-retrieval",
                    "name": ", ".join(
                        filter(None, [direction.replace("_", " "), SEARCHES.get(mode, mode)])
                    ),
                }
                yield _entry(name, task, summary, COLUMNS)


def _entry(
    test_set: str, task: dict[str, str], summary: Facts, measures: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "task": task,
        "dataset": {"name": test_set, "type": test_set, "config": task["name"]},
        "metrics": [
            {"type": _MEASURES[measure], "value": _value(summary, measure), "name": measure}
            for measure in measures
            if measure in summary
        ],
    }


def _value(summary: Facts, measure: str) -> float:
    value = float(summary[measure])
    return value if measure in _NOT_IN_PERCENT else round(value / 100, 4)


def _metrics(results: Results, found: list[dict[str, Any]]) -> Markup:
    """The section of results: a table of the videos, another of the other test sets."""
    rows = [
        (
            result["dataset"]["name"], result["task"]["name"],
            ", ".join(f"{metric['name']} {_shown(metric)}" for metric in result["metrics"]),
        )
        for result in found
        if result["dataset"]["name"] != results.main
    ]  # fmt: skip
    others = Table(
        header=("test set", "task", "measures"), rows=rows, left_columns=frozenset({0, 1, 2})
    )
    text = render(
        "model_card_metrics.md.j2",
        videos=_of_videos(results) if results.main else None,
        sets=others if rows else None,
    )
    return Markup(text.strip())  # noqa: S704 - escaped by the template


def _shown(metric: Facts) -> str:
    return f"{metric['value'] * (1 if metric['name'] in _NOT_IN_PERCENT else 100):.1f}"


def _of_videos(results: Results) -> dict[str, Any]:
    """What the card says of the test set of kind text_video."""
    gallery = results.audit["gallery"]
    return {
        "audit": results.audit,
        "metrics": _metric_table(results.retrieval),
        "chance_recall": 100 / gallery,
        "chance_median": (gallery + 1) / 2,
    }


def _metric_table(retrieval: Facts) -> Table:
    summaries = {
        f"text to video, {search}": retrieval["text_to_video"][mode]
        for mode, search in SEARCHES.items()
    }
    summaries |= {name.replace("_", " "): of for name, of in retrieval["directions"].items()}
    rows = [
        (name, *(f"{summary[column]:.1f}" for column in _COLUMNS))
        for name, summary in summaries.items()
    ]
    return Table(header=("", *_COLUMNS), rows=rows)
