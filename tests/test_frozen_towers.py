"""Frozen towers of other libraries, with tokens of their own: with captions, and without any."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import MACHINE
from data_fixtures import contents, refused
from features_fixtures import FEATURES, make, towers_of
from model_fixtures import MODEL
from safetensors.torch import load_file
from tower_fixtures import write_clip
from trainer_fixtures import CONFIG, LOSS
from training_fixtures import TinyData, caption_sources

from trimodal.models.checkpoint import WEIGHTS, load_model, read_checkpoint
from trimodal.models.config import ModelConfig
from trimodal.preprocess.captions import prepare_captions
from trimodal.training.leaks import LeaksConfig
from trimodal.training.train import train
from trimodal.training.trainer import Trainer

pytest.importorskip("open_clip", reason="an optional extra")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the repository, so that DVC logs nothing."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """Both towers of a CLIP, whose space is the joint one: only sound has a head."""
    name = f"open_clip:{write_clip(tmp_path_factory.mktemp('towers') / 'clip')}"
    return replace(
        MODEL, image_backbone=name, image_weights="pretrained", text_network=name,
        text_weights="pretrained", head="none", embedding_dim=24, freeze=("image", "text"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def silent_captions(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    """The tiny data's clips, without captions."""
    folder = tmp_path_factory.mktemp("no captions")
    config = replace(caption_sources(folder), coco_annotations="none", flickr30k_annotations="none")
    data = replace(tiny_data, captions_dir=folder / "captions", images_dir=folder / "images")
    prepare_captions(config, data.captions_dir, data.images_dir, MACHINE)
    return data


def run(data: TinyData, folder: Path, model: ModelConfig, features: Path, **changes: Any) -> Path:
    config = replace(CONFIG, epochs=2, steps_per_epoch=None, **changes)
    train(
        data.av_dir, data.captions_dir, data.images_dir, folder / "model", folder / "log",
        folder / "run.safetensors", config=config, loss=LOSS, model=model,
        front_end=data.front_end, augment=data.augment,
        machine=replace(MACHINE, checkpoint_every_steps=3),
        leaks=LeaksConfig(test_in_training="fail"), features=(features, FEATURES),
    )  # fmt: skip
    return folder / "model"


def test_sound_is_learned_from_videos_alone(
    clip: ModelConfig, silent_captions: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are those of the one stream; curves have no image_text; sentences can be embedded."""
    steps: list[Any] = []
    step = Trainer.step

    def recorded(self: Trainer, audio: Any, text: Any) -> Any:
        steps.append((tuple(audio[0].shape), text))
        return step(self, audio, text)

    monkeypatch.setattr(Trainer, "step", recorded)
    features = make(silent_captions, tmp_path / "features", towers_of(silent_captions, clip))
    folder = run(silent_captions, tmp_path / "run", clip, features)
    assert steps == [((3, 24), None)] * 4  # seven clips in batches of three, two epochs
    curves = tmp_path / "run" / "log" / "plots" / "metrics"
    assert {path.stem for path in curves.glob("train/*")} == {"image_audio", "loss"}
    assert {path.stem for path in curves.glob("val/*")} == {
        "image_audio", "loss", "image_audio_R@1", "image_audio_R@10", "recall",
    }  # fmt: skip
    network = load_model(folder, read_checkpoint(folder))
    ids, _ = network.text.tokenise.encode(["a chainsaw", "a helicopter"])
    assert network.text(ids).shape == (2, 24)
    weights, towers = load_file(folder / WEIGHTS), towers_of(silent_captions, clip).build()
    for name, tensor in towers.state_dict().items():
        if "num_batches_tracked" not in name:
            assert torch.equal(weights[name], tensor) == (not name.startswith("audio.")), name


@pytest.mark.parametrize("update", ["joint", "alternating"])
def test_with_captions_towers_without_heads_have_nothing_to_learn_from_them(
    update: str, clip: ModelConfig, tiny_data: TinyData, tmp_path: Path
) -> None:
    features = make(tiny_data, tmp_path / "features", towers_of(tiny_data, clip))
    folder = run(tiny_data, tmp_path / "run", clip, features, update=update)
    weights, towers = load_file(folder / WEIGHTS), towers_of(tiny_data, clip).build()
    assert torch.equal(
        weights["text.backbone.network.positional_embedding"],
        towers.state_dict()["text.backbone.network.positional_embedding"],
    )
    assert not torch.equal(
        weights["audio.head.0.weight"], towers.state_dict()["audio.head.0.weight"]
    )


def test_towers_with_tokens_of_their_own_thaw(
    clip: ModelConfig, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then captions are tokenised as they are drawn; a run that is killed there resumes."""
    features = make(tiny_data, tmp_path / "features", towers_of(tiny_data, clip))
    changes = {"freeze_epochs": 1}
    whole = run(tiny_data, tmp_path / "whole", clip, features, **changes)
    step, shapes = Trainer.step, []

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def killed(self: Trainer, audio: Any, text: Any) -> Any:
        shapes.append((text[1].dtype, text[1].shape[1]))
        if len(shapes) == 4:
            raise Killed
        return step(self, audio, text)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(Killed):
            run(tiny_data, tmp_path / "killed", clip, features, **changes)
    assert shapes == [(torch.float16, 24)] * 2 + [(torch.int64, 20)] * 2
    resumed = run(tiny_data, tmp_path / "killed", clip, features, **changes)
    assert contents(resumed.parent) == contents(whole.parent)


@pytest.mark.parametrize(
    "change", [{"freeze": ("image",)}, {"text_network": "cnn", "text_weights": "none"}]
)
def test_without_captions_a_text_network_that_would_learn_is_an_error(
    change: dict[str, Any], clip: ModelConfig, silent_captions: TinyData, tmp_path: Path
) -> None:
    model = replace(clip, **({"head": "linear"} | change))
    refused(
        lambda: run(silent_captions, tmp_path / "run", model, tmp_path / "features"),
        "captions.coco_annotations", "model.text_network", "model.freeze must have text",
    )  # fmt: skip
