"""Caption data sets to Parquet and image shards: the contract, counts, reproducible bytes."""

import io
import json
import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_fixtures import KINDS, pack
from configs import MACHINE, config_for_tests
from data_fixtures import contents, write_vectors
from PIL import Image

from trimodal.core.config import ConfigError
from trimodal.core.files import read_table
from trimodal.core.machine import MachineConfig
from trimodal.core.records import DataError
from trimodal.core.schemas import CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.text import read_vocabulary
from trimodal.preprocess.captions import CaptionsConfig, prepare_captions
from trimodal.preprocess.image_shards import stored_jpeg


def write_image(
    path: Path, size: tuple[int, int], mode: str = "RGB", file_format: str = "JPEG"
) -> None:
    pixels = np.random.default_rng(size[0]).integers(0, 255, (size[1], size[0], 4), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path, file_format)


def write_coco(folder: Path, split: str, captions: dict[int, list[str]]) -> None:
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in captions],
        "annotations": [
            {"image_id": number, "caption": text}
            for number, texts in captions.items()
            for text in texts
        ],
    }  # fmt: skip
    path = folder / "annotations" / f"captions_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def config(tmp_path: Path) -> CaptionsConfig:
    """A tiny tree: 5 COCO training images (one corrupt, one missing), 2 validation, 2 Flickr."""
    coco, flickr = tmp_path / "coco", tmp_path / "flickr"
    write_coco(
        coco, "train",
        {
            1: ["A dog runs.", "It is what it is.", "the Dog[and]cat " + "dog " * 20],
            2: ["A grey cat"], 3: ["a transparent cat"], 4: ["corrupt"], 5: ["missing"],
        },
    )  # fmt: skip
    write_coco(coco, "val", {6: ["One dog"], 7: ["unicorn dog"]})
    write_image(coco / "train2017" / "1.jpg", (31, 17))
    write_image(coco / "train2017" / "2.jpg", (9, 40), "L")
    write_image(coco / "train2017" / "3.jpg", (20, 20), "RGBA", "PNG")
    (coco / "train2017" / "4.jpg").write_bytes(b"\xff\xd8\xff\xe0 not an image")
    write_image(coco / "val2017" / "6.jpg", (64, 64))
    write_image(coco / "val2017" / "7.jpg", (1, 1))
    rows = [
        "image_name| comment_number| comment",
        "a.jpg| 0| A bird .",
        "b.jpg| 0   A bird sings .",
    ]
    flickr.mkdir()
    (flickr / "results.csv").write_text("\n".join(rows))
    write_image(flickr / "images" / "a.jpg", (10, 12), "CMYK")
    write_image(flickr / "images" / "b.jpg", (12, 10))
    vectors = write_vectors(tmp_path / "vectors.bin", ["dog", "cat", "bird", "sings", "unused"])
    return config_for_tests(
        CaptionsConfig, coco=str(coco), flickr30k=str(flickr), vectors=str(vectors), image_px=16,
        images_per_shard=3, min_coverage=0.0,
    )  # fmt: skip


def prepare(
    config: CaptionsConfig, out: Path, machine: MachineConfig = MACHINE
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    prepare_captions(config, out / "captions", out / "images", machine)
    rows: list[dict[str, Any]] = pq.read_table(out / "captions" / "captions.parquet").to_pylist()
    return rows, json.loads((out / "captions" / "stats.json").read_text())


def test_table_has_the_contracts_types(config: CaptionsConfig, tmp_path: Path) -> None:
    prepare(config, tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "captions" / "captions.parquet")
    assert {field.name: field.type for field in schema} == {
        "image_id": pa.string(), "split": pa.string(), "source": pa.string(),
        "caption": pa.string(), "tokens": pa.list_(pa.string()),
        "token_ids": pa.list_(pa.int32(), 16),
    }  # fmt: skip


def test_sources_are_merged_and_stop_words_left_out(config: CaptionsConfig, tmp_path: Path) -> None:
    rows, _ = prepare(config, tmp_path / "out")
    assert [(row["image_id"], row["split"], row["source"], row["caption"]) for row in rows] == [
        ("coco_000000000001", "train", "coco", "A dog runs."),
        ("coco_000000000001", "train", "coco", "the Dog[and]cat " + ("dog " * 20).strip()),
        ("coco_000000000002", "train", "coco", "A grey cat"),
        ("coco_000000000003", "train", "coco", "a transparent cat"),
        ("coco_000000000006", "val", "coco", "One dog"),
        ("coco_000000000007", "val", "coco", "unicorn dog"),
        ("flickr_a", "train", "flickr30k", "A bird ."),
        ("flickr_b", "train", "flickr30k", "A bird sings ."),
    ]


def test_token_ids_are_rows_of_the_vocabulary(config: CaptionsConfig, tmp_path: Path) -> None:
    rows, _ = prepare(config, tmp_path / "out")
    vocabulary = read_vocabulary(tmp_path / "out" / "captions" / "vocabulary.parquet")
    assert vocabulary.words[2:] == ("dog", "cat", "bird", "sings")
    assert vocabulary.vectors[4][0] == 3
    assert rows[0]["tokens"] == ["dog", "runs"]
    assert rows[0]["token_ids"] == [2, 1] + [0] * 14
    assert len(rows[1]["tokens"]) == 22
    assert rows[1]["token_ids"] == [2, 3] + [2] * 14


def test_stats_count_everything_with_its_reason(config: CaptionsConfig, tmp_path: Path) -> None:
    rows, stats = prepare(config, tmp_path / "out")
    tokens = [token for row in rows for token in row["tokens"]]
    unknown = [t for t in tokens if t not in ("dog", "cat", "bird", "sings")]
    assert stats == {
        "images": {"coco": {"train": 3, "val": 2}, "flickr30k": {"train": 2}},
        "captions": {"coco": {"train": 4, "val": 2}, "flickr30k": {"train": 2}},
        "words": len(set(tokens)),
        "words_with_vector": 4,
        "spelled_words": 0,
        "learned_words": 0,
        "further_words": 0,
        "unknown_word_share": pytest.approx(1 - 4 / len(set(tokens))),
        "unknown_token_share": pytest.approx(len(unknown) / len(tokens)),
        "left_out": {
            "image file broken": 1, "image file missing": 1, "caption of stop words alone": 1,
        },
    }  # fmt: skip


def test_bad_rows_are_skipped_and_counted(config: CaptionsConfig, tmp_path: Path) -> None:
    before, _ = prepare(config, tmp_path / "before")
    annotations = Path(config.coco) / "annotations" / "captions_val2017.json"
    content = json.loads(annotations.read_text())
    content["annotations"].append({"image_id": 99, "caption": "of no image"})
    annotations.write_text(json.dumps(content))
    with (Path(config.flickr30k) / "results.csv").open("a") as file:
        file.write("\na.jpg| 0| the number again\n")
    rows, stats = prepare(config, tmp_path / "out")
    assert rows == before
    assert stats["left_out"] == {
        "caption of stop words alone": 1,
        "coco: caption of an unknown image": 1,
        "flickr30k: comment number occurs twice": 1,
        "image file broken": 1,
        "image file missing": 1,
    }


def test_summary_line_has_the_counts(
    config: CaptionsConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trimodal"):
        rows, stats = prepare(config, tmp_path / "out")
    (line,) = caplog.messages
    assert line.startswith(f"captions: {len(rows)} captions of 7 images (0.0 MB; ")
    assert "; coco 3 train, 2 val; flickr30k 2 train); " in line
    words, share, tokens = (
        stats["words"], 100 * stats["unknown_word_share"], 100 * stats["unknown_token_share"],
    )  # fmt: skip
    assert f"{words} words; without a vector: {share:.1f} % of words, {tokens:.1f} % of" in line
    assert "left out 3: 1 image file broken, 1 image file missing, 1 caption of stop" in line


def test_frequent_words_are_kept_after_the_captions_own(
    config: CaptionsConfig, tmp_path: Path
) -> None:
    before, _ = prepare(config, tmp_path / "before")
    rows, stats = prepare(replace(config, frequent_words=5), tmp_path / "out")
    vocabulary = read_vocabulary(tmp_path / "out" / "captions" / "vocabulary.parquet")
    assert vocabulary.words[2:] == ("dog", "cat", "bird", "sings", "unused")
    assert rows == before
    assert (stats["words_with_vector"], stats["further_words"]) == (4, 1)


def test_words_without_a_vector_may_get_one_to_learn(
    config: CaptionsConfig, tmp_path: Path
) -> None:
    before, stats = prepare(config, tmp_path / "before")
    counts = Counter(word for row in before for word in row["tokens"])
    known = {"dog", "cat", "bird", "sings"}
    others = {word for word, count in counts.items() if count >= 1} - known
    assert others
    assert stats["learned_words"] == 0
    assert prepare(replace(config, learned_words=99), tmp_path / "rare")[1] == stats
    rows, stats = prepare(replace(config, learned_words=1), tmp_path / "out")
    vocabulary = read_vocabulary(tmp_path / "out" / "captions" / "vocabulary.parquet")
    assert set(vocabulary.words[2:]) == known | others
    assert (stats["learned_words"], stats["further_words"]) == (len(others), 0)
    for word in others:
        row = vocabulary.words.index(word)
        assert not vocabulary.vectors[row].any()
        assert any(row in caption["token_ids"] for caption in rows)


def test_words_without_a_vector_may_have_one_from_their_spelling(
    config: CaptionsConfig, tmp_path: Path
) -> None:
    """Also rare ones; those that share nothing with a known word are learned, or unknown."""
    vectors = write_vectors(tmp_path / "v.bin", ["dog", "unico", "cat", "bird", "sings", "running"])
    subword = replace(config, unknown_words="subword", vectors=str(vectors), frequent_words=9)
    rows, stats = prepare(subword, tmp_path / "out")
    vocabulary = read_vocabulary(tmp_path / "out" / "captions" / "vocabulary.parquet")
    assert vocabulary.spelled == {"runs", "unicorn", "one"} & set(vocabulary.words)
    assert {"runs", "unicorn"} <= vocabulary.spelled
    assert vocabulary.subwords is not None
    for word in vocabulary.spelled:
        row = vocabulary.vectors[vocabulary.words.index(word)]
        np.testing.assert_array_equal(row, vocabulary.subwords.vector(word))
        assert row.any()
    assert rows[0]["token_ids"][1] == vocabulary.words.index("runs") != 1
    assert "grey" not in vocabulary
    assert (stats["spelled_words"], stats["learned_words"]) == (len(vocabulary.spelled), 0)
    assert stats["words_with_vector"] == 4
    assert stats["further_words"] == 2  # unico, running
    stats = prepare(replace(subword, learned_words=1), tmp_path / "learned")[1]
    assert stats["spelled_words"] == len(vocabulary.spelled)
    assert stats["learned_words"] == stats["words"] - 4 - len(vocabulary.spelled)
    learned = read_vocabulary(tmp_path / "learned" / "captions" / "vocabulary.parquet")
    for word in vocabulary.spelled:
        assert learned.vectors[learned.words.index(word)].any()
    prepare(subword, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_nltk_splits_every_caption(
    config: CaptionsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nltk.tokenize import RegexpTokenizer

    given: list[str] = []
    tokenize = RegexpTokenizer.tokenize

    def spy(self: RegexpTokenizer, text: str) -> list[str]:
        given.append(text)
        return list(tokenize(self, text))

    monkeypatch.setattr(RegexpTokenizer, "tokenize", spy)
    rows, _ = prepare(config, tmp_path / "out")
    assert {row["caption"].lower() for row in rows} <= set(given)


def test_captions_of_another_language(
    config: CaptionsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's stop words leave out, the letters stay, and the vocabulary knows the language."""
    from nltk import data

    monkeypatch.setattr(data, "path", [*data.path, str(tmp_path)])
    words = tmp_path / "corpora" / "stopwords" / "german"
    words.parent.mkdir(parents=True)
    words.write_text("ein\nist\n")
    write_coco(Path(config.coco), "val", {6: ["Ein größerer Hund", "Ein"], 7: ["EIN HUND"]})
    vectors = write_vectors(tmp_path / "v.bin", ["größerer", "hund", "über", "ist", "x2"])
    german = replace(config, language="german", vectors=str(vectors), frequent_words=5)
    rows, stats = prepare(german, tmp_path / "out")
    assert [row["tokens"] for row in rows if row["split"] == "val"] == [
        ["größerer", "hund"], ["hund"],
    ]  # fmt: skip
    vocabulary = read_vocabulary(tmp_path / "out" / "captions" / "vocabulary.parquet")
    assert vocabulary.words[2:] == ("hund", "größerer", "über")
    assert vocabulary.tokeniser.words("Über EIN Haus") == ["über", "haus"]
    assert stats["left_out"]["caption of stop words alone"] == 1
    with pytest.raises(ConfigError, match=r"captions\.language"):
        prepare(replace(config, language="klingon"), tmp_path / "other")


def test_karpathys_splits(config: CaptionsConfig, tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "coco": [
            {"cocoid": 6, "split": "restval", "sentences": [{"raw": "One dog"}]},
            {"cocoid": 1, "split": "test", "sentences": [{"raw": "a dog runs"}]},
        ],
        "flickr30k": [
            {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "A bird sings ."}]},
            {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A bird ."}]},
        ],
    }
    for source, folder in (("coco", config.coco), ("flickr30k", config.flickr30k)):
        path = Path(folder) / f"dataset_{source}.json"
        path.write_text(json.dumps({"images": rows[source]}))
    write_image(Path(config.coco) / "val2017" / "000000000006.jpg", (64, 64))
    config = replace(config, coco_annotations="karpathy", flickr30k_annotations="karpathy")
    captions, stats = prepare(config, tmp_path / "out")
    assert [(row["image_id"], row["split"], row["caption"]) for row in captions] == [
        ("coco_000000000006", "train", "One dog"),
        ("flickr_a", "train", "A bird ."),
        ("flickr_b", "val", "A bird sings ."),
    ]
    assert stats["images"] == {"coco": {"train": 1}, "flickr30k": {"train": 1, "val": 1}}
    assert stats["left_out"] == {"coco: image of the test split": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_archives_give_the_same_as_folders(
    kind: str, config: CaptionsConfig, tmp_path: Path
) -> None:
    prepare(config, tmp_path / "folders")
    for name in ("coco/train2017", "coco/val2017", "flickr/images"):
        folder = tmp_path / name
        # In the order of the ids, which a zipped tar follows (test_image_shards has another).
        files = {
            f"{folder.name}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())
        }
        pack(folder.with_name(f"{folder.name}{kind}"), files)
        shutil.rmtree(folder)
    prepare(config, tmp_path / "archives")
    prepare(config, tmp_path / "two", replace(MACHINE, workers=2))
    assert contents(tmp_path / "archives") == contents(tmp_path / "two")
    if kind in (".zip", ".tar"):
        assert contents(tmp_path / "folders") == contents(tmp_path / "archives")
    assert contents(tmp_path / "folders" / "captions") == contents(
        tmp_path / "archives" / "captions"
    )


def test_index_finds_each_image_as_a_small_square_jpeg(
    config: CaptionsConfig, tmp_path: Path
) -> None:
    prepare(config, tmp_path / "out")
    folder = tmp_path / "out" / "images"
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    assert [(row["image_id"], row["shard"]) for row in rows] == [
        ("coco_000000000001", "train-000000.tar"),
        ("coco_000000000002", "train-000000.tar"),
        ("coco_000000000003", "train-000000.tar"),
        ("flickr_a", "train-000001.tar"),
        ("flickr_b", "train-000002.tar"),
        ("coco_000000000006", "val-000000.tar"),
        ("coco_000000000007", "val-000000.tar"),
    ]
    sources = [
        "coco/train2017/1.jpg", "coco/train2017/2.jpg", "coco/train2017/3.jpg",
        "flickr/images/a.jpg", "flickr/images/b.jpg", "coco/val2017/6.jpg", "coco/val2017/7.jpg",
    ]  # fmt: skip
    for row, source in zip(rows, sources, strict=True):
        stored = (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
        with Image.open(io.BytesIO(stored)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (16, 16))
        assert stored == stored_jpeg((tmp_path / source).read_bytes(), 16, 90)


def test_same_bytes_twice_and_with_two_workers(config: CaptionsConfig, tmp_path: Path) -> None:
    prepare(config, tmp_path / "one")
    prepare(config, tmp_path / "again")
    prepare(config, tmp_path / "two", replace(MACHINE, workers=2))
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "again") == contents(tmp_path / "two")
    assert set(first) == {
        "captions/captions.parquet", "captions/stats.json", "captions/token_ids.npy",
        "captions/vocabulary.parquet",
        "images/index.parquet", "images/train-000000.tar", "images/train-000001.tar",
        "images/train-000002.tar", "images/val-000000.tar",
    }  # fmt: skip


def test_split_without_a_usable_image_is_an_error(config: CaptionsConfig, tmp_path: Path) -> None:
    for number in (6, 7):
        (Path(config.coco) / "val2017" / f"{number}.jpg").unlink()
    with pytest.raises(
        DataError, match=r"no usable image in val; left out: .*'image file missing': 3"
    ):
        prepare(config, tmp_path / "out")


@pytest.mark.parametrize("splits", [("val",), ("train", "val")])
def test_split_without_a_usable_caption_is_an_error(
    splits: tuple[str, ...], config: CaptionsConfig, tmp_path: Path
) -> None:
    for split in splits:
        write_coco(Path(config.coco), split, {6 if split == "val" else 1: ["It is what it is."]})
    if "train" in splits:
        rows = "image_name| comment_number| comment\na.jpg| 0| and so on\n"
        (Path(config.flickr30k) / "results.csv").write_text(rows)
    with pytest.raises(DataError, match=r"no caption with words in .*val"):
        prepare(config, tmp_path / "out")


def test_without_captions_there_are_empty_tables_and_no_vocabulary(
    config: CaptionsConfig, tmp_path: Path
) -> None:
    """What an earlier run left goes; the paths and the vectors are not read."""
    out = tmp_path / "out"
    prepare(config, out)
    empty = {"coco": "none", "flickr30k": "none", "vectors": "none"}
    none = {"coco_annotations": "none", "flickr30k_annotations": "none"}
    prepare_captions(replace(config, **empty, **none), out / "captions", out / "images", MACHINE)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {
        "captions/captions.parquet", "captions/token_ids.npy", "captions/stats.json",
        "images/index.parquet",
    }  # fmt: skip
    assert read_table(out / "captions/captions.parquet", CAPTION_SCHEMA).num_rows == 0
    assert np.load(out / "captions/token_ids.npy").shape == (0, 16)
    assert read_table(out / "images/index.parquet", IMAGE_SCHEMA).num_rows == 0


def test_one_source_alone_may_be_left_out(config: CaptionsConfig, tmp_path: Path) -> None:
    _, stats = prepare(
        replace(config, flickr30k="none", flickr30k_annotations="none"), tmp_path / "coco"
    )
    assert set(stats["images"]) == {"coco"}
