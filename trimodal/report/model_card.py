"""What a user of the trained model must know of it: data, parameters, metrics, limits."""

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
_TEXT_NETWORKS = {"cnn": "a convolutional network", "mean": "the mean"}
_COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MeanR")
_DOWNLOADS = {
    "demo": "the demo's rendered world: drawings and synthetic sounds, made by the project itself",
    "files": "clips from a folder or archive of the user's",
    "youtube": "clips from YouTube",
}


def model_card(model: Facts, params: Facts, retrieval: Facts, audit: Facts) -> str:
    """Markdown, from the checkpoint's JSON, params.yaml and what ``evaluate`` wrote."""
    parts = [
        "# Model card",
        "Three networks that take pictures, three-second sounds and sentences to unit vectors of "
        "256 numbers in one space: the larger the dot product, the better two of them fit. Image "
        "and sound were paired by video, image and sentence by people's captions; sentence and "
        "sound never were. Made by `dvc repro`; loaded by `Trimodal.load()`.",
        "## Data",
        _list(_data(model, params, audit)),
        "## Networks and training",
        _list(_training(model, params)),
        "## Metrics",
        f"Zero-shot on {audit['queries']} sentences and {audit['gallery']} test videos "
        f"({audit['gallery_without_audio']} without sound), protocol `{audit['protocol']}`, a "
        f"video's sound counting {audit['audio_weight']:g}:",
        _metrics(retrieval),
        "Chance is R@1 "
        f"{100 / audit['gallery']:.1f} and MedR {(audit['gallery'] + 1) / 2:g}. These are one "
        "run's figures, without an interval: `trimodal experiments table1` has those.",
        "## Limits",
        _list(_limits(params, audit)),
    ]
    return "\n\n".join(parts) + "\n"


def _data(model: Facts, params: Facts, audit: Facts) -> list[str]:
    download, captions, data = params["download"], params["captions"], model["data"]
    demo = download["source"] == "demo"
    pictures = [captions[name] for name in ("coco", "flickr30k") if captions[name]]
    own = "the demo's own" if demo else ", ".join(f"`{folder}`" for folder in pictures)
    return [
        f"Video: {_DOWNLOADS[download['source']]} (fingerprint `{data['av']}`).",
        f"Captioned pictures: {own} (captions `{data['captions']}`, pictures `{data['images']}`).",
        f"Word vectors: `{captions['vectors']}` (vocabulary `{model['vocabulary']}`).",
        f"{params['extract']['validation_share']:.0%} of the training clips were held out, and "
        "chose the epoch.",
        f"Test videos that training had seen too: {audit['videos_seen_in_training_kept']} kept, "
        f"{audit['videos_seen_in_training_left_out']} left out.",
    ]


def _training(model: Facts, params: Facts) -> list[str]:
    network, loss, mel, train = model["model"], model["loss"], model["mel"], params["train"]
    return [
        f"Pictures: {network['image_backbone']}, weights before training: "
        f"{network['image_weights']}; {model['augment']['crop_px']} pixels square.",
        f"Sound: ResNet-18, weights before training: {network['audio_weights']}; a log-mel of "
        f"{mel['mels']} bands from {mel['sample_rate_hz']:,} Hz, {mel['window_seconds']:g} s. Its "
        f"first stage has {network['width']} channels.",
        f"Sentences: {_TEXT_NETWORKS[network['text_network']]} of 16 words, their vectors "
        f"{network['word_vectors']}.",
        "Loss: " + ", ".join(f"{name} {value}" for name, value in loss.items()) + ".",
        f"{train['epochs']} epochs, batches of {train['batch_size']} of each stream, Adam at "
        f"{train['learning_rate']:g}, seed {train['seed']}; epoch {model['epoch']} was kept "
        f"(validation loss {model['validation_loss']:.4f}).",
        f"Weights `{model['weights']}`, training code `{model['code']}`.",
    ]


def _metrics(retrieval: Facts) -> str:
    rows = [
        (f"text to video, {name}", retrieval["text_to_video"][mode])
        for mode, name in (("image", "image alone"), ("image_audio", "image + audio"))
    ]
    rows += [(name.replace("_", " "), summary) for name, summary in retrieval["directions"].items()]
    lines = [f"| | {' | '.join(_COLUMNS)} |", f"|---|{'---:|' * len(_COLUMNS)}"]
    lines += [
        f"| {name} | {' | '.join(f'{of[column]:.1f}' for column in _COLUMNS)} |"
        for name, of in rows
    ]
    return "\n".join(lines)


def _limits(params: Facts, audit: Facts) -> list[str]:
    limits = [
        "Words without a vector count for nothing "
        f"({audit['unknown_word_share']:.1%} of the test's words); so do words behind the 16th, "
        "word order beyond a few neighbours, and everything but the letters a to z.",
        "A moment is one picture and three seconds of sound: what takes longer, or what a still "
        "picture does not show, is not represented.",
        "Scores rank; they are no probabilities, and scores of two models cannot be compared.",
        "It repeats what its data associate, biases of captions included. It was tested for "
        "retrieval alone: no use that decides about people is meant or was tested.",
    ]
    if params["download"]["source"] == "demo":
        limits.insert(0, "It has seen drawings alone: real pictures and sounds are foreign to it.")
    return limits


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
