"""The model card, README.md of a model's folder: its metadata, which Hugging Face's Hub reads
(https://huggingface.co/docs/hub/model-cards), and what a user of the model must know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from trimodal.core.markdown import markdown_templates

Facts = Mapping[str, Any]
_TAGS = ["audio", "image", "text", "video", "contrastive-learning", "cross-modal-retrieval"]
_WEIGHTS = "weights"  # our own key of the metadata
_TEXT_NETWORKS = {
    "cnn": "a convolutional network over 16 words",
    "mean": "the mean of 16 words",
}
_RESNET = {"resnet18": "ResNet-18"}
# ISO 639-1 codes of the languages that NLTK has stop words of.
_LANGUAGES = {
    "albanian": "sq", "arabic": "ar", "azerbaijani": "az", "basque": "eu", "belarusian": "be",
    "bengali": "bn", "catalan": "ca", "chinese": "zh", "danish": "da", "dutch": "nl",
    "english": "en", "finnish": "fi", "french": "fr", "german": "de", "greek": "el",
    "hebrew": "he", "hungarian": "hu", "indonesian": "id", "italian": "it", "kazakh": "kk",
    "nepali": "ne", "norwegian": "no", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "slovene": "sl", "spanish": "es", "swedish": "sv", "tajik": "tg", "tamil": "ta",
    "turkish": "tr",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a card says of the run that its weights alone do not tell: the ``source`` of the
    videos, whether images were ``captioned``, from which ``image_folders``, the ``word_vectors``,
    the ``training`` in words; Markdown with its ``metrics``, the same as a ``model_index``
    (https://github.com/huggingface/hub-docs/blob/main/modelcard.md) and the names of the
    ``measures``; further ``lines`` about the data; the share of ``unknown_words`` as text, perhaps
    empty; ``datasets`` by the names that the Hub gives them.
    """

    source: str
    is_demo: bool
    captioned: bool
    image_folders: Sequence[str]
    word_vectors: str
    validation_share: float
    training: str
    metrics: Markup
    model_index: Sequence[Facts]
    measures: Sequence[str]
    datasets: Sequence[str]
    has_sets: bool
    lines: Sequence[str] = ()
    unknown_words: str = ""


def model_card(model: Facts, *, language: str | None, run: RunFacts | None = None) -> str:
    """The card, metadata and Markdown, from the model's config.json, the ``language`` of its words
    by NLTK's name (None for a tower's own tokeniser), and what is known of the ``run``.
    """
    code = _LANGUAGES.get(language or "")
    licence = "mit" if run and run.is_demo else "unknown"
    metadata = {
        "license": licence,
        "library_name": "trimodal",
        "pipeline_tag": "feature-extraction",
        "language": [code] if code else None,
        "tags": _TAGS,
        "datasets": list(run.datasets) if run else None,
        "metrics": list(run.measures) if run else None,
        _WEIGHTS: model["weights"],
        "model-index": [{"name": "trimodal", "results": run.model_index}]
        if run and run.model_index
        else None,
    }
    present = {key: value for key, value in metadata.items() if value}
    network = model["model"]
    return _TEMPLATES.get_template("model_card.md.j2").render(
        front_matter=Markup(yaml.safe_dump(present, sort_keys=False)),  # noqa: S704 - YAML
        model=model,
        run=run,
        language=code,
        license=licence,
        audio_backbone=_RESNET.get(network["audio_backbone"], network["audio_backbone"]),
        words_network=_TEXT_NETWORKS.get(network["text_network"]),
    )


_TEMPLATES = markdown_templates("trimodal.models")


def described_weights(card: str) -> str | None:
    """The fingerprint of the weights that a card is about; None if its metadata have none."""
    _, _, rest = card.partition("---\n")
    front_matter, closed, _ = rest.partition("\n---\n")
    try:
        metadata = yaml.safe_load(front_matter) if card.startswith("---\n") and closed else None
    except yaml.YAMLError:
        return None
    weights = metadata.get(_WEIGHTS) if isinstance(metadata, dict) else None
    return weights if isinstance(weights, str) else None
