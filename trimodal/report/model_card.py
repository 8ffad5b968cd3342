"""The model card: what a user of the trained model must know of its data, training and limits."""

from collections.abc import Mapping
from typing import Any

from trimodal.report.rendering import render
from trimodal.report.results import Results
from trimodal.report.tables import COLUMNS, SEARCHES, Table

Facts = Mapping[str, Any]
_TEXT_NETWORKS = {
    "cnn": "a convolutional network over 16 words",
    "mean": "the mean of 16 words",
}
_RESNET = {"resnet18": "ResNet-18"}
_COLUMNS = (*COLUMNS, "MeanR")
_SOURCES = {
    "demo": "the demo's rendered world: drawings and synthetic audio, made by the project itself",
    "files": "clips from a folder or archive of the user's",
    "videos": "videos from a folder or archive of the user's",
    "youtube": "clips from YouTube",
}


def model_card(model: Facts, params: Facts, results: Results) -> str:
    """Markdown, from the checkpoint's JSON, params.yaml and what ``evaluate`` wrote."""
    source, captions = params["download"]["source"], params["captions"]
    network = model["model"]
    return render(
        "model_card.md.j2",
        model=model,
        train=params["train"],
        videos=_of_videos(results) if results.main else None,
        has_sets=bool(results.metrics),
        is_demo=source == "demo",
        source=_SOURCES[source],
        image_folders=[captions[name] for name in ("coco", "flickr30k") if captions[name]],
        word_vectors=captions["vectors"],
        validation_share=params["extract"]["validation_share"],
        audio_backbone=_RESNET.get(network["audio_backbone"], network["audio_backbone"]),
        words_network=_TEXT_NETWORKS.get(network["text_network"]),
    )


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
