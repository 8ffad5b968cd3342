"""Test sets of images, sounds and clips, from official files to metrics, with a tiny model."""

import csv
import wave
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_fixtures import config, forbid_networks, run
from model_fixtures import Tool, make_tool
from PIL import Image
from training_fixtures import RATE_HZ, TinyData

from trimodal.core.config import ConfigError, parse_section
from trimodal.core.records import DataError
from trimodal.data import clip_index
from trimodal.evaluation import task as task_module
from trimodal.evaluation.config import (
    AudioImageSet,
    EvaluateConfig,
    TextAudioSet,
    TextImageSet,
)
from trimodal.evaluation.retrieval import similarity
from trimodal.report.comparison import run_from

THINGS = ("dog", "bird", "drum")
COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture(scope="module")
def tool(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return make_tool(tiny_data, tmp_path_factory.mktemp("kinds") / "model")


# Images


def write_images(folder: Path, names: list[str]) -> None:
    (folder / "images").mkdir(parents=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 36)).save(folder / "images" / name)


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """Results of Flickr30k's form: five images of the test split, one of another."""
    folder = tmp_path / "flickr"
    names = [f"10{number}.jpg" for number in range(6)]
    write_images(folder, names)
    lines = ["image_name| comment_number| comment"]
    lines += [f"{n}| {k}| a {c} {thing}" for n, c in zip(names, (*COLOURS, "grey"), strict=True)
              for k, thing in enumerate(THINGS)]  # fmt: skip
    (folder / "results.csv").write_text("\n".join(lines))
    splits = [f"{name},{'test' if number else 'train'}" for number, name in enumerate(names)]
    (folder / "splits.csv").write_text("\n".join(["image_name,split", *splits]))
    return folder


def images(path: Path, **changes: Any) -> TextImageSet:
    given = {
        "kind": "text_image", "path": str(path), "dataset": "flickr30k",
        "annotations": "official", "split": "test", "captions_per_image": 2, "folds": 0,
        "duplicates": "own",
    }  # fmt: skip
    return TextImageSet(**given | changes)


def test_images_are_embedded_as_the_encoder_does(
    flickr: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    metrics, audit = run(tiny_data, tool, images(flickr), out)
    assert set(metrics["directions"]) == {"text_to_image", "image_to_text"}
    assert (audit["queries"], audit["gallery"], audit["distinct_sentences"]) == (10, 5, 10)
    assert audit["left_out"] == {}
    rows = pq.read_table(out / "embeddings.parquet").to_pylist()
    assert [row["query_id"] for row in rows[:3]] == [
        "flickr_101#0", "flickr_101#1", "flickr_102#0",
    ]  # fmt: skip
    files = [flickr / "images" / f"{row['item_id'][7:]}.jpg" for row in rows]
    image = tool.model.embed_images(files)
    np.testing.assert_allclose([row["image"] for row in rows], image, atol=1e-6)
    texts = [f"a {colour} {thing}" for colour in (*COLOURS, "grey")[1:] for thing in THINGS[:2]]
    text = tool.model.embed_text(texts)
    np.testing.assert_allclose([row["text"] for row in rows], text, atol=1e-6)
    scores = similarity(text, image[::2])
    own = scores[np.arange(10), np.repeat(np.arange(5), 2)][:, None]
    ranks = pq.read_table(out / "ranks.parquet").to_pylist()
    of_text = [row["rank"] for row in ranks if row["direction"] == "text_to_image"]
    assert of_text == (1 + (scores > own).sum(axis=1)).tolist()
    assert len(ranks) == 15
    of_series = run_from("a", pq.read_table(out / "ranks.parquet"), audit)
    assert of_series.ranks["text_to_image"].tolist() == of_text
    assert {score: len(names) for score, names in of_series.queries.items()} == {
        "text_to_image": 10, "image_to_text": 5,
    }  # fmt: skip
    assert of_series.test_set == ("text_image", "own", 5)


def test_another_measure_of_images_needs_no_network(
    flickr: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (flickr / "images" / "103.jpg").write_bytes(b"no image")
    few = {"min_coverage": 0.8}
    first = run(tiny_data, tool, images(flickr), tmp_path / "out", **few)
    assert first[1]["left_out"] == {"file not usable": 1}
    assert first[1]["gallery"] == 4
    forbid_networks(monkeypatch)
    assert run(tiny_data, tool, images(flickr), tmp_path / "out", **few) == first
    folds, _ = run(
        tiny_data, tool, images(flickr, folds=2), tmp_path / "out", bootstrap_resamples=9, **few
    )
    assert folds["folds"] == 2
    everything = folds["all_items"]["directions"]["text_to_image"]
    assert everything["R@1"] == first[0]["directions"]["text_to_image"]["R@1"]
    assert "intervals" in everything
    with pytest.raises(DataError, match=r"80\.0 % of the 5 images are usable"):
        run(tiny_data, tool, images(flickr), tmp_path / "out", min_coverage=0.9)


def test_another_picture_of_the_same_name_is_embedded_again(
    flickr: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_data, tool, images(flickr), tmp_path / "out")
    (flickr / "images" / "104.jpg").write_bytes((flickr / "images" / "102.jpg").read_bytes())
    forbid_networks(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="networks were loaded"):
        run(tiny_data, tool, images(flickr), tmp_path / "out")


def test_missing_image_files_are_counted_and_refused(
    flickr: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    (flickr / "images" / "103.jpg").unlink()
    with pytest.raises(DataError, match=r"(?s)80\.0 % of the 5 images.*file missing +1"):
        run(tiny_data, tool, images(flickr), tmp_path / "out")
    _, audit = run(tiny_data, tool, images(flickr), tmp_path / "out", min_coverage=0.8)
    assert audit["left_out"] == {"file missing": 1}


def test_images_of_the_training_data_are_refused_or_left_out(
    flickr: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    """Flickr8k's names have Flickr30k's number; training has flickr_0 and flickr_1."""
    text = (flickr / "results.csv").read_text().replace("102.jpg", "1_0af3.jpg")
    (flickr / "results.csv").write_text(text)
    splits = (flickr / "splits.csv").read_text().replace("102.jpg", "1_0af3.jpg")
    (flickr / "splits.csv").write_text(splits)
    (flickr / "images" / "102.jpg").rename(flickr / "images" / "1_0af3.jpg")
    with pytest.raises(DataError, match=r"1 of 5 test images are in training(?s:.*)image flickr_1"):
        run(tiny_data, tool, images(flickr), tmp_path / "out")
    _, audit = run(tiny_data, tool, images(flickr), tmp_path / "out", "leave_out")
    assert (audit["gallery"], audit["items_in_training_same_picture"]) == (4, 1)
    assert audit["left_out"] == {"seen in training": 1}
    _, audit = run(tiny_data, tool, images(flickr), tmp_path / "out", "keep")
    assert audit["gallery"] == 5


# Sounds


@pytest.fixture
def clotho(tmp_path: Path) -> Path:
    """Four sounds without pictures; the second is shorter than a window."""
    folder = tmp_path / "clotho"
    (folder / "evaluation").mkdir(parents=True)
    rows = [["file_name", *(f"caption_{number}" for number in range(1, 6))]]
    for number in range(4):
        name = f"A sound [{number}] (far).wav"
        rng = np.random.default_rng(number)
        samples = rng.integers(-3000, 3000, RATE_HZ * (1 if number == 1 else 5)).astype("<i2")
        with wave.open(str(folder / "evaluation" / name), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        captions = [f"a {COLOURS[k]} {THINGS[number % 3]} number {number}" for k in range(5)]
        rows.append([name, *captions])
    with (folder / "captions.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)
    return folder


def sounds(path: Path) -> TextAudioSet:
    return TextAudioSet(
        kind="text_audio", path=str(path), captions="captions.csv", media="evaluation",
        duplicates="own",
    )  # fmt: skip


def test_sounds_are_means_over_their_windows(
    clotho: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    metrics, audit = run(tiny_data, tool, sounds(clotho), out, renormalise=True)
    assert set(metrics["directions"]) == {"text_to_audio", "audio_to_text"}
    assert (audit["queries"], audit["gallery"]) == (20, 4)
    assert audit["items_of_unknown_origin"] == 4
    rows = pq.read_table(out / "embeddings.parquet").to_pylist()
    files = [clotho / "evaluation" / row["item_id"] for row in rows]
    audio = tool.model.embed_audio(files)
    np.testing.assert_allclose([row["audio"] for row in rows], audio, atol=1e-6)
    run(tiny_data, tool, sounds(clotho), out)
    means = np.array(
        [row["audio"] for row in pq.read_table(out / "embeddings.parquet").to_pylist()]
    )
    assert np.linalg.norm(means, axis=1).min() < 0.99999
    np.testing.assert_allclose(
        means / np.linalg.norm(means, axis=1, keepdims=True), audio, atol=1e-5
    )
    forbid_networks(monkeypatch)
    run(tiny_data, tool, sounds(clotho), out, bootstrap_resamples=5)


def test_a_sound_that_cannot_be_decoded_is_counted(
    clotho: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    (clotho / "evaluation" / "A sound [2] (far).wav").write_bytes(b"no sound at all")
    with pytest.raises(DataError, match=r"(?s)75\.0 % of the 4 sounds.*file not usable +1"):
        run(tiny_data, tool, sounds(clotho), tmp_path / "out")
    _, audit = run(tiny_data, tool, sounds(clotho), tmp_path / "out", min_coverage=0.75)
    assert (audit["gallery"], audit["left_out"]) == (3, {"file not usable": 1})


def test_audiocaps_of_a_training_video_is_a_leak(
    clotho: Path, tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["abcdefghij0", "abcdefghij1", "abcdefghij2", "abcdefghij3"]
    rows = ["audiocap_id,youtube_id,start_time,caption"]
    for number, name in enumerate(ids):
        rows += [f"{2 * number + k},{name},30,a {THINGS[k]} {number}" for k in range(2)]
        (clotho / "evaluation" / f"A sound [{number}] (far).wav").rename(
            clotho / "evaluation" / f"Y{name}.wav"
        )
    (clotho / "captions.csv").write_text("\n".join(rows))
    _, audit = run(tiny_data, tool, sounds(clotho), tmp_path / "out")
    assert (audit["queries"], audit["gallery"]) == (8, 4)
    assert audit["items_of_unknown_origin"] == 0
    training = pa.table({"split": ["train", "test"], "youtube_id": [ids[2], ids[3]]})
    monkeypatch.setattr("trimodal.evaluation.text_audio.read_table", lambda *_, **__: training)
    with pytest.raises(DataError, match=r"1 of 4 test sounds are in training"):
        run(tiny_data, tool, sounds(clotho), tmp_path / "out")


# Clips


def test_clips_with_sound_find_their_pictures(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny data's test clips have one sound; its training clips stand for a test split."""
    monkeypatch.setattr(
        task_module, "read_index",
        lambda av_dir, split, mel: clip_index.read_index(
            av_dir, "train" if split == "test" else "test", mel
        ),
    )  # fmt: skip
    table = clip_index.read_index(tiny_data.av_dir, "train", tiny_data.mel)
    names = [clip.clip_id for clip in table]
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(f"{name}.mp4,a label" for name in names))
    out = tmp_path / "out"
    given = AudioImageSet(kind="audio_image", path=str(path))
    metrics, audit = run(tiny_data, tool, given, out)
    assert set(metrics["directions"]) == {"audio_to_image", "image_to_audio"}
    assert audit["gallery"] == len(names)
    assert "distinct_sentences" not in audit
    rows = pq.read_table(out / "embeddings.parquet").to_pylist()
    audio, image = (np.array([row[name] for row in rows]) for name in ("audio", "image"))
    scores = similarity(audio.astype(np.float32), image.astype(np.float32))
    recall = 100 * (scores.argmax(axis=1) == np.arange(len(names))).mean()
    assert metrics["directions"]["audio_to_image"]["R@1"] == pytest.approx(recall)
    forbid_networks(monkeypatch)
    path.write_text(path.read_text() + "\nnot_there.mp4,a label")
    with pytest.raises(DataError, match=r"(?s)clips are usable.*not among the extracted"):
        run(tiny_data, tool, given, out)
    _, audit = run(tiny_data, tool, given, out, min_coverage=0.5)
    assert audit["left_out"] == {"not among the extracted test clips": 1}


def test_a_silent_clip_is_left_out(tool: Tool, tiny_data: TinyData, tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("video_id\nvideo9\nvideo10")
    given = AudioImageSet(kind="audio_image", path=str(path))
    with pytest.raises(DataError, match=r"(?s)50\.0 % of the 2 clips.*without audio +1"):
        run(tiny_data, tool, given, tmp_path / "out")
    with pytest.raises(DataError, match="at least 2 clips are needed, not 1"):
        run(tiny_data, tool, given, tmp_path / "out", min_coverage=0.5)


# The section


SETS = {"msrvtt": {"kind": "text_video", "path": "t", "protocol": "standard", "duplicates": "own"}}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"a b": SETS["msrvtt"]}, "evaluate.sets.a b"),
        ({"../a": SETS["msrvtt"]}, "sets"),
        ({"a": {"kind": "text_vide", "path": "t"}}, "text_vide"),
        ({"a": {"path": "t"}}, "sets.a"),
        ({"a": SETS["msrvtt"] | {"folds": 3}}, "sets.a.folds: unknown key"),
        ({"a": {"kind": "text_video", "path": "t", "protocol": "standard"}},
         "sets.a.duplicates: Field required"),
        ({"a": SETS["msrvtt"] | {"protocol": "other"}}, "sets.a.protocol: .*'other'"),
        ({"a": {"kind": "localisation", "path": "t"}}, "sets.a.annotations: Field required"),
        ({"a": {"kind": "zero_shot", "path": "t", "annotations": "demo"}}, "sets.a.annotations"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_named(sets: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(asdict(config()) | {"sets": sets}, "params.yaml: evaluate", EvaluateConfig)


@pytest.mark.parametrize("sets", [{}, {"a": {"kind": "audio_image", "path": "t"}}])
def test_a_run_may_have_no_set_of_videos_or_none_at_all(sets: Any) -> None:
    section = asdict(config()) | {"sets": sets}
    assert len(parse_section(section, "params.yaml: evaluate", EvaluateConfig).sets) == len(sets)
