"""Towers of timm, OpenCLIP and sentence-transformers, with tiny random weights in local folders."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
import torch.nn.functional as F
from configs import config_for_tests
from model_fixtures import MODEL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tower_fixtures import TIMM_NAME, write_clip, write_sentence_transformer, write_timm_weights
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.core.records import DataError
from trimodal.models import towers
from trimodal.models.checkpoint import (
    CONFIG,
    Checkpoint,
    load_model,
    load_text_network,
    read_checkpoint,
    save_checkpoint,
)
from trimodal.models.config import ModelConfig
from trimodal.models.image_input import ImageInput
from trimodal.models.networks import TrimodalNet, build_network
from trimodal.models.open_clip_towers import open_clip_towers, rebuilt_open_clip
from trimodal.models.sentence_towers import sentence_transformer
from trimodal.models.text_input import ClipInput, TokenizerInput
from trimodal.models.timm_towers import timm_backbone
from trimodal.models.towers import TowerError, WeightsUnavailableError
from trimodal.search.api import Trimodal
from trimodal.search.encoder import QueryError


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("towers")
    write_timm_weights(made / "timm.safetensors")
    write_clip(made / "clip")
    write_sentence_transformer(made / "sentence")
    return made


def model_config(folder: Path, kind: str, **changes: Any) -> ModelConfig:
    """A model of towers; a head for CLIP's shared space is none."""
    clip, sentence = f"open_clip:{folder}/clip", f"sentence_transformers:{folder}/sentence/model"
    weights, timm = {"image_weights": "pretrained", "text_weights": "pretrained"}, TIMM_NAME
    kinds: dict[str, dict[str, Any]] = {
        "clip": {"image_backbone": clip, "text_network": clip, "embedding_dim": 24, "head": "none"},
        "mixed": {
            "image_backbone": f"timm:{timm}", "image_weights": f"{folder}/timm.safetensors",
            "audio_backbone": f"timm:{timm}", "audio_weights": f"{folder}/timm.safetensors",
            "text_network": sentence, "embedding_dim": 32, "head": "linear",
        },
    }  # fmt: skip
    return config_for_tests(ModelConfig, **({"width": 2} | weights | kinds[kind] | changes))


def sample_inputs(network: TrimodalNet) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (3, 3, 40, 40), generator=generator, dtype=torch.uint8)
    windows = torch.rand(3, 1, 16, 151, generator=generator)
    ids = network.text.tokenise.encode(["a dog", "the cat barks in the park", "zebra"]).ids
    return [network.image.prepare(pixels), windows, ids]


def embed_all(network: TrimodalNet) -> list[Tensor]:
    parts: list[nn.Module] = [network.image, network.audio, network.text]
    with torch.inference_mode():
        return [part(inputs) for part, inputs in zip(parts, sample_inputs(network), strict=True)]


def test_open_clip_towers_are_the_librarys_own(folder: Path) -> None:
    import open_clip

    image, text = open_clip_towers(f"open_clip:{folder}/clip", "pretrained", "k", "w")
    theirs = open_clip.create_model(f"local-dir:{folder}/clip").eval()
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=20)(["a dog", "Rain!"])
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(text.tokenise.encode(["a dog", "Rain!"]).ids, tokens)
    with torch.inference_mode():
        assert torch.equal(image.eval()(pixels), theirs.encode_image(pixels))
        assert torch.equal(text.eval()(tokens), theirs.encode_text(tokens))
    assert image.input == ImageInput(size_px=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def test_sentence_transformers_are_the_librarys_own(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    name = f"{folder}/sentence/model"
    tower = sentence_transformer(f"sentence_transformers:{name}", "pretrained", "k", "w").eval()
    sentences = ["a dog", "the cat barks in the park", "a " * 40]
    ids = tower.tokenise.encode(sentences).ids
    assert ids.shape == (3, 12)  # the longest, cut
    with torch.inference_mode():
        ours = F.normalize(tower(ids), dim=1)
    theirs = torch.from_numpy(SentenceTransformer(name, device="cpu").encode(sentences))
    torch.testing.assert_close(ours, theirs)


def test_timm_has_its_own_normalisation_and_one_channel_for_audio(folder: Path) -> None:
    weights = f"{folder}/timm.safetensors"
    image = timm_backbone(f"timm:{TIMM_NAME}", weights, 3, "k", "w")
    audio = timm_backbone(f"timm:{TIMM_NAME}", weights, 1, "k", "w")
    assert image.input == ImageInput(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    stored = load_file(weights)
    first = next(name for name, tensor in audio.network.state_dict().items() if tensor.dim() == 4)
    torch.testing.assert_close(
        audio.network.state_dict()[first], stored[first].sum(dim=1, keepdim=True)
    )
    pixels = torch.randn(2, 3, 64, 64)
    pooled = image.eval().feature_map(pixels).mean(dim=(2, 3))
    torch.testing.assert_close(image(pixels), pooled)


def test_images_of_another_size_are_resized_for_a_tower() -> None:
    pixels = torch.full((1, 3, 50, 50), 255, dtype=torch.uint8)
    prepared = ImageInput(size_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).prepare(pixels)
    assert prepared.shape == (1, 3, 32, 32)
    torch.testing.assert_close(prepared, torch.ones(1, 3, 32, 32))


@pytest.mark.parametrize("kind", ["clip", "mixed"])
def test_a_saved_model_needs_nothing_but_its_folder(
    kind: str, folder: Path, tmp_path: Path, tiny_data: TinyData
) -> None:
    config = model_config(folder, kind)
    torch.manual_seed(4)
    network = build_network(config, None).eval()
    checkpoint = Checkpoint(
        model=config, loss=asdict(VARIABLE_MARGIN), mel=tiny_data.mel,
        window=tiny_data.front_end.window, augment=tiny_data.augment, frame_px=32,
        text_input=network.text.tokenise.fingerprint, towers=network.definitions,
        front_end=tiny_data.mel.front_end_fingerprint(), data={}, code="", epoch=1,
        validation_loss=1.0,
    )  # fmt: skip
    save_checkpoint(tmp_path / "model", network.state_dict(), checkpoint)
    hidden = folder.rename(folder.with_name("hidden"))
    try:
        back = read_checkpoint(tmp_path / "model")
        loaded = load_model(tmp_path / "model", back)
        text = load_text_network(tmp_path / "model", back)
        tool = Trimodal.from_pretrained(tmp_path / "model", device="cpu")
        sentences = ["a dog", "the cat"]
        embedded = tool.embed_text(sentences)
    finally:
        hidden.rename(folder)
    for ours, theirs in zip(embed_all(loaded), embed_all(network), strict=True):
        assert ours.shape == (3, config.embedding_dim)
        assert torch.equal(ours, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(embedded), text(*text.tokenise.encode(sentences))
        )
    with pytest.raises(QueryError, match="an empty sentence"):
        tool.embed_text([" "])


def test_a_strangers_config_cannot_fill_the_memory(
    folder: Path, tmp_path: Path, tiny_data: TinyData
) -> None:
    config = model_config(folder, "clip")
    network = build_network(config, None)
    definitions = json.loads(json.dumps(network.definitions))
    checkpoint = Checkpoint(
        model=config, loss={}, mel=tiny_data.mel, window=tiny_data.front_end.window,
        augment=tiny_data.augment, frame_px=32,
        text_input=network.text.tokenise.fingerprint, towers=definitions,
        front_end=tiny_data.mel.front_end_fingerprint(), data={}, code="", epoch=1,
        validation_loss=1.0,
    )  # fmt: skip
    for part, key, value, problem in (
        ("vision_cfg", "layers", 500_000, "500000 layers"),
        ("vision_cfg", "width", 2**19, "is of shape"),
        ("text_cfg", "width", 2**30, "is not in 1 to"),
    ):
        changed = json.loads(json.dumps(definitions))
        for tower in changed.values():
            tower["model_cfg"][part][key] = value
        save_checkpoint(
            tmp_path / "model", network.state_dict(), replace(checkpoint, towers=changed)
        )
        with pytest.raises(DataError, match=problem):
            load_model(tmp_path / "model", read_checkpoint(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
    save_checkpoint(tmp_path / "model", network.state_dict(), checkpoint)
    load_model(tmp_path / "model", read_checkpoint(tmp_path / "model"))
    assert (tmp_path / "model" / CONFIG).stat().st_size < 2**20


@pytest.mark.parametrize(
    ("kind", "keys", "value", "problem"),
    [
        ("clip", ("image", "model_cfg", "vision_cfg", "timm_model_name"), "hf-hub:a/b",
         r"config\.json: towers: vision_cfg\.timm_model_name: 'hf-hub:a/b'"),
        ("clip", ("text", "model_cfg", "text_cfg", "hf_model_name"), "a/b", "hf_model_name"),
        ("clip", ("image", "model_cfg", "vision_cfg", "no_such"), 1, "not a tower of OpenCLIP"),
        ("clip", ("image", "model_cfg", "vision_cfg"), None, "not a tower of OpenCLIP"),
        ("clip", ("image",), {}, r"config\.json: towers\.image is missing"),
        ("mixed", ("text",), {}, r"config\.json: towers\.text is missing"),
        ("mixed", ("text", "config", "model_type"), "timm_wrapper", "'timm_wrapper' is no encoder"),
        ("mixed", ("text", "config", "hidden_size"), "x", "not a tower of sentence-transformers"),
        ("mixed", ("text", "pooling", "pooling_mode"), "x", "not a tower of sentence-transformers"),
    ],
)  # fmt: skip
def test_a_strangers_tower_is_not_looked_up_and_named(
    kind: str, keys: tuple[str, ...], value: Any, problem: str,
    folder: Path, tmp_path: Path, tiny_data: TinyData,
) -> None:  # fmt: skip
    config = model_config(folder, kind)
    network = build_network(config, None)
    definitions = json.loads(json.dumps(network.definitions))
    changed = definitions
    for key in keys[:-1]:
        changed = changed[key]
    changed[keys[-1]] = value
    checkpoint = Checkpoint(
        model=config, loss={}, mel=tiny_data.mel, window=tiny_data.front_end.window,
        augment=tiny_data.augment, frame_px=32,
        text_input=network.text.tokenise.fingerprint, towers=definitions,
        front_end=tiny_data.mel.front_end_fingerprint(), data={}, code="", epoch=1,
        validation_loss=1.0,
    )  # fmt: skip
    save_checkpoint(tmp_path / "model", network.state_dict(), checkpoint)
    with pytest.raises(DataError, match=problem) as caught:
        load_model(tmp_path / "model", read_checkpoint(tmp_path / "model"))
    assert "\n" not in str(caught.value)


def test_a_definition_does_not_say_where_the_tower_was(folder: Path, tmp_path: Path) -> None:
    definitions = []
    for place in (folder / "sentence" / "model", tmp_path / "elsewhere"):
        if not place.exists():
            shutil.copytree(folder / "sentence" / "model", place)
        tower = sentence_transformer(f"sentence_transformers:{place}", "pretrained", "k", "w")
        definitions.append(tower.definition)
    assert definitions[0] == definitions[1]
    assert str(folder) not in json.dumps(definitions)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_backbone": "vgg"}, "image_backbone"),
        ({"image_backbone": "timm:../x"}, "image_backbone"),
        ({"image_weights": "pretrained"}, "image_weights: 'pretrained', but resnet18 takes"),
        ({"image_backbone": f"timm:{TIMM_NAME}", "image_weights": "imagenet"}, "a .safetensors"),
        ({"text_network": "cnn", "text_weights": "pretrained"}, "cnn takes none"),
        ({"freeze": ["audio"]}, "freeze"),
        ({"freeze": ["text", "text"]}, "named twice"),
        ({"freeze": ["text"], "word_vectors": "trained"}, "word_vectors: trained, but"),
        ({"audio_backbone": "open_clip:a/b"}, "audio_backbone"),
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_section(json.loads(json.dumps(asdict(MODEL))) | changes, "params.yaml: model",
                      ModelConfig)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes", "problem"),
    [
        ("clip", {"embedding_dim": 16}, "image network has 24 features and model.embedding_dim"),
        ("mixed", {"image_backbone": "timm:nosuch"}, r"model\.image_backbone: timm has no usable"),
        ("mixed", {"image_weights": "/nowhere.safetensors"}, r"model\.image_weights: /nowhere"),
        ("clip", {"image_backbone": "open_clip:ViT-B-32/laion2b_s34b_b79k"}, "cache"),
        ("clip", {"image_backbone": "open_clip:nosuch/tag"}, r"model\.image_backbone: neither a"),
        ("mixed", {"text_network": "sentence_transformers:no/such"}, r"model\.text_weights: the"),
    ],
)
def test_towers_that_cannot_be_had_name_key_and_choices(
    kind: str, changes: dict[str, Any], problem: str, folder: Path
) -> None:
    with pytest.raises((TowerError, WeightsUnavailableError), match=problem) as caught:
        build_network(model_config(folder, kind, **changes), None)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsUnavailableError, match=r"w: .*other\.safetensors: not this"):
        timm_backbone(f"timm:{TIMM_NAME}", f"{tmp_path}/other.safetensors", 3, "k", "w")
    torch.save({"a": 1}, tmp_path / "pickle.safetensors")
    with pytest.raises(WeightsUnavailableError, match=r"not a \.safetensors file"):
        timm_backbone(f"timm:{TIMM_NAME}", f"{tmp_path}/pickle.safetensors", 3, "k", "w")


def test_a_library_that_is_not_installed_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(towers, "missing_packages", lambda *names: list(names))
    for kind in ("clip", "mixed"):
        with pytest.raises(TowerError, match=r"model\.image_backbone: .* needs pip install"):
            build_network(model_config(folder, kind), None)


def test_a_rebuilt_tower_has_the_same_weights_names(folder: Path) -> None:
    image, text = open_clip_towers(f"open_clip:{folder}/clip", "pretrained", "k", "w")
    definition = json.loads(json.dumps(image.definition))
    for ours, again in zip((image, text), rebuilt_open_clip(definition), strict=True):
        again.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("length", [0, 10**6])
def test_a_tokenisers_length_is_bounded(length: int) -> None:
    for make in (ClipInput, lambda n: TokenizerInput("{}", n, 0)):
        with pytest.raises(DataError, match="length"):
            make(length)


def test_minilm_comes_from_its_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    with ZipFile(package / "model.zip", "w") as archive:
        source = folder / "sentence" / "model"
        for path in source.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(source).as_posix())
        archive.writestr("../escaped.txt", "x")
    monkeypatch.syspath_prepend(tmp_path)
    tower = sentence_transformer("sentence_transformers:all-MiniLM-L6-v2", "pretrained", "k", "w")
    assert tower.features == 16
    assert not list(tmp_path.rglob("escaped.txt"))
