"""What a model's folder may ask for: a stranger's must not fill the memory or fetch anything."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimodal.core.display import printable
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary
from trimodal.models.networks import TrimodalNet, word_vectors
from trimodal.models.towers import OPEN_CLIP, SENTENCE_TRANSFORMERS

if TYPE_CHECKING:
    from trimodal.models.checkpoint import Checkpoint

# The authors': 256 px, 128 mels of 1024 samples at 44.1 kHz, windows of 3 s.
_MAX_FRAME_PX = 4096
_MAX_WIDTH = 1024
_MAX_EMBEDDING_DIM = 2**14
_MAX_TOWER_NUMBER = 2**20  # a tokeniser of many languages has 250,000 words
_MAX_MELS, _MAX_N_FFT, _MAX_RATE_HZ = 1024, 2**16, 400_000
_MAX_WINDOW_COLUMNS = 20_000


def check_sizes(sidecar: Path, checkpoint: "Checkpoint") -> None:
    """Raises DataError, naming file and key, for a size that cannot be right."""

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


def check_towers(sidecar: Path, checkpoint: "Checkpoint") -> None:
    """Raises DataError for a tower without its definition: it would be looked up by its name, also
    on the network.
    """
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


def check_built_sizes(
    folder: Path,
    weights: Mapping[str, Tensor],
    checkpoint: "Checkpoint",
    vocabulary: Vocabulary | None,
) -> None:
    """Builds the networks without memory (PyTorch's device ``meta``) and compares their sizes with
    the weights', so that a stranger's config.json cannot fill the memory. Raises DataError for
    weights of another shape.
    """
    layers = ("layers", "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    for number in _whole_numbers(
        [part.get(key) for part in _mappings(checkpoint.towers) for key in layers]
    ):
        if number > len(weights):
            raise DataError(
                f"{folder}/config.json: towers: {number} layers, but {len(weights)} weights"
            )
    config = checkpoint.random_start
    try:
        with torch.device("meta"):
            network = TrimodalNet(config, word_vectors(config, vocabulary), checkpoint.towers)
    except DataError as error:
        raise DataError(f"{folder}/config.json: {error}") from error
    for name, tensor in network.state_dict().items():
        stored = weights.get(name)
        if stored is None or stored.shape != tensor.shape:
            found = "missing" if stored is None else f"of shape {tuple(stored.shape)}"
            raise DataError(
                f"{folder}/model.safetensors: {printable(name)} is {found}, not "
                f"{tuple(tensor.shape)} as config.json says"
            )


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _mappings(item)
