"""The three networks that embed image, audio and text on one unit sphere (docs/method.md, Model).

Some parts have an alternative to the authors' design: pretrained towers of other libraries
(:mod:`trimodal.models.towers`), linear heads, the mean of word vectors instead of the CNN, trained
word vectors, dropout (docs/results.md compares them).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trimodal.core.text import PADDING_ID, Vocabulary
from trimodal.models.backbones import build_audio_backbone, build_image_backbone
from trimodal.models.config import ModelConfig, Tower
from trimodal.models.image_input import ImageInput
from trimodal.models.open_clip_towers import open_clip_towers, rebuilt_open_clip
from trimodal.models.sentence_towers import rebuilt_sentence_transformer, sentence_transformer
from trimodal.models.text_input import TextInput, VocabularyInput
from trimodal.models.towers import OPEN_CLIP, Definition, TowerError

Definitions = Mapping[str, Definition]


def _head(features: int, config: ModelConfig) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(features, config.embedding_dim)
    return nn.Sequential(
        nn.Linear(features, config.embedding_dim),
        nn.ReLU(inplace=True),
        nn.Linear(config.embedding_dim, config.embedding_dim),
    )


def _head_in_shared_space(network: Tower, features: int, config: ModelConfig) -> nn.Module:
    """The head of the image or text network."""
    if config.head != "none":
        return _head(features, config)
    if features != config.embedding_dim:
        raise TowerError(
            f"model.head: none, but the {network} network has {features} features and "
            f"model.embedding_dim is {config.embedding_dim}"
        )
    return nn.Identity()


def _unit_vectors(rows: Tensor) -> Tensor:
    # Autocast's bfloat16 ends here: lengths, similarities and losses are float32.
    return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)


class VisionNet(nn.Module):
    """A 2-D backbone and its head: the image network, and the audio network on mel windows."""

    def __init__(self, backbone: Any, head: nn.Module, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = head

    @property
    def input(self) -> ImageInput:
        """What the image network's backbone expects of images."""
        image_input: ImageInput = self.backbone.input
        return image_input

    def prepare(self, pixels: Tensor) -> Tensor:
        """Uint8 (batch, 3, height, width) RGB to the image network's input."""
        return self.input.prepare(pixels)

    def forward(self, inputs: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors of prepared images or audio windows, (batch, channels, height, width), or of
        the backbone's features of them, (batch, features).
        """
        features = inputs if inputs.dim() == 2 else self.backbone(inputs)
        return _unit_vectors(self.head(self.dropout(features)))


class TextNet(nn.Module):
    """Captions, rows of token ids, to unit vectors. ``tokenise`` makes the ids of sentences."""

    tokenise: TextInput

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self,
        inputs: Int[Tensor, "batch length"] | Float[Tensor, "batch features"],
        further: Float[Tensor, "further dim"] | None = None,
    ) -> Float[Tensor, "batch embedding"]:
        """Unit vectors of token ids or, if they are floats, of the backbone's features of them. Ids
        from the number of the vocabulary's words up are rows of ``further``, vectors that only
        these captions need (not empty).
        """
        if inputs.is_floating_point():
            features = inputs
        else:
            features = self.backbone(inputs) if further is None else self.backbone(inputs, further)
        return _unit_vectors(self.head(features))


class WordBackbone(nn.Module):
    """Captions, rows of word ids, to features, starting from word vectors.

    Frozen word vectors are not in the state dict: they belong to the vocabulary.
    """

    vectors: Tensor

    def __init__(
        self, vectors: Float[Tensor, "words dim"], features: int, config: ModelConfig
    ) -> None:
        super().__init__()
        if config.word_vectors == "trained":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors, persistent=False)
        self.features = features
        self.definition: Definition = {}

    def forward(
        self,
        token_ids: Int[Tensor, "batch words"],
        further: Float[Tensor, "further dim"] | None = None,
    ) -> Float[Tensor, "batch features"]:
        """The input of the head. ``further`` as in :class:`TextNet`."""
        return self.pool(self._word_vectors(token_ids, further), token_ids != PADDING_ID)

    def _word_vectors(self, token_ids: Tensor, further: Tensor | None) -> Tensor:
        if further is None:
            return self.vectors[token_ids]
        known = len(self.vectors)
        own = self.vectors[token_ids.clamp(max=known - 1)]
        others = further[(token_ids - known).clamp(min=0)]
        return torch.where((token_ids >= known)[..., None], others, own)

    def pool(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch features"]:
        """Features from the word vectors and which of them are no padding."""
        raise NotImplementedError


class TextCnn(WordBackbone):
    """A 1-D CNN on word vectors (docs/method.md, Model).

    Six convolutions of kernel 2 without bias, each followed by batch norm, ReLU and one zero on
    the right, so that the length stays; max-pool 2 after the fourth and the sixth; then the mean
    over the four remaining positions, or over those of them that cover a word.
    """

    _WIDTHS = (128, 128, 256, 256, 512, 512)

    def __init__(self, vectors: Float[Tensor, "words dim"], config: ModelConfig) -> None:
        super().__init__(vectors, self._WIDTHS[-1], config)
        self._over_words = config.text_pooling == "words"
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=2, bias=False)
            for before, after in pairwise((vectors.shape[1], *self._WIDTHS))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in self._WIDTHS)
        for weight in self.convolutions.parameters():
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def pool(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch 512"]:
        """The mean over positions."""
        out = vectors.transpose(1, 2)  # (batch, dim, words)
        covers_word = is_word.to(out.dtype)[:, None]
        layers = zip(self.convolutions, self.norms, strict=True)
        for number, (convolution, norm) in enumerate(layers, start=1):
            out = F.pad(torch.relu(norm(convolution(out))), (0, 1))
            if number in (4, 6):
                out, covers_word = F.max_pool1d(out, 2), F.max_pool1d(covers_word, 2)
        if not self._over_words:
            return out.mean(dim=2)
        return (out * covers_word).sum(dim=2) / covers_word.sum(dim=2).clamp(min=1)


class WordMean(WordBackbone):
    """The mean of a caption's word vectors, without padding: word order is ignored, and only the
    head has weights.
    """

    def __init__(self, vectors: Float[Tensor, "words dim"], config: ModelConfig) -> None:
        super().__init__(vectors, vectors.shape[1], config)

    def pool(
        self, vectors: Float[Tensor, "batch words dim"], is_word: Bool[Tensor, "batch words"]
    ) -> Float[Tensor, "batch embedding"]:
        """The mean; zeros for a caption without a word."""
        weights = is_word.to(vectors.dtype)[..., None]
        return (vectors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def build_text_network(
    config: ModelConfig,
    vectors: Float[Tensor, "words dim"] | None,
    definition: Definition | None = None,
) -> TextNet:
    """The text network selected by ``config.text_network``; ``vectors`` are the vocabulary's, row 0
    is padding, for a network of words. ``definition`` is that of a saved model's tower.
    """
    backbone = _text_backbone(config, vectors, definition)
    network = TextNet(backbone, _head_in_shared_space("text", backbone.features, config))
    if not config.has_vocabulary:
        network.tokenise = backbone.tokenise
    return network


def _text_backbone(
    config: ModelConfig, vectors: Tensor | None, definition: Definition | None
) -> Any:
    name, keys = config.text_network, ("model.text_network", "model.text_weights")
    if config.has_vocabulary:
        if vectors is None:
            raise TowerError(f"model.text_network: {name} needs the captions' vocabulary")
        return (TextCnn if name == "cnn" else WordMean)(vectors, config)
    if name.startswith(OPEN_CLIP):
        if definition:
            return rebuilt_open_clip(definition)[1]
        return open_clip_towers(name, config.text_weights, *keys)[1]
    if definition:
        return rebuilt_sentence_transformer(definition)
    return sentence_transformer(name, config.text_weights, *keys)


class TrimodalNet(nn.Module):
    """The image, audio and text networks. At the paper's size they have 11,373,632, 11,367,360
    and 1,293,312 trainable parameters.

    ``vectors`` as in :func:`build_text_network`; ``definitions`` are those of a saved model's
    towers, by network. Raises TowerError and WeightsUnavailableError.
    """

    def __init__(
        self,
        config: ModelConfig,
        vectors: Float[Tensor, "words dim"] | None,
        definitions: Definitions | None = None,
    ) -> None:
        super().__init__()
        known = definitions or {}
        self.embedding_dim = config.embedding_dim
        image = build_image_backbone(
            config.image_backbone, config.width, config.image_weights, known.get("image")
        )
        audio = build_audio_backbone(config.audio_backbone, config.width, config.audio_weights)
        image_head = _head_in_shared_space("image", image.features, config)
        dropout = 0.0 if config.head == "none" else config.dropout
        self.image = VisionNet(image, image_head, dropout)
        self.audio = VisionNet(audio, _head(audio.features, config), config.dropout)
        self.text = build_text_network(config, vectors, known.get("text"))

    @property
    def definitions(self) -> dict[str, Definition]:
        """What a saved model needs, beside the config, to build the towers again."""
        parts = {"image": self.image.backbone, "text": self.text.backbone}
        return {name: part.definition for name, part in parts.items() if part.definition}


def build_network(
    config: ModelConfig, vocabulary: Vocabulary | None, definitions: Definitions | None = None
) -> TrimodalNet:
    """The three networks for a vocabulary, which only a text network of words needs. Errors as of
    :class:`TrimodalNet`.
    """
    network = TrimodalNet(config, word_vectors(config, vocabulary), definitions)
    if config.has_vocabulary and vocabulary:
        network.text.tokenise = VocabularyInput(vocabulary)
    return network


def word_vectors(config: ModelConfig, vocabulary: Vocabulary | None) -> Tensor | None:
    """A copy of the vocabulary's vectors, if the text network starts from them."""
    if not config.has_vocabulary or vocabulary is None:
        return None
    return torch.from_numpy(vocabulary.vectors.copy())
