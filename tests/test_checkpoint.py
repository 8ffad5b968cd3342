"""Checkpoints: written and read back unchanged, only with their vocabulary, without pickle."""

import json
import pickle
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configs import config_for_tests, front_end_for_tests
from data_fixtures import ENGLISH
from model_fixtures import MODEL
from training_fixtures import VARIABLE_MARGIN

from trimodal.core.records import DataError
from trimodal.core.text import Vocabulary, build_vocabulary
from trimodal.models.checkpoint import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    _read_weights,
    load_model,
    load_text_network,
    read_checkpoint,
    save_checkpoint,
)
from trimodal.models.networks import TrimodalNet
from trimodal.models.preprocessing import AugmentConfig


def vocabulary_of(*words: str) -> Vocabulary:
    vectors = {word: np.full(300, k + 0.5, np.float32) for k, word in enumerate(words)}
    return build_vocabulary(Counter(words), vectors, ENGLISH)


VOCABULARY = vocabulary_of("cat", "dog")
FRONT_END = front_end_for_tests(
    sample_rate_hz=8000, n_fft=512, window_samples=320, hop_samples=160, mels=16
)
CHECKPOINT = Checkpoint(
    model=MODEL,
    loss=asdict(VARIABLE_MARGIN),
    mel=FRONT_END.mel,
    window=FRONT_END.window,
    augment=config_for_tests(AugmentConfig, crop_px=24),
    frame_px=32,
    text_input=VOCABULARY.fingerprint,
    towers={},
    front_end=FRONT_END.mel.front_end_fingerprint(),
    data={"av": "a" * 16, "images": "b" * 16},
    code="c" * 16,
    epoch=3,
    validation_loss=0.1234567890123,
)  # fmt: skip


def trained(seed: int = 0) -> TrimodalNet:
    """A network whose every tensor, batch-norm statistics too, differs from its initial value."""
    torch.manual_seed(seed)
    network = TrimodalNet(CHECKPOINT.model, torch.from_numpy(VOCABULARY.vectors.copy()))
    network.image(torch.randn(4, 3, 32, 32))
    network.audio(torch.randn(4, 1, 16, 151))
    network.text(torch.randint(0, 4, (4, 16)))
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "trimodal"
    save_checkpoint(path, trained().state_dict(), CHECKPOINT, VOCABULARY)
    return path


def test_metadata_is_read_back_unchanged(saved: Path) -> None:
    assert read_checkpoint(saved) == CHECKPOINT


def test_networks_are_read_back_unchanged(saved: Path) -> None:
    network, original = load_model(saved, CHECKPOINT, VOCABULARY), trained().eval()
    assert not any(module.training for module in network.modules())
    assert network.state_dict().keys() == original.state_dict().keys()
    for name, tensor in original.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    pixels, ids = torch.randn(2, 3, 32, 32), torch.tensor([[2, 3] * 8])
    assert torch.equal(network.image(pixels), original.image(pixels))
    assert torch.equal(network.text(ids), original.text(ids))


def test_channels_last_weights_are_saved(tmp_path: Path, saved: Path) -> None:
    """Training uses that memory layout; the file is the same."""
    path = tmp_path / "other"
    network = trained().to(memory_format=torch.channels_last)
    save_checkpoint(path, network.state_dict(), CHECKPOINT)
    assert (path / WEIGHTS).read_bytes() == (saved / WEIGHTS).read_bytes()


def test_loading_a_model_does_not_download_pretrained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of ImageNet are of full width."""

    def fail(*_: object) -> None:
        raise AssertionError("pretrained weights were fetched")

    monkeypatch.setattr("trimodal.models.backbones._resnet_weights", fail)
    full = replace(CHECKPOINT.model, width=64)
    network = TrimodalNet(full, torch.from_numpy(VOCABULARY.vectors.copy()))
    checkpoint = replace(CHECKPOINT, model=replace(full, image_weights="imagenet"))
    save_checkpoint(tmp_path / "full", network.state_dict(), checkpoint)
    load_model(tmp_path / "full", checkpoint, VOCABULARY)


def test_another_vocabulary_is_refused(saved: Path) -> None:
    other = vocabulary_of("cat", "fox")
    with pytest.raises(DataError) as caught:
        load_model(saved, CHECKPOINT, other)
    assert VOCABULARY.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_the_file_of_weights_is_mapped(saved: Path) -> None:
    weights = _read_weights(saved / WEIGHTS, CHECKPOINT)
    assert str(saved / WEIGHTS) in Path("/proc/self/maps").read_text()
    network = load_text_network(saved, CHECKPOINT, VOCABULARY)
    del weights
    assert str(saved / WEIGHTS) not in Path("/proc/self/maps").read_text()
    assert all(tensor.isfinite().all() for tensor in network.state_dict().values())


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_weights_are_a_data_error(keep: int, saved: Path) -> None:
    weights = saved / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load_model(saved, CHECKPOINT, VOCABULARY)


def test_weights_of_another_model_are_a_data_error(saved: Path) -> None:
    model = replace(CHECKPOINT.model, width=4)
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load_model(saved, replace(CHECKPOINT, model=model), VOCABULARY)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("mel", "mels", 10**9), ("mel", "n_fft", 2**40), ("mel", "sample_rate_hz", 10**400),
        ("window", "seconds", 1e300), ("augment", "crop_px", 33), ("model", "width", 10**6),
        ("", "frame_px", 10**7), ("model", "embedding_dim", 10**6),
    ],
)  # fmt: skip
def test_sizes_that_would_fill_the_memory_are_refused(
    saved: Path, section: str, key: str, value: float
) -> None:
    sidecar = saved / CONFIG
    content = json.loads(sidecar.read_text())
    (content[section] if section else content)[key] = value
    sidecar.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"config\.json: .*{key}.* is not in 1 to "):
        read_checkpoint(saved)


def test_a_front_end_that_is_not_the_mels_is_refused(saved: Path) -> None:
    sidecar = saved / CONFIG
    content = json.loads(sidecar.read_text())
    content["mel"]["hop_samples"] = 80
    sidecar.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config\.json: trained on audio of front end"):
        read_checkpoint(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["text.head.0.weight", "audio.backbone.bn1.running_var"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    path, state = tmp_path / "trimodal", trained().state_dict()
    state[name].view(-1)[1] = value
    save_checkpoint(path, state, CHECKPOINT)
    with pytest.raises(DataError, match=rf"{name} has values that are not finite"):
        load_model(path, read_checkpoint(path), VOCABULARY)
    if name.startswith("text."):
        with pytest.raises(DataError, match=rf"{name} has values that are not finite"):
            load_text_network(path, read_checkpoint(path), VOCABULARY)


def test_names_in_a_strangers_model_are_escaped(tmp_path: Path) -> None:
    path, state = tmp_path / "trimodal", trained().state_dict()
    save_checkpoint(path, state | {"text.\x1b[2J": torch.zeros(1)}, CHECKPOINT)
    hostile = replace(CHECKPOINT, text_input="\x1b[2J")
    for checkpoint in (CHECKPOINT, hostile):
        with pytest.raises(DataError, match=r"\\x1b\[2J") as caught:
            load_model(path, checkpoint, VOCABULARY)
        assert str(caught.value).isprintable()


def test_networks_of_another_width_are_not_allocated(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the networks were allocated")

    monkeypatch.setattr("trimodal.models.checkpoint.build_network", fail)
    wide = replace(CHECKPOINT, model=replace(CHECKPOINT.model, width=1024))
    with pytest.raises(DataError, match=r"conv1\.weight is of shape \(2, 3, 7, 7\), not \(1024, "):
        load_model(saved, wide, VOCABULARY)


def test_weights_that_were_replaced_are_refused(saved: Path) -> None:
    """A model trained anew between reading the JSON and the weights."""
    checkpoint = read_checkpoint(saved)
    assert len(checkpoint.weights) == 16
    load_model(saved, checkpoint, VOCABULARY)
    save_checkpoint(saved, trained(seed=1).state_dict(), CHECKPOINT)
    for load in (load_model, load_text_network):
        with pytest.raises(DataError, match="another model than the one that was loaded"):
            load(saved, checkpoint, VOCABULARY)


@pytest.mark.parametrize("text", ['{"format": 2}', "{}", '{"format": "1"}', "[]", "null", '{"fo'])
def test_json_of_another_format_is_a_data_error(text: str, saved: Path) -> None:
    (saved / CONFIG).write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        read_checkpoint(saved)


@pytest.mark.parametrize("change", [{"epoch": None}, {"epoch": "three"}, {"extra": 1}])
def test_invalid_metadata_names_file_and_key(change: dict[str, object], saved: Path) -> None:
    sidecar = saved / CONFIG
    content = json.loads(sidecar.read_text()) | change
    sidecar.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"config\.json.*{next(iter(change))}"):
        read_checkpoint(saved)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


@pytest.mark.parametrize("file_format", ["pickle", "torch"])
def test_nothing_is_unpickled(file_format: str, saved: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    if file_format == "pickle":
        (saved / WEIGHTS).write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save({"image.head.0.weight": Trap(sprung)}, saved / WEIGHTS)
    with pytest.raises(DataError, match=r"model\.safetensors"):
        load_model(saved, CHECKPOINT, VOCABULARY)
    assert not sprung.exists()
