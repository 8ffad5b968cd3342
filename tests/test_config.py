"""params.yaml is read strictly: anything invalid is an error that names file and key."""

import copy
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import PARAMS, SECTIONS
from pydantic import ValidationError

from trimodal.core.config import ConfigError, load_section
from trimodal.core.machine import YoutubeAccess
from trimodal.training.config import TrainConfig

PARAMS_SECTIONS = {name: load_section(PARAMS, name, cls) for name, cls in SECTIONS.items()}
KEYS = [(name, field.name) for name, cls in SECTIONS.items() for field in fields(cls)]
FLOATS = [
    (name, field.name) for name, cls in SECTIONS.items() for field in fields(cls)
    if isinstance(getattr(PARAMS_SECTIONS[name], field.name), float)
]  # fmt: skip
ACCESS_KEYS = [field.name for field in fields(YoutubeAccess)]


def load(path: Path, content: Any, section: str) -> Any:
    if not isinstance(content, str):  # the section alone, if it is there: the others take time
        content = yaml.safe_dump({section: content[section]} if section in content else content)
    path.write_text(content)
    return load_section(path, section, SECTIONS[section])


COMMITTED: dict[str, dict[str, Any]] = yaml.safe_load(PARAMS.read_text())


@pytest.fixture
def params() -> dict[str, dict[str, Any]]:
    """A copy of the committed params that a test may change."""
    return copy.deepcopy(COMMITTED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


def refusal(file: Path, content: Any, section: str) -> str:
    """The message of the ConfigError."""
    with pytest.raises(ConfigError) as caught:
        load(file, content, section)
    message = str(caught.value)
    assert str(file) in message
    return message


def test_every_committed_section_has_a_dataclass(params: dict[str, dict[str, Any]]) -> None:
    assert set(params) == set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_committed_section_loads_key_by_key(
    section: str, params: dict[str, dict[str, Any]]
) -> None:
    loaded = asdict(load_section(PARAMS, section, SECTIONS[section]))
    assert loaded.keys() == params[section].keys()
    for key, value in params[section].items():
        assert loaded[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_missing_key_is_named(section: str, key: str, params: Any, file: Path) -> None:
    del params[section][key]
    assert f"{section}.{key}: " in refusal(file, params, section)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_value_of_a_wrong_type_is_named(section: str, key: str, params: Any, file: Path) -> None:
    params[section][key] = {"not": "this"}
    assert f"{section}.{key}" in refusal(file, params, section)


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_key_is_named(section: str, params: Any, file: Path) -> None:
    params[section]["colour"] = 1
    assert f"{section}.colour: unknown key" in refusal(file, params, section)


@pytest.mark.parametrize(("section", "key"), FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_not_finite_is_refused(
    section: str, key: str, value: float, params: Any, file: Path
) -> None:
    params[section][key] = value
    assert key in refusal(file, params, section)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("demo", "clips", 5),
        ("demo", "frame_px", 33),
        ("extract", "validation_share", 0.0),
        ("extract", "validation_share", 1.0),
        ("extract", "jpeg_quality", 96),
        ("extract", "clips_per_shard", 0),
        ("extract", "frame_px", 1),
        ("mel", "hop_samples", 0),
        ("mel", "window_samples", 1025),
        ("window", "seconds", 0.0),
        ("window", "decibel", "loud"),
        ("captions", "image_px", 1),
        ("captions", "frequent_words", -1),
        ("captions", "learned_words", -1),
        ("captions", "coco_annotations", "results"),
        ("captions", "images_per_shard", 0),
        ("augment", "crop_px", 0),
        ("augment", "brightness", 1.0),
        ("augment", "saturation", -0.1),
        ("model", "width", 0),
        ("model", "audio_weights", "imagenet"),
        ("model", "image_weights", "imagenet"),
        ("model", "dropout", 1.0),
        ("model", "text_network", "lstm"),
        ("loss", "margin", -0.1),
        ("loss", "margin_temperature", 0.0),
        ("augment", "mask_seconds", -1.0),
        ("augment", "mask_mels", -1),
        ("train", "warmup_steps", -1),
        ("train", "batch_size", 0),
        ("train", "batch_size", 1),
        ("train", "chunk_size", 1),
        ("train", "steps_per_epoch", 0),
        ("train", "validation_frame", 9),
        ("train", "learning_rate", 0.0),
        ("train", "alternating_momentum", "none"),
        ("evaluate", "frames_per_video", 0),
        ("evaluate", "audio_weight", 1.1),
        ("download", "source", "torrent"),
        ("download", "vggsound_splits", ["val"]),
        ("machine", "executor", "slurm"),
        ("machine", "workers", 0),
        ("machine", "clip_timeout_seconds", 0.0),
        ("machine", "devices", 0),
        ("machine", "loader_workers", -1),
        ("machine", "checkpoint_every_steps", 0),
    ],
)
def test_value_out_of_range_is_named(
    section: str, key: str, value: Any, params: Any, file: Path
) -> None:
    params[section][key] = value
    message = refusal(file, params, section)
    assert section in message.removeprefix(str(file))
    assert key in message


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("loss", "margin_mode", "varable", "'fixed', 'variable' or 'variable_all', not 'varable'"),
        ("machine", "device", "gpu", "'auto', 'cpu' or 'cuda', not 'gpu'"),
        ("machine", "devices", "some", "a valid integer or 'all', not 'some'"),
        ("machine", "devices", 0, "greater than 0 or 'all', not 0"),
        ("loss", "final_variable_margin", -1.0, "greater than or equal to 0, not -1.0"),
        ("extract", "jpeg_quality", 96, "less than or equal to 95, not 96"),
        ("train", "learning_rate", float("nan"), "a finite number, not nan"),
        ("train", "epochs", "3", "a valid integer, not '3'"),
        ("augment", "flip", 1, "a valid boolean, not 1"),
    ],
)
def test_message_has_the_expected_and_the_given_value(
    section: str, key: str, value: Any, expected: str, params: Any, file: Path
) -> None:
    params[section][key] = value
    assert refusal(file, params, section) == (
        f"{file}: {section}.{key}: Input should be {expected}"
    )


def test_imagenet_weights_at_another_width_name_both_keys(params: Any, file: Path) -> None:
    """Following advice about one key alone would lead to the same error again."""
    params["model"] |= {"image_backbone": "resnet18", "image_weights": "imagenet", "width": 16}
    message = refusal(file, params, "model")
    for key in ("model.image_weights", "model.audio_weights", "model.width 64, not 16"):
        assert key in message
    params["model"]["image_backbone"] = "efficientnet_lite0"
    assert load(file, params, "model").image_weights == "imagenet"


# The nested section


@pytest.mark.parametrize("key", ACCESS_KEYS)
def test_missing_nested_key_is_named(key: str, params: Any, file: Path) -> None:
    del params["machine"]["youtube"][key]
    assert refusal(file, params, "machine") == f"{file}: machine.youtube.{key}: Field required"


@pytest.mark.parametrize("key", ACCESS_KEYS)
def test_nested_value_of_a_wrong_type_is_named(key: str, params: Any, file: Path) -> None:
    params["machine"]["youtube"][key] = ["not this"]
    message = refusal(file, params, "machine")
    assert message.startswith(f"{file}: machine.youtube.{key}: ")
    assert message.endswith("not ['not this']")


def test_unknown_nested_key_is_named(params: Any, file: Path) -> None:
    params["machine"]["youtube"]["colour"] = 1
    assert refusal(file, params, "machine") == f"{file}: machine.youtube.colour: unknown key"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("workers", 0, "greater than 0, not 0"),
        ("pause_seconds", -0.5, "greater than or equal to 0, not -0.5"),
        ("stall_seconds", float("inf"), "a finite number, not inf"),
        ("js_runtime", "rhino", "'deno', 'node', 'bun' or 'quickjs', not 'rhino'"),
    ],
)
def test_nested_value_out_of_range_is_named(
    key: str, value: Any, expected: str, params: Any, file: Path
) -> None:
    params["machine"]["youtube"][key] = value
    message = refusal(file, params, "machine")
    assert message == f"{file}: machine.youtube.{key}: Input should be {expected}"


@pytest.mark.parametrize("value", [None, 3, "deno", []])
def test_nested_section_must_be_one(value: Any, params: Any, file: Path) -> None:
    params["machine"]["youtube"] = value
    message = refusal(file, params, "machine")
    assert message == f"{file}: machine.youtube: Input should be an object, not {value!r}"


def test_sections_are_checked_on_construction_too() -> None:
    loss = PARAMS_SECTIONS["loss"]
    with pytest.raises(ValidationError, match="margin_mode"):
        replace(loss, margin_mode="varable")
    with pytest.raises(ValidationError, match="colour"):
        type(loss)(**asdict(loss), colour=1)


@pytest.mark.parametrize("value", ["'3'", "1.5", "true", "1e1", "2020-01-01", "[3]", "null"])
def test_whole_number_must_be_one(value: str, params: Any, file: Path) -> None:
    text = yaml.safe_dump({"train": params["train"] | {"epochs": "EPOCHS"}})
    assert "train.epochs" in refusal(file, text.replace("EPOCHS", value), "train")


@pytest.mark.parametrize("value", ["0.00001", "1e-05", "1E-5", "1.0e-5", "+1e-05"])
def test_small_numbers_are_numbers_as_dvc_writes_them(value: str, params: Any, file: Path) -> None:
    """``dvc exp run -S train.weight_decay=0.00001`` leaves 1e-05 in params.yaml."""
    params["train"]["weight_decay"] = "HERE"
    text = yaml.safe_dump({"train": params["train"]}).replace("HERE", value)
    assert load(file, text, "train").weight_decay == 1e-05


def test_files_source_requires_its_folders(params: Any, file: Path) -> None:
    params["download"]["source"] = "files"
    assert "download.vggsound_csv" in refusal(file, params, "download")


@pytest.mark.parametrize("content", ["", "- 1\n", "train: 3\n", "other: {}\n", "train:\n"])
def test_missing_section_is_named(content: str, file: Path) -> None:
    assert "'train'" in refusal(file, content, "train")


@pytest.mark.parametrize("content", ["train: {epochs: 1\n", "a: b: c\n", "\ttrain: 1\n"])
def test_broken_yaml_is_refused(content: str, file: Path) -> None:
    assert "YAML" in refusal(file, content, "train")


def test_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"train: \xff\xfe\n")
    with pytest.raises(ConfigError, match=file.name):
        load_section(file, "train", TrainConfig)


def test_unknown_key_that_is_not_a_word_is_refused(params: Any, file: Path) -> None:
    params["train"] |= {1: 2, "colour": 3}
    assert "unknown key" in refusal(file, params, "train")
