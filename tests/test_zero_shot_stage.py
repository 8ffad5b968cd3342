"""Test sets of kind zero_shot in stage evaluate, with a tiny model on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import write_clip
from evaluation_fixtures import run
from model_fixtures import Tool
from PIL import Image
from test_zero_shot_set import model_of, write_tone, zero_shot_set
from training_fixtures import TinyData

from trimodal.core.files import read_table
from trimodal.data.clip_index import read_index
from trimodal.evaluation import evaluate as evaluate_module
from trimodal.evaluation import zero_shot_stage
from trimodal.evaluation.retrieval import EmbeddingError
from trimodal.evaluation.zero_shot_run import run_zero_shot
from trimodal.evaluation.zero_shot_set import ZeroShotSet
from trimodal.evaluation.zero_shot_stage import training_counts
from trimodal.training.distributed import World

TABLES = ("classes", "confusions", "items")


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Two sounds of each of three classes, all words of the tiny vocabulary."""
    for number, name in enumerate(("bird", "dog", "drum")):
        for k in (1, 2):
            write_tone(tmp_path / f"sounds/{name}/{k}.wav", 0.1 + number / 2 + k / 5)
    return tmp_path / "sounds"


def tables(folder: Path) -> dict[str, Any]:
    nullable = ("average_precision", "rank")
    return {name: read_table(folder / f"{name}.parquet", nullable=nullable) for name in TABLES}


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return isinstance(value, int | float) and bool(np.isfinite(value))


def forbid_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_shot_stage, "embed_items", lambda *_: pytest.fail("embedded again"))


def test_the_stage_gives_what_the_encoder_gives(
    sounds: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    """Its prompts have words that the model does not know, and no warning says so a thousand
    times: the audit names them once."""
    out, test_set = tmp_path / "out", zero_shot_set(path=str(sounds))
    metrics, audit = run(tiny_data, tool, test_set, out)
    expected = run_zero_shot("tested", test_set, model_of(tool, tiny_data))
    assert metrics == expected.metrics
    assert finite(metrics)
    assert {name: audit[name] for name in expected.audit} == json.loads(json.dumps(expected.audit))
    assert (audit["kind"], audit["model"]) == ("zero_shot", tool.model.fingerprint)
    assert (audit["items"], audit["classes"]) == (6, 3)
    assert (audit["items_in_training"], audit["items_in_validation"]) == (0, 0)
    assert "background" in audit["unknown_prompt_words"]
    assert list(audit["geometry"]) == ["audio"]
    found = tables(out)
    assert found["items"].equals(expected.items)
    assert found["classes"].equals(expected.classes)
    assert found["confusions"].equals(expected.confusions)


def test_pictures_and_videos_of_files(tool: Tool, tiny_data: TinyData, tmp_path: Path) -> None:
    for number, name in enumerate(("bird", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        colour = (200 * number, 90, 10)
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"pictures/{name}/1.png")
        (tmp_path / "videos" / name).mkdir(parents=True)
        write_clip(tmp_path / f"videos/{name}/1.mp4", seconds=3.0, sound=number == 0)
    (tmp_path / "pictures/dog/2.png").write_bytes(b"no picture")
    model = model_of(tool, tiny_data)
    pictures = zero_shot_set(
        path=str(tmp_path / "pictures"), modality="picture", prompts="name", min_coverage=0.6
    )
    videos = zero_shot_set(
        path=str(tmp_path / "videos"), modality="video", prompts="name", audio_weight=0.4
    )
    for test_set in (pictures, videos):
        out = tmp_path / test_set.modality
        _, audit = run(tiny_data, tool, test_set, out)
        assert tables(out)["items"].equals(run_zero_shot("s", test_set, model).items)
        assert audit["left_out"] == ({"cannot be decoded": 1} if test_set == pictures else {})
    assert audit["geometry"]["image"]["rows"] == 2


def test_classes_and_prompts_change_without_embedding_again(
    sounds: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sounds / "dog/3.wav").write_bytes(b"no sound")
    out, test_set = tmp_path / "out", zero_shot_set(path=str(sounds), min_coverage=0.2)
    first, _ = run(tiny_data, tool, test_set, out)
    (tmp_path / "two.txt").write_text("# version 1\nbird\ndog | drum\n")
    fewer = replace(test_set, classes=str(tmp_path / "two.txt"), prompts="name")
    expected = run_zero_shot("s", fewer, model_of(tool, tiny_data))
    with monkeypatch.context() as patched:
        forbid_embedding(patched)
        _, audit = run(tiny_data, tool, fewer, out)
        assert tables(out)["items"].equals(expected.items)
        assert audit["left_out"] == {"cannot be decoded": 1, "label that is no class": 2}
        assert run(tiny_data, tool, test_set, out)[0] == first
    reached = []
    monkeypatch.setattr(
        zero_shot_stage, "embed_items", lambda items, *_: reached.append(len(items)) or 1 / 0
    )
    write_tone(sounds / "bird/1.wav", 2.9)
    with pytest.raises(ZeroDivisionError):
        run(tiny_data, tool, test_set, out)
    assert reached == [7]


def of_shards(data: TinyData, tmp_path: Path, split: str, **changes: Any) -> ZeroShotSet:
    """The label of all is "tone", here the class of the words "dog"."""
    (tmp_path / "classes.txt").write_text("# version 1\ntone | dog\nother | bird\n")
    given = {
        "path": str(data.av_dir), "labels": "shards", "split": split, "prompts": "name",
        "classes": str(tmp_path / "classes.txt"),
    }  # fmt: skip
    return zero_shot_set(**given | changes)


@pytest.mark.parametrize("modality", ["sound", "video"])
def test_clips_of_the_training_data_are_counted(
    modality: str, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = 0.3 if modality == "video" else None
    test_set = of_shards(tiny_data, tmp_path, "train", modality=modality, audio_weight=weight)
    _, audit = run(tiny_data, tool, test_set, tmp_path / "out")
    clips = read_index(tiny_data.av_dir, "train", tiny_data.mel)
    assert audit["items"] == audit["items_in_training"] == len(clips) == 7
    assert audit["items_in_validation"] == 0
    forbid_embedding(monkeypatch)
    run(tiny_data, tool, test_set, tmp_path / "out")
    if modality == "video":
        _, audit = run(tiny_data, tool, replace(test_set, audio_weight=0.9), tmp_path / "out")


def test_sounds_of_training_videos_are_counted_by_their_youtube_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"split": "train", "clip_id": "abcdefghij0_000030", "youtube_id": "abcdefghij0"},
        {"split": "val", "clip_id": "abcdefghij1_000030", "youtube_id": "abcdefghij1"},
        {"split": "train", "clip_id": "own", "youtube_id": ""},
        {"split": "test", "clip_id": "abcdefghij3_000030", "youtube_id": "abcdefghij3"},
    ]
    import pyarrow as pa

    monkeypatch.setattr(zero_shot_stage, "read_table", lambda *_, **__: pa.Table.from_pylist(rows))
    names = [f"abcdefghij{n} 30.000" for n in range(4)]
    audioset = zero_shot_set(labels="audioset", media="m")
    assert training_counts(tmp_path, names, audioset) == {
        "items_in_training": 1, "items_in_validation": 1,
    }  # fmt: skip
    assert training_counts(tmp_path, [*names, "own"], zero_shot_set()) == {
        "items_in_training": 1, "items_in_validation": 0,
    }  # fmt: skip


def test_collapsed_embeddings_have_an_audit_and_no_metrics(
    sounds: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(tiny_data, tool, zero_shot_set(path=str(sounds)), out)
    with pytest.raises(EmbeddingError, match="6 audio embeddings have collapsed"):
        run(tiny_data, tool, zero_shot_set(path=str(sounds)), out, max_mean_cosine=-1.0)
    assert {path.name for path in out.iterdir()} == {"audit.json", "embeddings.parquet"}


def test_rank_0_does_it_alone(
    sounds: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of another rank would wait for it for ever: nothing may be reduced."""

    def no_process_group(*_: Any) -> None:
        pytest.fail("a collective operation")

    monkeypatch.setattr(World, "all_reduce_sum", no_process_group)
    monkeypatch.setattr(
        evaluate_module, "World", lambda **given: World(rank=1, size=2, device=given["device"])
    )
    test_set = zero_shot_set(path=str(sounds))
    with pytest.raises(FileNotFoundError, match="metrics"):
        run(tiny_data, tool, test_set, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
    monkeypatch.setattr(
        evaluate_module, "World", lambda **given: World(rank=0, size=2, device=given["device"])
    )
    _, audit = run(tiny_data, tool, test_set, tmp_path / "out")
    assert audit["items"] == 6
