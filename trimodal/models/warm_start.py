"""Networks as training begins with them: pretrained, random, or those of an earlier model."""

from pathlib import Path

import torch
from torch import Tensor

from trimodal.core.fingerprint import fingerprint
from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary
from trimodal.models.checkpoint import load_model, load_vocabulary, read_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TextNet, TrimodalNet, build_network
from trimodal.models.text_input import VocabularyInput

_VECTORS = "backbone.vectors"


def initial_network(model: ModelConfig, vocabulary: Vocabulary | None) -> TrimodalNet:
    """The networks that ``model`` describes; those of ``model.init_towers`` are copies of the ones
    in the folder ``model.init_from``, if that is not empty. Trained word vectors are copied by
    word; a word that the earlier model does not know keeps its own.

    Raises DataError, naming the folder, the key and both shapes, for networks that do not fit; and
    what :func:`~trimodal.models.checkpoint.load_model` and ``build_network`` raise.
    """
    network = build_network(model, vocabulary)
    if not model.init_from:
        return network
    folder = Path(model.init_from)
    checkpoint = read_checkpoint(folder)
    known = load_vocabulary(folder, checkpoint)
    earlier = load_model(folder, checkpoint, known)
    for tower in model.init_towers:
        weights = getattr(earlier, tower).state_dict()
        if tower == "text":
            _check_text(folder, network.text, earlier.text)
            if _VECTORS in network.text.state_dict() and vocabulary and known:
                weights[_VECTORS] = _vectors_by_word(vocabulary, network, known, earlier)
        _check_shapes(folder, tower, getattr(network, tower).state_dict(), weights)
        getattr(network, tower).load_state_dict(weights)
    return network


def init_fingerprint(model: ModelConfig) -> str:
    """Identifies the content of ``model.init_from``; empty without it."""
    if not model.init_from:
        return ""
    checkpoint = read_checkpoint(Path(model.init_from))
    return fingerprint([checkpoint.weights, checkpoint.text_input])


def _check_text(folder: Path, ours: TextNet, theirs: TextNet) -> None:
    if isinstance(ours.tokenise, VocabularyInput) and isinstance(theirs.tokenise, VocabularyInput):
        if _VECTORS in theirs.state_dict() and _VECTORS not in ours.state_dict():
            raise DataError(
                f"model.init_from: {folder}: its word vectors were trained: set "
                "model.word_vectors to trained, too, or leave text out of model.init_towers"
            )
    elif ours.tokenise.fingerprint != theirs.tokenise.fingerprint:
        raise DataError(
            f"model.init_from: {folder}: its text network takes other tokens than "
            "model.text_network; name the same one, or leave text out of model.init_towers"
        )


def _vectors_by_word(
    vocabulary: Vocabulary, network: TrimodalNet, known: Vocabulary, earlier: TrimodalNet
) -> Tensor:
    """Our table of word vectors, with the earlier model's for each word that it knows."""
    rows = {word: row for row, word in enumerate(known.words)}
    vectors: Tensor = network.text.backbone.vectors.detach().clone()
    pairs = [(row, rows[word]) for row, word in enumerate(vocabulary.words) if word in rows]
    own, theirs = torch.tensor(pairs).unbind(1)
    vectors[own] = earlier.text.backbone.vectors.detach()[theirs]
    return vectors


def _check_shapes(
    folder: Path, tower: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]
) -> None:
    for name in sorted(ours.keys() | theirs.keys()):
        shapes = [
            f"of shape {tuple(weights[name].shape)}" if name in weights else "missing"
            for weights in (theirs, ours)
        ]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"model.init_from: {folder}: {tower}.{name} is {shapes[0]} there, and here "
                f"{shapes[1]}; make section model as it was, or leave {tower} out of "
                "model.init_towers"
            )
