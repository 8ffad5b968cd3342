"""A model on disk with random weights and the tiny data's vocabulary."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from configs import config_for_tests
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.subwords import fit_subwords
from trimodal.core.text import read_vocabulary, write_vocabulary
from trimodal.models.checkpoint import Checkpoint, load_model, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet, build_network
from trimodal.search.api import Trimodal

MODEL = config_for_tests(ModelConfig, width=2)


# The part of the checkpoint's JSON that reports read.
FACTS = {
    "weights": "w1", "code": "c1", "epoch": 7, "validation_loss": 0.25, "text_input": "v1",
    "data": {"av": "a1", "images": "i1", "captions": "t1"},
    "model": {"image_backbone": "resnet18", "image_weights": "none", "audio_weights": "imagenet",
              "width": 16, "text_network": "cnn", "word_vectors": "frozen",
              "audio_backbone": "resnet18", "embedding_dim": 256, "freeze": [],
              "text_weights": "none"},
    "loss": {"kind": "hinges", "margin_mode": "variable", "margin": 0.2},
    "mel": {"mels": 64, "sample_rate_hz": 16000}, "window": {"seconds": 3.0},
    "augment": {"crop_px": 64},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A model as users load it (Trimodal), and the same model as the stages use it."""

    model: Trimodal
    network: TrimodalNet
    path: Path
    vocabulary: Path


def make_subword_tool(data: TinyData, folder: Path) -> Tool:
    """A tool that takes the vectors of words that it does not know, and that of "drum", from their
    spelling.
    """
    known = read_vocabulary(data.captions_dir / "vocabulary.parquet")
    rows = dict(zip(known.words[2:], known.vectors[2:], strict=True))
    subwords = fit_subwords(rows)
    vocabulary = replace(known, spelled=frozenset({"drum"}), subwords=subwords)
    write_vocabulary(folder / "captions" / "vocabulary.parquet", vocabulary)
    return make_tool(replace(data, captions_dir=folder / "captions"), folder / "model")


def make_tool(data: TinyData, path: Path, seed: int = 7) -> Tool:
    vocabulary = read_vocabulary(data.captions_dir / "vocabulary.parquet")
    torch.manual_seed(seed)
    network = build_network(MODEL, vocabulary)
    network.image(torch.randn(4, 3, 32, 32))  # changes the running statistics
    network.audio(torch.randn(4, 1, 16, 151))
    network.text(torch.randint(0, 5, (4, 16)))
    checkpoint = Checkpoint(
        model=MODEL, loss=asdict(VARIABLE_MARGIN), mel=data.mel, window=data.front_end.window,
        augment=data.augment, frame_px=32,
        text_input=vocabulary.fingerprint, towers={}, front_end=data.mel.front_end_fingerprint(),
        data={}, code="", epoch=1, validation_loss=1.0,
    )  # fmt: skip
    save_checkpoint(path, network.state_dict(), checkpoint, vocabulary)
    return Tool(
        model=Trimodal.from_pretrained(path, device="cpu"),
        network=load_model(path, checkpoint, vocabulary), path=path,
        vocabulary=path / "vocabulary.parquet",
    )  # fmt: skip
