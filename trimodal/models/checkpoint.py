"""The trained model on disk: one folder with everything that encoding needs; no pickle.

``config.json`` has the metadata, ``model.safetensors`` the weights; ``vocabulary.parquet`` the
words of a text network of words; ``README.md`` the model card.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trimodal.core.config import SECTION, parse_section
from trimodal.core.display import printable
from trimodal.core.errors import UserError
from trimodal.core.files import read_json, write_bytes, write_json
from trimodal.core.fingerprint import file_fingerprint, fingerprint
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary, read_vocabulary, write_vocabulary
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.checkpoint_checks import check_built_sizes, check_sizes, check_towers
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
from trimodal.models.towers import Definition

MODEL = "models/trimodal"
CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.parquet"
CARD = "README.md"  # trimodal.models.model_card; no part of the model's identity
FORMAT = 6


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

    @property
    def random_start(self) -> ModelConfig:
        """The networks' config without pretrained weights, which the model's own replace."""
        return replace(self.model, image_weights="none", audio_weights="none", text_weights="none")


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
    check_sizes(sidecar, checkpoint)
    check_towers(sidecar, checkpoint)
    made_by, read_by = checkpoint.front_end, checkpoint.mel.front_end_fingerprint()
    if made_by != read_by:
        raise DataError(
            f"{sidecar}: trained on audio of front end {printable(made_by)}, but its mel gives "
            f"{read_by}"
        )
    if found != written:
        raise DataError(f"{sidecar}: damaged: not as it was written")
    return checkpoint


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
    check_built_sizes(folder, weights, checkpoint, vocabulary)
    network = build_network(checkpoint.random_start, vocabulary, checkpoint.towers)
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
        check_built_sizes(folder, weights, checkpoint, vocabulary)
    config = checkpoint.random_start
    network = build_text_network(
        config, word_vectors(config, vocabulary), checkpoint.towers.get("text")
    )
    if vocabulary:
        network.tokenise = VocabularyInput(vocabulary)
    _check_text_input(folder, checkpoint, network.tokenise.fingerprint)
    _load_weights(network, folder / WEIGHTS, weights, "text.")
    return network.eval()


def _check_text_input(folder: Path, checkpoint: Checkpoint, found: str) -> None:
    if found != checkpoint.text_input:
        raise DataError(
            f"{folder}: trained with vocabulary or tokeniser {printable(checkpoint.text_input)}, "
            f"but this one is {found}; train again"
        )


def _read_weights(path: Path, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All tensors of the file whose fingerprint ``checkpoint`` holds, memory-mapped. It is mapped
    before its fingerprint is taken, so that a model that replaces it meanwhile is refused.
    """
    try:
        weights = load_file(path)
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: {printable(str(error))}") from error
    if checkpoint.weights and file_fingerprint(path) != checkpoint.weights:
        raise DataError(f"{path}: another model than the one that was loaded; load it again")
    return weights


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
