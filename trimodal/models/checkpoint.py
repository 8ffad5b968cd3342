"""The trained model on disk: one folder with everything that encoding needs; no pickle.

``config.json`` has the metadata, ``model.safetensors`` the weights; ``vocabulary.parquet`` the
words of a text network of words.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trimodal.core.config import SECTION, parse_section
from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.files import read_json, write_bytes, write_json
from trimodal.core.fingerprint import bytes_fingerprint, file_fingerprint, fingerprint
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary, read_vocabulary, write_vocabulary
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.config import ModelConfig
from trimodal.models.networks import (
    TextNet,
    TrimodalNet,
    build_network,
    build_text_network,
    word_vectors,
)
from trimodal.models.preprocessing import AugmentConfig
from trimodal.models.text_input import VocabularyInput
from trimodal.models.towers import OPEN_CLIP, SENTENCE_TRANSFORMERS, Definition

MODEL = "models/trimodal"
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.parquet"
FORMAT = 6
# What a model may ask for, so that a stranger's cannot fill the memory. The authors': 256 px, 128
# mels of 1024 samples at 44.1 kHz, windows of 3 s.
_MAX_FRAME_PX = 4096
_MAX_WIDTH = 1024
_MAX_EMBEDDING_DIM = 2**14
_MAX_TOWER_NUMBER = 2**20  # a tokeniser of many languages has 250,000 words
_MAX_MELS, _MAX_N_FFT, _MAX_RATE_HZ = 1024, 2**16, 400_000
_MAX_WINDOW_COLUMNS = 20_000


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Checkpoint:
    """The metadata needed to use the weights, and their provenance. Images were stored as squares
    of ``frame_px`` before cropping.

    ``text_input`` is the fingerprint of the vocabulary or of the tower's own tokeniser, ``towers``
    what is needed to build the towers of other libraries. ``data`` holds fingerprints of the
    training data, ``code`` that of the training code. The git commit is left out so that the same
    code gives the same bytes in any commit; dvc.lock links the model to its commit. ``weights`` is
    the fingerprint of the weights, empty until they are saved.
    """

    model: ModelConfig
    loss: dict[str, Any]
    mel: MelConfig
    window: WindowConfig
    augment: AugmentConfig
    frame_px: int
    text_input: str
    towers: dict[str, Definition]
    front_end: str
    data: dict[str, str]
    code: str
    epoch: int
    validation_loss: float
    weights: str = field(default="", compare=False)

    @property
    def audio_front_end(self) -> AudioFrontEnd:
        """How audio is turned into the audio network's input."""
        return AudioFrontEnd(mel=self.mel, window=self.window)


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Writes the model's files, each atomically, config.json last. It holds the fingerprints of the
    weights and of itself, so that files that do not belong together and damage are detected. Raises
    OSError where the disk cannot take them.
    """
    if vocabulary is not None:
        write_vocabulary(folder / VOCABULARY, vocabulary)
    # Not save_file: killed, it leaves a temporary file of its own.
    write_bytes(
        folder / WEIGHTS, save({name: tensor.contiguous() for name, tensor in state.items()})
    )
    metadata = {"format": FORMAT, "weights": "", **asdict(checkpoint)}
    metadata |= {"weights": file_fingerprint(folder / WEIGHTS)}
    metadata = json.loads(json.dumps(metadata))  # as it is read, without tuples
    write_json(folder / CONFIG, {"fingerprint": fingerprint(metadata), **metadata})


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads config.json; raises DataError if there is no model, if it has another format, belongs
    to other weights, asks for sizes or an audio front end that cannot be right, or is not as it was
    written.
    """
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder}: no model here ({CONFIG} is missing): run make repro, or name another "
            "folder with --model"
        )
    try:
        return _described(folder, folder / CONFIG)
    except UserError as error:
        raise DataError(
            f"{error}; delete the model and run dvc repro, which makes it again"
        ) from error


def _described(folder: Path, sidecar: Path) -> Checkpoint:
    content = read_json(sidecar)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{sidecar}: not a checkpoint of format {FORMAT}")
    if content.get("weights") != file_fingerprint(folder / WEIGHTS):
        raise DataError(f"{folder / WEIGHTS}: not the weights that {sidecar.name} describes")
    written = content.pop("fingerprint", None)
    found = fingerprint(content)
    del content["format"]
    checkpoint = parse_section(content, str(sidecar), Checkpoint)
    _check_sizes(sidecar, checkpoint)
    _check_towers(sidecar, checkpoint)
    made_by, read_by = checkpoint.front_end, checkpoint.mel.front_end_fingerprint()
    if made_by != read_by:
        raise DataError(
            f"{sidecar}: trained on audio of front end {printable(made_by)}, but its mel gives "
            f"{read_by}"
        )
    if found != written:
        raise DataError(f"{sidecar}: damaged: not as it was written")
    return checkpoint


def _check_sizes(sidecar: Path, checkpoint: Checkpoint) -> None:
    def check(key: str, size: float, limit: int) -> None:
        if not 0 < size <= limit:
            raise DataError(f"{sidecar}: {key} is not in 1 to {limit}: {size}")

    mel = checkpoint.mel
    check("model.width", checkpoint.model.width, _MAX_WIDTH)
    check("model.embedding_dim", checkpoint.model.embedding_dim, _MAX_EMBEDDING_DIM)
    for number in _whole_numbers(checkpoint.towers):
        if number > _MAX_TOWER_NUMBER:
            raise DataError(
                f"{sidecar}: towers: a size is not in 1 to {_MAX_TOWER_NUMBER}: {number}"
            )
    check("frame_px", checkpoint.frame_px, _MAX_FRAME_PX)
    check("augment.crop_px", checkpoint.augment.crop_px, checkpoint.frame_px)
    check("mel.mels", mel.mels, _MAX_MELS)
    check("mel.n_fft", mel.n_fft, _MAX_N_FFT)
    check("mel.sample_rate_hz", mel.sample_rate_hz, _MAX_RATE_HZ)
    columns = checkpoint.window.seconds / mel.hop_seconds
    check("window.seconds / mel.hop_samples", columns, _MAX_WINDOW_COLUMNS)


def _check_towers(sidecar: Path, checkpoint: Checkpoint) -> None:
    """Without a definition a tower would be looked up by its name, on the network, too."""
    model = checkpoint.model
    for tower, name in (("image", model.image_backbone), ("text", model.text_network)):
        if name.startswith((OPEN_CLIP, SENTENCE_TRANSFORMERS)) and not checkpoint.towers.get(tower):
            raise DataError(f"{sidecar}: towers.{tower} is missing")


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(item)
    elif isinstance(value, int):
        yield value


def load_vocabulary(folder: Path, checkpoint: Checkpoint) -> Vocabulary | None:
    """The model's vocabulary; None for a text tower with a tokeniser of its own. Raises DataError
    if it is missing, damaged or not the one used in training.
    """
    if not checkpoint.model.has_vocabulary:
        return None
    path = folder / VOCABULARY
    if not path.is_file():
        raise DataError(f"{path}: missing: the model cannot read words without it")
    vocabulary = read_vocabulary(path)
    _check_text_input(folder, checkpoint, vocabulary.fingerprint)
    return vocabulary


def load_model(
    folder: Path, checkpoint: Checkpoint, vocabulary: Vocabulary | None = None
) -> TrimodalNet:
    """The trained networks in evaluation mode. ``vocabulary`` is the folder's, if it was read.

    Raises DataError if the vocabulary or the tower's tokeniser is not the one used in training, if
    the weights are damaged, not finite or of another model, and if they have been replaced since
    ``checkpoint`` was read; TowerError if a tower's library is missing.
    """
    vocabulary = vocabulary or load_vocabulary(folder, checkpoint)
    weights = _read_weights(folder / WEIGHTS, checkpoint)
    _check_built_sizes(folder, weights, checkpoint, vocabulary)
    network = build_network(_random_start(checkpoint), vocabulary, checkpoint.towers)
    _check_text_input(folder, checkpoint, network.text.tokenise.fingerprint)
    _load_weights(network, folder / WEIGHTS, weights)
    return network.eval()


def load_text_network(
    folder: Path, checkpoint: Checkpoint, vocabulary: Vocabulary | None = None
) -> TextNet:
    """The text network of :func:`load_model` alone, with its errors."""
    vocabulary = vocabulary or load_vocabulary(folder, checkpoint)
    weights = _read_weights(folder / WEIGHTS, checkpoint)
    if not checkpoint.model.has_vocabulary:
        _check_built_sizes(folder, weights, checkpoint, vocabulary)
    config = _random_start(checkpoint)
    network = build_text_network(
        config, word_vectors(config, vocabulary), checkpoint.towers.get("text")
    )
    if vocabulary:
        network.tokenise = VocabularyInput(vocabulary)
    _check_text_input(folder, checkpoint, network.tokenise.fingerprint)
    _load_weights(network, folder / WEIGHTS, weights, "text.")
    return network.eval()


def _random_start(checkpoint: Checkpoint) -> ModelConfig:
    """The config without pretrained weights, which the model's own replace."""
    return replace(
        checkpoint.model, image_weights="none", audio_weights="none", text_weights="none"
    )


def _check_text_input(folder: Path, checkpoint: Checkpoint, found: str) -> None:
    if found != checkpoint.text_input:
        raise DataError(
            f"{folder}: trained with vocabulary or tokeniser {printable(checkpoint.text_input)}, "
            f"but this one is {found}; train again"
        )


def _read_weights(path: Path, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors of the file whose fingerprint ``checkpoint`` holds."""
    content = path.read_bytes()
    if checkpoint.weights and bytes_fingerprint(content) != checkpoint.weights:
        raise DataError(f"{path}: another model than the one that was loaded; load it again")
    try:
        return load(content)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: {printable(str(error))}") from error


def _check_built_sizes(
    folder: Path,
    weights: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    vocabulary: Vocabulary | None,
) -> None:
    """Builds the networks without memory (PyTorch's device ``meta``) and compares their sizes with
    the weights', so that a stranger's config.json cannot fill the memory.
    """
    layers = ("layers", "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    for number in _whole_numbers(
        [part.get(key) for part in _mappings(checkpoint.towers) for key in layers]
    ):
        if number > len(weights):
            raise DataError(
                f"{folder / CONFIG}: towers: {number} layers, but {len(weights)} weights"
            )
    config = _random_start(checkpoint)
    try:
        with torch.device("meta"):
            network = TrimodalNet(config, word_vectors(config, vocabulary), checkpoint.towers)
    except DataError as error:
        raise DataError(f"{folder / CONFIG}: {error}") from error
    for name, tensor in network.state_dict().items():
        stored = weights.get(name)
        if stored is None or stored.shape != tensor.shape:
            found = "missing" if stored is None else f"of shape {tuple(stored.shape)}"
            raise DataError(
                f"{folder / WEIGHTS}: {printable(name)} is {found}, not {tuple(tensor.shape)} as "
                f"{CONFIG} says"
            )


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _mappings(item)


def _load_weights(
    network: nn.Module, path: Path, weights: Mapping[str, Tensor], prefix: str = ""
) -> None:
    """Loads the tensors whose names begin with ``prefix``, without it."""
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            shown = printable(prefix + name)
            raise DataError(f"{path}: {shown} has values that are not finite; train again")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{path}: {printable(' '.join(str(error).split()))}") from error
