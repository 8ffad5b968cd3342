"""The frozen towers, and what identifies their features."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trimodal.core.fingerprint import code_fingerprint, fingerprint, sha256_of
from trimodal.core.text import Vocabulary, read_vocabulary
from trimodal.features.config import FeaturesConfig
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig
from trimodal.models.warm_start import initial_network

Frozen = Literal["image", "text"]
# What learns of a tower that is frozen.
LEARNING_PARTS = ("dropout", "head")


@dataclass(frozen=True, kw_only=True)
class FrozenTowers:
    """The settings that determine the features of ``model.freeze``, and where captions are."""

    model: ModelConfig
    config: FeaturesConfig
    augment: AugmentConfig
    captions_dir: Path

    def build(self) -> TrimodalNet:
        """The networks, of which the frozen towers are always the same, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return initial_network(self.model, self.vocabulary()).eval()

    def vocabulary(self) -> Vocabulary | None:
        """The captions' vocabulary, if the text network needs one."""
        if not self.model.has_vocabulary:
            return None
        return read_vocabulary(self.captions_dir / "vocabulary.parquet")

    def identities(self, network: TrimodalNet) -> dict[Frozen, dict[str, Any]]:
        """What the features of each frozen tower depend on, besides pictures and captions."""
        towers: dict[Frozen, dict[str, Any]] = {}
        code = code_fingerprint("trimodal.features.compute")
        if "image" in self.model.freeze:
            augment = {k: v for k, v in asdict(self.augment).items() if not k.startswith("mask_")}
            towers["image"] = {
                "tower": self.model.image_backbone,
                "weights": tower_fingerprint(network.image),
                "definition": fingerprint(network.image.backbone.definition),
                "input": json.loads(json.dumps(asdict(network.image.input))),
                **asdict(self.config),
                **augment,
                "code": code,
            }
        if "text" in self.model.freeze:
            towers["text"] = {
                "tower": self.model.text_network,
                "weights": tower_fingerprint(network.text),
                "definition": fingerprint(network.text.backbone.definition),
                "pooling": self.model.text_pooling if self.model.text_network == "cnn" else "",
                "tokens": network.text.tokenise.fingerprint,
                "code": code,
            }
        return towers


def frozen_parts(tower: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a tower, with their names, that do not learn if it is frozen."""
    return ((n, part) for n, part in tower.named_children() if n not in LEARNING_PARTS)


def tower_fingerprint(tower: nn.Module) -> str:
    """Identifies a tower's weights, word vectors included, but for those of its head."""
    tensors = [*tower.named_parameters(), *tower.named_buffers()]
    frozen = sorted((n, t) for n, t in tensors if n.partition(".")[0] not in LEARNING_PARTS)
    parts = [part for name, tensor in frozen for part in (name.encode(), _bytes(tensor))]
    return sha256_of(*parts)[:16]


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
