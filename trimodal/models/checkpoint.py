"""The trained model on disk: weights as safetensors, its metadata as JSON; no pickle."""

from collections.abc import Mapping
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
from trimodal.core.text import Vocabulary
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.networks import ModelConfig, TextNet, TrimodalNet, build_text_network
from trimodal.models.preprocessing import AugmentConfig

FORMAT = 5
# What a model may ask for, so that a stranger's cannot fill the memory. The authors': 256 px, 128
# mels of 1024 samples at 44.1 kHz, windows of 3 s.
_MAX_FRAME_PX = 4096
_MAX_WIDTH = 1024
_MAX_MELS, _MAX_N_FFT, _MAX_RATE_HZ = 1024, 2**16, 400_000
_MAX_WINDOW_COLUMNS = 20_000


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Checkpoint:
    """The metadata needed to use the weights, and their provenance. Images were stored as squares
    of ``frame_px`` before cropping.

    ``data`` holds fingerprints of the training data, ``code`` that of the training code. The git
    commit is left out so that the same code gives the same bytes in any commit; dvc.lock links the
    model to its commit. ``weights`` is the fingerprint of the weights, empty until they are saved.
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
    weights: str = field(default="", compare=False)

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
    metadata = {"format": FORMAT, "weights": "", **asdict(checkpoint)}
    metadata |= {"weights": file_fingerprint(path)}
    write_json(path.with_suffix(".json"), {"fingerprint": fingerprint(metadata), **metadata})


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the JSON beside the weights; raises DataError if it has another format, belongs to
    other weights, asks for sizes or an audio front end that cannot be right, or is not as it was
    written.
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
    del content["format"]
    checkpoint = parse_section(content, str(sidecar), Checkpoint)
    _check_sizes(sidecar, checkpoint)
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
    check("frame_px", checkpoint.frame_px, _MAX_FRAME_PX)
    check("augment.crop_px", checkpoint.augment.crop_px, checkpoint.frame_px)
    check("mel.mels", mel.mels, _MAX_MELS)
    check("mel.n_fft", mel.n_fft, _MAX_N_FFT)
    check("mel.sample_rate_hz", mel.sample_rate_hz, _MAX_RATE_HZ)
    columns = checkpoint.window.seconds / mel.hop_seconds
    check("window.seconds / mel.hop_samples", columns, _MAX_WINDOW_COLUMNS)


def load_model(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> TrimodalNet:
    """The trained networks in evaluation mode.

    Raises DataError if the vocabulary is not the one used in training, if the weights are damaged,
    not finite or of another model, and if they have been replaced since ``checkpoint`` was read.
    """
    _check_vocabulary(path, checkpoint, vocabulary)
    weights = _read_weights(path, checkpoint)
    _check_width(path, weights, checkpoint.model.width)
    without_download = replace(checkpoint.model, image_weights="none", audio_weights="none")
    network = TrimodalNet(without_download, torch.from_numpy(vocabulary.vectors.copy()))
    _load_weights(network, path, weights)
    return network.eval()


def load_text_network(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> TextNet:
    """The text network of :func:`load_model` alone, with its errors."""
    _check_vocabulary(path, checkpoint, vocabulary)
    weights = _read_weights(path, checkpoint)
    vectors = torch.from_numpy(vocabulary.vectors.copy())
    network = build_text_network(vectors, checkpoint.model)
    _load_weights(network, path, weights, "text.")
    return network.eval()


def _check_vocabulary(path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    if vocabulary.fingerprint != checkpoint.vocabulary:
        raise DataError(
            f"{path}: trained with vocabulary {printable(checkpoint.vocabulary)}, but this one "
            f"is {vocabulary.fingerprint}; train again"
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


def _check_width(path: Path, weights: Mapping[str, Tensor], width: int) -> None:
    """Checks the networks' size before they are allocated."""
    first = weights.get("audio.backbone.layer1.0.conv1.weight")
    stored = 0 if first is None or not first.dim() else len(first)
    if stored != width:
        raise DataError(f"{path}: its networks are of width {stored}, not {width}")


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
