"""Zero-shot test sets from files to metrics: with a model of words, and with a trained network."""

import json
import re
import warnings
import wave
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from data_fixtures import refused, write_clip
from model_fixtures import Tool
from PIL import Image
from training_fixtures import RATE_HZ, TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.core.errors import UserError
from trimodal.core.files import read_table
from trimodal.core.machine_errors import UnreadableError
from trimodal.core.records import Query
from trimodal.data.clip_index import IndexedClip, read_index
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.evaluation.text_video import embed_test_set
from trimodal.evaluation.zero_shot import WordUse, words_in
from trimodal.evaluation.zero_shot_items import LIMITS, ItemEmbeddings, ZeroShotModel
from trimodal.evaluation.zero_shot_run import run_zero_shot, write_zero_shot
from trimodal.evaluation.zero_shot_set import ZeroShotSet
from trimodal.media.video import decode_frames
from trimodal.search.encoder import UnknownWordWarning
from trimodal.training.distributed import SINGLE_PROCESS

Matrix = npt.NDArray[np.float32]
WORDS = ("dog", "cat", "rain", "wind", "bells", "horn", "drum")
BASE = {
    "kind": "zero_shot", "modality": "sound", "labels": "folder", "path": "data", "media": "",
    "split": "", "classes": "data", "prompts": "sound", "audio_weight": None,
    "linear_probe": False, "min_coverage": 1.0,
}  # fmt: skip


def zero_shot_set(**changes: Any) -> ZeroShotSet:
    return parse_section(BASE | changes, "params.yaml: evaluate.sets.esc", ZeroShotSet)


def embed_words(texts: Sequence[str]) -> Matrix:
    """(N, 7): which of WORDS a text has; and a little of everything."""
    rows = [[float(word in re.findall("[a-z]+", text)) for word in WORDS] for text in texts]
    return np.array(rows, np.float32) + np.float32(0.01)


def embed_contents(paths: Sequence[Path]) -> Matrix:
    """A file's embedding is that of its text; one that says so is broken."""
    texts = [path.read_text() for path in paths]
    if "broken" in texts[0]:
        raise UserError(f"{paths[0]}: corrupt")
    return embed_words(texts)


def no_clips(_clips: Any) -> Any:
    raise AssertionError("there are no clips")


WORD_MODEL = ZeroShotModel(
    embed_text=embed_words, embed_images=embed_contents, embed_audio=embed_contents,
    embed_frames=no_clips, embed_clips=no_clips, frame_px=32, mel=None, words_of=None,  # type: ignore[arg-type]
)  # fmt: skip


def put(folder: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def esc50(folder: Path) -> Path:
    """Two sounds of each of six categories in two folds; one dog sounds like a cat."""
    categories = ["dog", "cat", "rain", "wind", "church_bells", "car_horn"]
    sounds = {"church_bells": "bells", "car_horn": "horn"}
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for target, category in enumerate(categories):
        for fold in (1, 2):
            name = f"{fold}-100-A-{target}.wav"
            rows.append(f"{name},{fold},{target},{category},False,100,A")
            text = "cat" if (category, fold) == ("dog", 2) else sounds.get(category, category)
            put(folder / "audio", {name: text})
    return put(folder, {"meta/esc50.csv": "\n".join(rows)})


# Params


def test_a_set_is_read() -> None:
    config = zero_shot_set(modality="video", labels="shards", split="val", audio_weight=0.2)
    assert (config.labels, config.split, config.audio_weight) == ("shards", "val", 0.2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": "csv"}, "media is missing for csv, vggsound, audioset"),
        ({"media": "clips"}, "media is only for csv, vggsound, audioset"),
        ({"labels": "shards"}, "split is missing for vggsound, shards"),
        ({"split": "test"}, "split is only for vggsound, shards"),
        ({"modality": "video"}, "audio_weight is missing for video"),
        ({"audio_weight": 0.2}, "audio_weight is only for video"),
        ({"labels": "esc50", "modality": "picture"}, "labels esc50 are of sounds"),
        ({"audio_weight": 1.5, "modality": "video"}, "audio_weight"),
        ({"labels": "imagenet"}, "labels"),
        ({"modality": "text"}, "modality"),
        ({"prompt": "sound"}, "unknown key"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        zero_shot_set(**changes)
    assert str(caught.value).startswith("params.yaml: evaluate.sets.esc")


# From files to metrics


def test_esc50_from_its_files_to_its_numbers(tmp_path: Path) -> None:
    config = zero_shot_set(
        labels="esc50", path=str(esc50(tmp_path / "ESC-50")), classes="esc50", linear_probe=True
    )
    result = run_zero_shot("esc", config, WORD_MODEL)
    metrics, audit = result.metrics, result.audit
    assert (audit["items"], audit["classes"]) == (12, 50)
    assert metrics["top1"] == pytest.approx(100 * 11 / 12)
    assert metrics["top1_low"] < metrics["top1"] < metrics["top1_high"]
    assert "mAP" not in metrics
    assert audit["left_out"] == {}
    assert len(audit["classes_without_items"]) == 44
    assert audit["unknown_classes"] == []
    assert audit["class_file"].startswith("classes_esc50.txt version 1 (")
    assert audit["prompt_file"].startswith("templates_sound.txt version 1 (")
    assert audit["prompts_a_class"] == 14
    probe = metrics["linear_probe"]
    assert list(probe["accuracy_by_fold"]) == ["1", "2"]
    assert probe["accuracy_by_fold"]["2"] == pytest.approx(100 * 5 / 6)
    assert result.confusions.to_pylist() == [
        {"label": "dog", "predicted": "cat", "items": 1, "share": 0.5}
    ]
    by_label = {row["label"]: row for row in result.classes.to_pylist()}
    assert (by_label["dog"]["items"], by_label["dog"]["right"]) == (2, 1)
    items = {row["item"]: row for row in result.items.to_pylist()}
    assert items["2-100-A-0.wav"] == {
        "item": "2-100-A-0.wav", "labels": ["dog"], "fold": "2", "predicted": "cat",
        "rank": items["2-100-A-0.wav"]["rank"],
    }  # fmt: skip
    assert items["2-100-A-0.wav"]["rank"] > 1


def test_results_are_written_and_read_again(tmp_path: Path) -> None:
    config = zero_shot_set(labels="esc50", path=str(esc50(tmp_path)), classes="esc50")
    result = run_zero_shot("esc", config, WORD_MODEL)
    write_zero_shot(tmp_path / "out", result)
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == result.metrics
    for name, table in (
        ("classes", result.classes), ("confusions", result.confusions), ("items", result.items),
    ):  # fmt: skip
        nullable = ("average_precision", "rank")
        assert read_table(tmp_path / f"out/{name}.parquet", nullable=nullable).equals(table)


def test_several_labels_have_a_mean_average_precision(tmp_path: Path) -> None:
    put(tmp_path, {"media/a.wav": "dog rain", "media/b.wav": "cat dog rain", "media/c.wav": "wind"})
    put(tmp_path, {"l.csv": "file,labels\na.wav,dog;rain;unheard\nb.wav,cat\nc.wav,wind;dog\n"})
    put(tmp_path, {"own.txt": "# version 1\n" + "\n".join(WORDS)})
    config = zero_shot_set(
        labels="csv", path=str(tmp_path / "l.csv"), media=str(tmp_path / "media"),
        classes=str(tmp_path / "own.txt"), prompts="name",
    )  # fmt: skip
    result = run_zero_shot("own", config, WORD_MODEL)
    metrics, audit = result.metrics, result.audit
    # Of dog, a is at 1 and c, which does not sound like it, at 3; of the others each is at 1.
    assert metrics["mAP"] == pytest.approx(100 * ((0.5 + 0.5 * 2 / 3) + 1 + 1 + 1) / 4)
    assert audit["labels_that_are_no_classes"] == {"unheard": 1}
    assert audit["classes_without_items"] == ["bells", "horn", "drum"]
    config = replace(config, linear_probe=True)
    refused(
        lambda: run_zero_shot("own", config, WORD_MODEL), "2 items have several labels", "a.wav"
    )


def test_a_probe_that_cannot_be_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    put(tmp_path, {"dog/1.wav": "dog", "cat/1.wav": "cat"})
    config = zero_shot_set(path=str(tmp_path), linear_probe=True)
    unused = replace(WORD_MODEL, embed_audio=no_clips, embed_text=no_clips)
    refused(lambda: run_zero_shot("own", config, unused), "no class has 5 items")


def test_what_is_left_out_is_counted_or_refused(tmp_path: Path) -> None:
    put(tmp_path, {
        "dog/1.wav": "dog", "dog/2.wav": "broken", "cat/1.wav": "cat", "cat/x.txt": "",
        "zebra/1.wav": "zebra", "loose.wav": "dog",
    })  # fmt: skip
    config = zero_shot_set(path=str(tmp_path), classes="esc50", min_coverage=0.4)
    result = run_zero_shot("own", config, WORD_MODEL)
    assert result.audit["items"] == 2
    assert result.audit["left_out"] == {
        "cannot be decoded": 1, "file outside the folders of classes": 1,
        "label that is no class": 1,
    }  # fmt: skip
    assert result.audit["passed_over"] == {"another kind of file": 1}
    assert result.audit["labels_that_are_no_classes"] == {"zebra": 1}
    assert result.items["item"].to_pylist() == ["cat/1.wav", "dog/1.wav"]
    refused(
        lambda: run_zero_shot("own", replace(config, min_coverage=0.5), WORD_MODEL),
        "40.0 % of the 5 items of set own", "evaluate.sets.own.min_coverage", "2.wav: corrupt",
    )  # fmt: skip
    refused(
        lambda: run_zero_shot("own", replace(config, min_coverage=0.7), WORD_MODEL),
        "60.0 % of the 5 items", "zebra/1.wav: zebra",
    )  # fmt: skip


def test_without_any_usable_item_there_are_no_metrics(tmp_path: Path) -> None:
    put(tmp_path, {"dog/1.wav": "broken"})
    config = zero_shot_set(path=str(tmp_path), min_coverage=0.0)
    refused(lambda: run_zero_shot("own", config, WORD_MODEL), "0.0 % of the 1 items", "1.wav")


def test_a_file_that_this_machine_cannot_read_is_no_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimodal.core.machine_errors._WAITS_SECONDS", ())
    put(tmp_path, {"dog/1.wav": "dog", "cat/1.wav": "cat"})

    def unreadable(paths: Sequence[Path]) -> Matrix:
        raise UnreadableError.of(paths[0], PermissionError("denied"))

    config = zero_shot_set(path=str(tmp_path), min_coverage=0.0)
    with pytest.raises(UnreadableError, match="denied"):
        run_zero_shot("own", config, replace(WORD_MODEL, embed_audio=unreadable))


def test_a_class_that_the_model_cannot_name_stays_and_is_wrong(tmp_path: Path) -> None:
    def words_of(text: str) -> WordUse:
        words = text.split("_")
        return WordUse(
            known=tuple(word for word in words if word in WORDS),
            unknown=tuple(word for word in words if word not in WORDS),
        )

    put(tmp_path, {f"{word}/1.wav": word for word in (*WORDS, "zebra", "wild_cat")})
    config = zero_shot_set(path=str(tmp_path))
    result = run_zero_shot("own", config, replace(WORD_MODEL, words_of=words_of))
    assert result.audit["classes"] == result.audit["items"] == 9
    assert result.audit["unknown_classes"] == ["zebra"]
    assert result.audit["unknown_words"] == {"wild_cat": ["wild"], "zebra": ["zebra"]}
    assert result.metrics["top5"] == pytest.approx(100 * 8 / 9)
    named = {row["label"]: row["named"] for row in result.classes.to_pylist()}
    assert [label for label, is_one in named.items() if not is_one] == ["zebra"]
    assert result.items["rank"].null_count == 1


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    put(tmp_path, {"dog/1.wav": "dog", "cat/1.wav": "cat"})
    broken = replace(WORD_MODEL, embed_audio=lambda paths: embed_contents(paths) * np.nan)
    with pytest.raises(EmbeddingError, match="2 of 2 embeddings of items"):
        run_zero_shot("own", zero_shot_set(path=str(tmp_path)), broken)


# With a trained network


def model_of(tool: Tool, data: TinyData) -> ZeroShotModel:
    """As the evaluation's entry point makes it from a model on disk."""
    encoder = tool.model

    def embed_text(sentences: Sequence[str]) -> Matrix:
        with warnings.catch_warnings():  # the metrics name them
            warnings.simplefilter("ignore", UnknownWordWarning)
            return encoder.embed_text(sentences)

    def embed_clips(clips: Sequence[IndexedClip]) -> ItemEmbeddings:
        queries = [
            Query(query_id=f"q{n}", video_id=clip.clip_id, sentence="dog")
            for n, clip in enumerate(clips)
        ]
        found = embed_test_set(
            tool.network, queries, clips, frames_per_video=2,
            renormalise=False, front_end=data.front_end, augment=data.augment,
            world=SINGLE_PROCESS,
        )  # fmt: skip
        return ItemEmbeddings(image=found.image, audio=found.audio, has_audio=found.has_audio)

    return ZeroShotModel(
        embed_text=embed_text, embed_images=encoder.embed_images,
        embed_audio=encoder.embed_audio, embed_frames=encoder.embed_frames,
        embed_clips=embed_clips, frame_px=32, mel=data.mel, words_of=words_in(encoder.vocabulary),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tool: Tool, tiny_data: TinyData) -> ZeroShotModel:
    return model_of(tool, tiny_data)


def write_tone(path: Path, step: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 8000 * np.sin(np.arange(4 * RATE_HZ) * step)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def cosine(one: Any, other: Any) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def predicted(result: Any) -> list[str]:
    return list(result.items["predicted"].to_pylist())


def nearest(model: ZeroShotModel, row: Any, labels: Sequence[str]) -> str:
    """From the definition, with the bare names as prompts."""
    names = model.embed_text(labels)
    return max(zip(labels, names, strict=True), key=lambda pair: cosine(row, pair[1]))[0]


def test_sounds_of_files(tmp_path: Path, model: ZeroShotModel) -> None:
    paths = [
        write_tone(tmp_path / f"{n}/{k}.wav", 0.2 + k / 3) for n in ("bird", "dog") for k in (1, 2)
    ]
    (tmp_path / "dog/3.wav").write_bytes(b"RIFF and no more")
    config = zero_shot_set(path=str(tmp_path), prompts="name", min_coverage=0.8)
    result = run_zero_shot("own", config, model)
    rows = model.embed_audio(paths)
    assert predicted(result) == [nearest(model, row, ["bird", "dog"]) for row in rows]
    assert result.audit["left_out"] == {"cannot be decoded": 1}


def test_pictures_of_files(tmp_path: Path, model: ZeroShotModel) -> None:
    paths = []
    for n, name in enumerate(("bird", "dog", "drum")):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "1.png")
        Image.new("RGB", (40, 30), (80 * n, 200 - 80 * n, 10)).save(paths[-1])
    config = zero_shot_set(path=str(tmp_path), modality="picture", prompts="name")
    rows = model.embed_images(paths)
    assert predicted(run_zero_shot("own", config, model)) == [
        nearest(model, row, ["bird", "dog", "drum"]) for row in rows
    ]


def test_videos_of_files_with_and_without_sound(tmp_path: Path, model: ZeroShotModel) -> None:
    (tmp_path / "bird").mkdir()
    (tmp_path / "dog").mkdir()
    loud = write_clip(tmp_path / "bird/1.mp4", seconds=4.0)
    silent = write_clip(tmp_path / "dog/1.mp4", seconds=3.0, sound=False)
    config = zero_shot_set(path=str(tmp_path), modality="video", audio_weight=0.4, prompts="name")
    result = run_zero_shot("own", config, model)
    found = result.embeddings
    assert found.has_audio.tolist() == [True, False]
    for row, path in zip(found.image, (loud, silent), strict=True):
        frames = [torch.from_numpy(f).permute(2, 0, 1) for f in decode_frames(path, 32, 32, LIMITS)]
        np.testing.assert_allclose(row, model.embed_frames(frames).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.audio[0], model.embed_audio([loud])[0], atol=1e-6)
    names = model.embed_text(["bird", "dog"])
    mixed = [
        0.6 * cosine(found.image[0], name) + 0.4 * cosine(found.audio[0], name) for name in names
    ]
    assert predicted(result) == [
        ["bird", "dog"][int(np.argmax(mixed))], nearest(model, found.image[1], ["bird", "dog"]),
    ]  # fmt: skip


@pytest.mark.parametrize("modality", ["sound", "picture", "video"])
def test_clips_of_shards(modality: str, model: ZeroShotModel, tiny_data: TinyData) -> None:
    """Their label is "tone", a word that the model does not know."""
    config = zero_shot_set(
        path=str(tiny_data.av_dir), labels="shards", split="train", modality=modality,
        audio_weight=0.2 if modality == "video" else None, prompts="name",
    )  # fmt: skip
    with pytest.raises(EmbeddingError, match="no word of any class"):
        run_zero_shot("own", config, model)
    known = replace(
        model, words_of=None, embed_text=lambda texts: model.embed_text(["dog"] * len(texts))
    )
    result = run_zero_shot("own", config, known)
    metrics, audit = result.metrics, result.audit
    assert (audit["items"], audit["classes"], metrics["top1"]) == (7, 1, 100)


def test_silent_clips_and_those_without_a_label_are_counted(
    model: ZeroShotModel, tiny_data: TinyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = list(read_index(tiny_data.av_dir, "test", tiny_data.mel))
    assert [(clip.label, clip.has_audio) for clip in clips] == [("", True), ("", False)]
    more = [IndexedClip(**asdict(clip) | {"label": "dog"}) for clip in clips]
    monkeypatch.setattr(
        "trimodal.evaluation.zero_shot_items.read_index", lambda *_: [*clips, *more]
    )
    config = zero_shot_set(
        path=str(tiny_data.av_dir), labels="shards", split="test", min_coverage=0.25
    )
    audit = run_zero_shot("own", config, model).audit
    assert audit["items"] == 1
    assert audit["left_out"] == {"clip without a label": 2, "clip without sound": 1}
    assert {"sound", "background", "someone"} < set(audit["unknown_prompt_words"])
