"""Networks that start from an earlier model: all or some, words by word, mismatches named."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configs import MACHINE
from data_fixtures import contents, refused
from features_fixtures import FEATURES, FROZEN, make, towers_of
from model_fixtures import MODEL, Tool
from safetensors.torch import load_file, save_file
from tower_fixtures import TIMM_NAME, write_timm_weights
from trainer_fixtures import CONFIG, LOSS
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.text import Vocabulary, read_vocabulary
from trimodal.models.checkpoint import WEIGHTS, Checkpoint, save_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.models.networks import TrimodalNet, build_network
from trimodal.models.warm_start import init_fingerprint, initial_network
from trimodal.training.leaks import LeaksConfig
from trimodal.training.train import train

TRAINED_WORDS = replace(MODEL, word_vectors="trained")


def vocabulary_of(data: TinyData) -> Vocabulary:
    return read_vocabulary(data.captions_dir / "vocabulary.parquet")


def save(
    data: TinyData, folder: Path, model: ModelConfig, vocabulary: Vocabulary, seed: int = 7
) -> TrimodalNet:
    torch.manual_seed(seed)
    network = build_network(model, vocabulary)
    if model.word_vectors == "trained":
        with torch.no_grad():
            network.text.backbone.vectors.add_(1)
    checkpoint = Checkpoint(
        model=model, loss=asdict(VARIABLE_MARGIN), mel=data.mel, window=data.front_end.window,
        augment=data.augment, frame_px=32, text_input=vocabulary.fingerprint, towers={},
        front_end=data.mel.front_end_fingerprint(), data={}, code="", epoch=1, validation_loss=1.0,
    )  # fmt: skip
    save_checkpoint(folder, network.state_dict(), checkpoint, vocabulary)
    return network


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    state = second.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("towers", [("image", "audio", "text"), ("image",), ("audio", "text"), ()])
def test_named_towers_start_from_the_model_and_the_others_anew(
    towers: tuple[Any, ...], tool: Tool, tiny_data: TinyData
) -> None:
    model = replace(MODEL, init_from=str(tool.path), init_towers=towers)
    torch.manual_seed(1)
    network = initial_network(model, vocabulary_of(tiny_data))
    for name, part in network.named_children():
        assert same(part, getattr(tool.network, name)) == (name in towers), name
    torch.manual_seed(1)
    assert same(network, build_network(MODEL, vocabulary_of(tiny_data))) == (not towers)


def test_word_vectors_are_mapped_by_word(tiny_data: TinyData, tmp_path: Path) -> None:
    """Our vocabulary has another order, one word less and one that the earlier model lacks."""
    ours = vocabulary_of(tiny_data)
    order = [0, 1, *reversed(range(3, len(ours.words)))]
    theirs = Vocabulary(
        (*(ours.words[row] for row in order), "zebra"),
        np.concatenate([ours.vectors[order], np.full((1, 300), 9, np.float32)]),
        ours.tokeniser,
    )
    earlier = save(tiny_data, tmp_path, TRAINED_WORDS, theirs)
    network = initial_network(replace(TRAINED_WORDS, init_from=str(tmp_path)), ours)
    vectors = network.text.backbone.vectors
    for row, word in enumerate(ours.words):
        if word in theirs:
            expected = earlier.text.backbone.vectors[theirs.words.index(word)]
        else:
            expected = torch.tensor(ours.vectors[row])
        assert torch.equal(vectors[row], expected), word
    assert sum(word not in theirs for word in ours.words) == 1
    assert isinstance(vectors, torch.nn.Parameter)
    assert vectors.requires_grad


def test_words_may_begin_to_learn_where_the_model_had_them_frozen(
    tool: Tool, tiny_data: TinyData
) -> None:
    model = replace(TRAINED_WORDS, init_from=str(tool.path))
    network = initial_network(model, vocabulary_of(tiny_data))
    assert torch.equal(network.text.backbone.vectors, tool.network.text.backbone.vectors)
    assert torch.equal(
        network.text.backbone.convolutions[0].weight,
        tool.network.text.backbone.convolutions[0].weight,
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 3}, ("audio.backbone.bn1.bias is of shape (2,) there, and here of shape (3,)",
                        "leave audio out of model.init_towers")),
        ({"head": "linear"}, ("audio.head.0.bias is of shape (256,) there, and here missing",)),
        ({"text_network": "mean", "init_towers": ("text",)}, ("text.backbone.convolutions.0.weight",
                                                              "here missing")),
        ({"image_backbone": "efficientnet_lite0", "init_towers": ("image",)},
         ("image.backbone.", "is of shape (2,) there, and here missing")),
    ],
)  # fmt: skip
def test_a_mismatch_is_named_with_its_shapes(
    change: dict[str, Any], named: tuple[str, ...], tool: Tool, tiny_data: TinyData
) -> None:
    model = replace(MODEL, **{"init_from": str(tool.path), "init_towers": ("audio",), **change})
    folder = f"model.init_from: {tool.path}: "
    refused(lambda: initial_network(model, vocabulary_of(tiny_data)), folder, *named)


def test_trained_word_vectors_are_not_dropped_in_silence(
    tiny_data: TinyData, tmp_path: Path
) -> None:
    save(tiny_data, tmp_path, TRAINED_WORDS, vocabulary_of(tiny_data))
    model = replace(MODEL, init_from=str(tmp_path))
    refused(
        lambda: initial_network(model, vocabulary_of(tiny_data)), "its word vectors were trained"
    )
    initial_network(replace(model, init_towers=("image", "audio")), vocabulary_of(tiny_data))


def test_a_folder_without_a_model_is_named(tiny_data: TinyData, tmp_path: Path) -> None:
    model = replace(MODEL, init_from=str(tmp_path / "none"))
    refused(lambda: initial_network(model, vocabulary_of(tiny_data)), "none: no model here")


def test_another_model_in_the_folder_is_another_run(tiny_data: TinyData, tmp_path: Path) -> None:
    model = replace(MODEL, init_from=str(tmp_path))
    save(tiny_data, tmp_path, MODEL, vocabulary_of(tiny_data))
    first = init_fingerprint(model)
    save(tiny_data, tmp_path, MODEL, vocabulary_of(tiny_data), seed=8)
    assert init_fingerprint(MODEL) == "" != first != init_fingerprint(model)


def run(data: TinyData, folder: Path, model: ModelConfig, features: Path, **changes: Any) -> Path:
    config = replace(CONFIG, epochs=1, steps_per_epoch=2, **changes)
    train(
        data.av_dir, data.captions_dir, data.images_dir, folder / "model", folder / "log",
        folder / "run.safetensors", config=config, loss=LOSS, model=model,
        front_end=data.front_end, augment=data.augment, machine=MACHINE,
        leaks=LeaksConfig(test_in_training="fail"), features=(features, FEATURES),
    )  # fmt: skip
    return folder / "model"


def test_a_run_does_not_start_from_the_folder_that_it_writes(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC removes it before the stage begins; the message says how to get it back."""
    monkeypatch.chdir(tmp_path)
    save(tiny_data, tmp_path / "a" / "model", MODEL, vocabulary_of(tiny_data))
    model = replace(MODEL, init_from="a/model")
    refused(
        lambda: run(tiny_data, tmp_path / "a", model, tmp_path),
        "model.init_from: a/model", "name a copy", "dvc checkout",
    )  # fmt: skip


def test_training_starts_from_the_model_and_notices_another(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """With a rate of almost nothing, training ends where it began."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "trimodal")
    earlier = save(tiny_data, tmp_path / "earlier", MODEL, vocabulary_of(tiny_data))
    model = replace(MODEL, init_from="earlier")
    weights = load_file(
        run(tiny_data, tmp_path / "a", model, tmp_path, learning_rate=1e-12) / WEIGHTS
    )
    for name, parameter in earlier.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=1e-8)
    save(tiny_data, tmp_path / "earlier", MODEL, vocabulary_of(tiny_data), seed=8)
    run(tiny_data, tmp_path / "a", model, tmp_path, learning_rate=1e-12)
    assert any("a run with other data" in text for text in caplog.messages)


def test_training_notices_other_weights_in_a_file(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "trimodal")
    file = write_timm_weights(Path("timm.safetensors"))
    model = replace(MODEL, audio_backbone=f"timm:{TIMM_NAME}", audio_weights=str(file))
    run(tiny_data, tmp_path / "a", model, tmp_path)
    run(tiny_data, tmp_path / "a", model, tmp_path)
    assert not any("starting a new run" in text for text in caplog.messages)
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    run(tiny_data, tmp_path / "a", model, tmp_path)
    assert any("a run with other data" in text for text in caplog.messages)


def test_frozen_towers_of_an_earlier_model(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage `features` takes them from it, too; another model there makes them stale."""
    monkeypatch.chdir(tmp_path)
    earlier = save(tiny_data, tmp_path / "earlier", MODEL, vocabulary_of(tiny_data))
    model = replace(FROZEN, init_from="earlier")
    features = make(tiny_data, tmp_path / "features", towers_of(tiny_data, model))
    first = run(tiny_data, tmp_path / "a", model, features)
    weights, frozen = load_file(first / WEIGHTS), earlier.state_dict()
    assert torch.equal(
        weights["image.backbone.conv1.weight"], frozen["image.backbone.conv1.weight"]
    )
    assert torch.equal(weights["text.backbone.norms.0.bias"], frozen["text.backbone.norms.0.bias"])
    assert not torch.equal(weights["image.head.0.weight"], frozen["image.head.0.weight"])
    again = run(tiny_data, tmp_path / "b", model, features)
    assert contents(first) == contents(again)
    save(tiny_data, tmp_path / "earlier", MODEL, vocabulary_of(tiny_data), seed=8)
    refused(lambda: run(tiny_data, tmp_path / "c", model, features), "index.json: image.weights is")
