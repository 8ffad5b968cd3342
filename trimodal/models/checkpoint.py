"""The trained model on disk: weights as safetensors, its metadata as JSON; no pickle."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trimodal.core.config import SECTION, parse_section
from trimodal.core.errors import UserError
from trimodal.core.files import read_json, write_bytes, write_json
from trimodal.core.fingerprint import file_fingerprint, fingerprint
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.networks import ModelConfig, TextNet, TrimodalNet, build_text_network
from trimodal.models.preprocessing import AugmentConfig

FORMAT = 5


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Checkpoint:
    """The metadata needed to use the weights, and their provenance. Images were stored as squares
    of ``frame_px`` before cropping.

    ``data`` holds fingerprints of the training data, ``code`` that of the training code. The git
    commit is left out so that the same code gives the same bytes in any commit; dvc.lock links the
    model to its commit.
    """

    model: ModelConfig
    loss: dict[str, Any]
    mel: MelConfig
    window: WindowConfig
    augment: AugmentConfig
    frame_px: int
    vocabulary: str
    front_end: str
    data: dict[str, str]
    code: str
    epoch: int
    validation_loss: float

    @property
    def audio_front_end(self) -> AudioFrontEnd:
        """How audio is turned into the audio network's input."""
        return AudioFrontEnd(mel=self.mel, window=self.window)


def save_checkpoint(path: Path, state: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Writes ``path`` (.safetensors) and its .json, each atomically, the JSON last. The JSON holds
    the fingerprints of the weights and of itself, so that a mismatched pair and damage are
    detected. Raises OSError where the disk cannot take them.
    """
    # Not save_file: killed, it leaves a temporary file of its own.
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in state.items()}))
    metadata = {"format": FORMAT, "weights": file_fingerprint(path), **asdict(checkpoint)}
    write_json(path.with_suffix(".json"), {"fingerprint": fingerprint(metadata), **metadata})


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the JSON beside the weights; raises DataError if it has another format, belongs to
    other weights or is not as it was written.
    """
    try:
        return _described(path, path.with_suffix(".json"))
    except UserError as error:
        raise DataError(
            f"{error}; delete the model and run dvc repro, which makes it again"
        ) from error


def _described(path: Path, sidecar: Path) -> Checkpoint:
    content = read_json(sidecar)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{sidecar}: not a checkpoint of format {FORMAT}")
    if content.get("weights") != file_fingerprint(path):
        raise DataError(f"{path}: not the weights that {sidecar.name} describes")
    written = content.pop("fingerprint", None)
    found = fingerprint(content)
    del content["format"], content["weights"]
    checkpoint = parse_section(content, str(sidecar), Checkpoint)
    if found != written:
        raise DataError(f"{sidecar}: damaged: not as it was written")
    return checkpoint


def load_model(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> TrimodalNet:
    """The trained networks in evaluation mode.

    Raises DataError if the vocabulary is not the one used in training, or the weights are damaged
    or belong to another model.
    """
    _check_vocabulary(path, checkpoint, vocabulary)
    without_download = replace(checkpoint.model, image_weights="none", audio_weights="none")
    network = TrimodalNet(without_download, torch.from_numpy(vocabulary.vectors.copy()))
    _load_weights(network, path)
    return network.eval()


def load_text_network(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> TextNet:
    """The text network of :func:`load_model` alone, with its errors; the others' weights are not
    read.
    """
    _check_vocabulary(path, checkpoint, vocabulary)
    vectors = torch.from_numpy(vocabulary.vectors.copy())
    network = build_text_network(vectors, checkpoint.model)
    _load_weights(network, path, "text.")
    return network.eval()


def _check_vocabulary(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    if vocabulary.fingerprint != checkpoint.vocabulary:
        raise DataError(
            f"{path}: trained with vocabulary {checkpoint.vocabulary}, but this one "
            f"is {vocabulary.fingerprint}; train again"
        )


def _load_weights(network: nn.Module, path: Path, prefix: str = "") -> None:
    """Loads the tensors whose names begin with ``prefix``, without it."""
    try:
        with safe_open(path, "pt") as stored:
            names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118
            state = {name.removeprefix(prefix): stored.get_tensor(name) for name in names}
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise DataError(f"{path}: {error}") from error
