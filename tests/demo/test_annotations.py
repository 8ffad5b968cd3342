import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from PIL import Image

from trimodal.core.files import read_table
from trimodal.core.records import DataError
from trimodal.core.schemas import TRUTH_SCHEMA
from trimodal.download.demo.captions import RARE_WORDS
from trimodal.download.demo.scenes import heard_facts, seen_facts
from trimodal.download.demo.world import DemoConfig, World
from trimodal.evaluation.oracle import GroundTruth, Oracle, read_ground_truth

WRITE_AGAIN = """
import json, sys
from pathlib import Path
from trimodal.download.demo.annotations import write_annotations
from trimodal.download.demo.world import DemoConfig, sample_world
cfg = DemoConfig(**json.loads(sys.argv[2]))
write_annotations(sample_world(cfg), Path(sys.argv[1]), cfg)
"""


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_another_process_writes_the_same_bytes(
    cfg: DemoConfig, written: Path, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "-c", WRITE_AGAIN, str(tmp_path), json.dumps(vars(cfg))],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=Path(__file__).parents[2],
    )
    assert digests(tmp_path) == digests(written)


def test_vggsound_rows_are_the_training_clips(world: World, written: Path) -> None:
    text = (written / "vggsound.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert [f"{name}_{int(start):06d}" for name, start, _, _ in rows] == [
        scene.name for scene in world.train
    ]
    assert {split for *_, split in rows} == {"train"}
    with_comma = [label for _, _, label, _ in rows if "," in label]
    assert 0 < len(with_comma) < len(rows) / 2
    assert all(f'"{label}"' in text for label in with_comma)


def test_coco_files_have_five_captions_per_image(
    world: World, cfg: DemoConfig, written: Path
) -> None:
    for split, scenes in (("train", world.images_coco_train), ("val", world.images_coco_val)):
        path = written / "coco" / "annotations" / f"captions_{split}2017.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        assert set(data) == {"info", "licenses", "images", "annotations"}
        assert [image["file_name"] for image in data["images"]] == [s.name for s in scenes]
        counts = Counter(row["image_id"] for row in data["annotations"])
        assert counts == {image["id"]: 5 for image in data["images"]}
        assert len({row["id"] for row in data["annotations"]}) == 5 * len(scenes)
        with zipfile.ZipFile(written / "coco" / f"{split}2017.zip") as archive:
            names = [f"{split}2017/{scene.name}" for scene in scenes]
            assert archive.namelist() == names
            with archive.open(names[0]) as member, Image.open(member) as image:
                assert (image.format, image.size) == ("JPEG", (cfg.frame_px, cfg.frame_px))


def test_flickr_rows_are_intact_except_one(world: World, written: Path) -> None:
    lines = (written / "flickr30k" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "image_name| comment_number| comment"
    fields = [line.split("|") for line in lines[1:]]
    broken = [row for row in fields if len(row) != 3]
    assert len(broken) == 1
    assert re.fullmatch(r" 4   \w.* \.", broken[0][1])
    assert all(
        row[1].strip() in "01234" and row[2].endswith(" .") for row in fields if len(row) == 3
    )
    names = {scene.name for scene in world.images_flickr}
    assert Counter(row[0] for row in fields) == dict.fromkeys(names, 5)
    with zipfile.ZipFile(written / "flickr30k" / "images.zip") as archive:
        assert {name.removeprefix("images/") for name in archive.namelist()} == names


def test_msrvtt_has_one_sentence_per_video(world: World, written: Path) -> None:
    with (written / "MSRVTT_JSFUSION_test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == [scene.name for scene in world.test]
    assert list(rows[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert [rows[0]["key"], rows[0]["vid_key"]] == ["ret0", "msr7000"]
    assert all(len(row["sentence"].split()) >= 2 for row in rows)


def test_vectors_know_training_words_only_and_relate_synonyms(written: Path) -> None:
    vectors = KeyedVectors.load_word2vec_format(str(written / "word2vec.bin"), binary=True)
    assert vectors.vector_size == 300
    assert {"dog", "red", "snow", "barking"} <= set(vectors.key_to_index)
    assert not set(RARE_WORDS) & set(vectors.key_to_index)
    assert np.isfinite(vectors.vectors).all()
    assert vectors.similarity("red", "crimson") > vectors.similarity("red", "blue") + 0.1


def test_ground_truth_is_the_scenes_own_and_captions_are_true(world: World, written: Path) -> None:
    rows = read_ground_truth(written / "truth.parquet")
    with (written / "MSRVTT_JSFUSION_test.csv").open(encoding="utf-8", newline="") as file:
        assert [row.video_id for row in rows] == [r["video_id"] for r in csv.DictReader(file)]
    for row, scene in zip(rows, world.test, strict=True):
        assert row.video_seen == seen_facts(scene)
        assert row.video_heard == heard_facts(scene)
        assert row.has_audio != scene.silent
        assert set(row.caption_seen) <= set(row.video_seen)
        assert set(row.caption_heard) <= set(row.video_heard)


def test_the_truth_has_the_boxes_of_every_frame(
    world: World, cfg: DemoConfig, written: Path
) -> None:
    table = read_table(written / "truth.parquet", TRUTH_SCHEMA)
    for scene, boxes in zip(world.test, table["sounding_boxes"].to_pylist(), strict=True):
        seen_and_heard = sum(sound.on_screen for sound in scene.sounds)
        assert [len(of_frame) for of_frame in boxes] == [seen_and_heard] * round(cfg.clip_seconds)
    assert any(any(boxes) for boxes in table["sounding_boxes"].to_pylist())


def test_oracle_counts_shared_facts() -> None:
    def row(name: str, seen: str, heard: str, caption_seen: str, caption_heard: str) -> GroundTruth:
        return GroundTruth(
            video_id=name,
            video_seen=tuple(seen.split()),
            video_heard=tuple(heard.split()),
            caption_seen=tuple(caption_seen.split()),
            caption_heard=tuple(caption_heard.split()),
            has_audio=bool(heard),
        )

    rows = [
        row("a", "thing=dog dog=red", "hear=dog hear=owl", "thing=dog dog=red", "hear=owl"),
        row("b", "thing=dog dog=blue", "", "thing=dog", ""),
    ]
    scores = Oracle(rows).scores(slice(None))
    np.testing.assert_array_equal(scores["image"], [[2, 1], [1, 1]])
    np.testing.assert_array_equal(scores["audio"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(scores["both"], [[3, 1], [1, 1]])
    assert {s.dtype for s in scores.values()} == {np.dtype(np.float32)}


def test_audio_facts_separate_twins_for_the_oracle(world: World, written: Path) -> None:
    scores = Oracle(read_ground_truth(written / "truth.parquet")).scores(slice(None))
    separated = 0
    for pair in world.twins:
        for own, twin in (pair, pair[::-1]):
            assert scores["image"][own, own] == scores["image"][own, twin]
            separated += int(scores["both"][own, own] > scores["both"][own, twin])
    assert separated >= len(world.twins)


def test_damaged_truth_is_named(tmp_path: Path) -> None:
    (tmp_path / "truth.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"truth\.parquet: not a complete Parquet file"):
        read_ground_truth(tmp_path / "truth.parquet")
