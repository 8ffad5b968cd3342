"""Property tests: readers return valid records of any file or refuse it by name, and what was
written is read back. Single cases are in the tests of each format.
"""

import csv
import io
import json
import string
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from archive_fixtures import KINDS, listed, pack
from data_fixtures import ENGLISH
from fuzz.targets import TARGETS, execute
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from test_checkpoint import CHECKPOINT, VOCABULARY
from training_fixtures import VARIABLE_MARGIN, TinyData

from trimodal.core.archives import ArchiveError, read_file
from trimodal.core.config import load_section
from trimodal.core.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.core.records import Clip, DataError
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.core.shards import read_extent
from trimodal.core.text import Vocabulary, read_vocabulary, write_vocabulary
from trimodal.losses.config import LossConfig
from trimodal.models.checkpoint import read_checkpoint, save_checkpoint
from trimodal.models.preprocessing import decode_jpeg
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.karpathy import read_karpathy
from trimodal.sources.msrvtt import read_queries
from trimodal.sources.vggsound import read_vggsound
from trimodal.training.image_text import ImageTextPairs

Edit = tuple[float, int, bytes]
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 40),
        st.sampled_from([b"", b"\0", b"\xff\xff\xff\xff", b'"', b"\n", b"[", b"../"])
        | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=4,
)
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(str.strip)
TEXT = LINE.filter(bool)
NAME = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=20)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """Each edit replaces ``length`` bytes at a share of the file by other bytes."""
    for share, length, replacement in edits:
        start = int(share * (len(content) + 1))
        content = content[:start] + replacement + content[start + length :]
    return content


@contextmanager
def errors_naming(path: str) -> Iterator[list[str]]:
    """Collects the message of a DataError or ArchiveError in the block; it must name the path."""
    messages: list[str] = []
    try:
        yield messages
    except (DataError, ArchiveError) as error:
        if path not in str(error):
            raise
        messages.append(str(error))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    folder = tmp_path_factory.mktemp("seeds")
    return {name: target.seeds(folder) for name, target in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=30)
@given(edits=EDITS, choice=st.integers(0, 9))
def test_edited_file_is_read_or_refused(
    name: str, seeds: dict[str, list[bytes]], edits: list[Edit], choice: int
) -> None:
    """The properties of valid records are in fuzz/targets.py."""
    with tempfile.TemporaryDirectory() as folder:
        TARGETS[name].prepare(Path(folder))
        seed = seeds[name][choice % len(seeds[name])]
        execute(TARGETS[name], Path(folder), edited(seed, edits))


# Rows


GOOD = [("abcdefghijk", str(start), "dog", "train") for start in range(400)]
ROW = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
               min_size=1, max_size=5)  # fmt: skip


@settings(max_examples=30)
@given(rows=st.lists(ROW, max_size=4))
def test_every_row_is_a_clip_or_a_bad_row(rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vggsound.csv"
        with path.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([*GOOD, *rows])
        clips, bad = read_vggsound(path, ("train", "test"))
    assert len(clips) + bad.total() == len(GOOD) + len(rows)
    assert len(clips) >= len(GOOD)


@settings(max_examples=30)
@given(captions=st.dictionaries(st.integers(0, 10**12 - 1), st.lists(TEXT, min_size=1, max_size=3),
                                min_size=1, max_size=4))  # fmt: skip
def test_captions_round_trip_in_every_format(captions: dict[int, list[str]]) -> None:
    rows = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in captions]
    texts = [{"image_id": n, "caption": t} for n, several in captions.items() for t in several]
    split = [
        {"cocoid": n, "split": "val", "sentences": [{"raw": t} for t in several]}
        for n, several in captions.items()
    ]
    expected = {f"{n:012d}.jpg": tuple(several) for n, several in captions.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "annotations").mkdir()
        path = folder / "annotations" / "captions_val2017.json"
        path.write_text(json.dumps({"images": rows, "annotations": texts}))
        (folder / "dataset_coco.json").write_text(json.dumps({"images": split}))
        for images, bad in (read_coco(folder, "val"), read_karpathy(folder, "coco")):
            assert {image.file_name: image.captions for image in images} == expected
            assert not bad


ONE_LINE = TEXT.filter(lambda text: not {"\n", "\r"} & set(text) and text[0] != "|")


@settings(max_examples=30)
@given(captions=st.dictionaries(NAME, st.lists(ONE_LINE, min_size=1, max_size=3), min_size=1))
def test_flickr_comments_round_trip(captions: dict[str, list[str]]) -> None:
    captions = {f"a{name}": texts for name, texts in captions.items()}
    lines = [f"{n}.jpg| {k}| {t}" for n, several in captions.items() for k, t in enumerate(several)]
    with tempfile.TemporaryDirectory() as folder:
        content = "\n".join(["image_name| comment_number| comment", *lines])
        (Path(folder) / "results.csv").write_bytes(content.encode())
        images, bad = read_flickr30k(Path(folder))
    expected = {f"{name}.jpg": tuple(texts) for name, texts in captions.items()}
    assert {image.file_name: image.captions for image in images} == expected
    assert not bad


@settings(max_examples=30)
@given(sentences=st.dictionaries(NAME, TEXT, min_size=1, max_size=5))
def test_queries_round_trip(sentences: dict[str, str]) -> None:
    rows = [(f"r{k}", "m", name, text) for k, (name, text) in enumerate(sentences.items())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.csv"
        with path.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("key", "vid_key", "video_id", "sentence"), *rows])
        queries, bad = read_queries(path)
        assert {query.video_id: query.sentence for query in queries} == sentences
        entries = [{"video": f"{name}.mp4", "caption": text} for name, text in sentences.items()]
        (path := Path(folder) / "test.json").write_text(json.dumps(entries))
        assert [q.sentence for q in read_queries(path)[0]] == list(sentences.values())
    assert not bad


@settings(max_examples=20)
@given(margin=st.floats(0, 1e6), variable_margin=st.floats(0, 1),
       mode=st.sampled_from(["fixed", "variable"]))  # fmt: skip
def test_params_round_trip(margin: float, variable_margin: float, mode: Any) -> None:
    expected = replace(
        VARIABLE_MARGIN, margin_mode=mode, margin=margin, variable_margin=variable_margin
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(yaml.safe_dump({"loss": asdict(expected)}))
        assert load_section(path, "loss", LossConfig) == expected


@settings(max_examples=20)
@given(epoch=st.integers(0, 2**40), loss=st.floats(allow_nan=False, allow_infinity=False),
       code=NAME, data=st.dictionaries(TEXT, TEXT, max_size=3))  # fmt: skip
def test_checkpoint_round_trip(epoch: int, loss: float, code: str, data: dict[str, str]) -> None:
    expected = replace(CHECKPOINT, epoch=epoch, validation_loss=loss, code=code, data=data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_checkpoint(path, {}, expected)
        assert read_checkpoint(path) == expected


# Tables


OUTCOMES = st.builds(
    ClipOutcome,
    clip=st.builds(
        Clip, clip_id=NAME, source=st.sampled_from(["vggsound", "msrvtt"]),
        split=st.sampled_from(["train", "val", "test"]), label=st.text(max_size=9),
    ),
    path=TEXT, member=st.text(max_size=9), offset=st.integers(0, 2**62),
    status=st.sampled_from(["ok", "corrupt", "no_video"]), reason=st.text(max_size=9),
    duration_s=st.floats(0, 1e300), has_audio=st.booleans(), bytes=st.integers(0, 2**62),
    attempts=st.integers(0, 2**31 - 1), updated_at=st.none() | st.integers(0, 2**40),
)  # fmt: skip


@settings(max_examples=20)
@given(outcomes=st.lists(OUTCOMES, max_size=4))
def test_manifest_round_trip(outcomes: list[ClipOutcome]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder) / "m.parquet", outcomes)
        assert read_manifest(Path(folder) / "m.parquet") == outcomes


@settings(max_examples=20)
@given(words=st.lists(TEXT, max_size=4, unique=True), data=st.data())
def test_vocabulary_round_trip(words: list[str], data: st.DataObject) -> None:
    shape = (2 + len(words), 300)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    vectors = data.draw(arrays(np.float32, shape, elements=finite, fill=finite))
    special = VOCABULARY.words[:2]
    expected = Vocabulary((*special, *(f"w{word}" for word in words)), vectors, ENGLISH)
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(path := Path(folder) / "v.parquet", expected)
        assert read_vocabulary(path).fingerprint == expected.fingerprint


@pytest.fixture(scope="module")
def tables(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small tables as written by the stages."""
    folder = tmp_path_factory.mktemp("tables")
    write_vocabulary(folder / "vocabulary", VOCABULARY)
    return {
        "manifest": (tiny_data.av_dir.parent / "manifest.parquet").read_bytes(),
        "vocabulary": (folder / "vocabulary").read_bytes(),
        "captions": (tiny_data.captions_dir / "captions.parquet").read_bytes(),
        "images": (tiny_data.images_dir / "index.parquet").read_bytes(),
    }


def read_any_table(name: str, path: Path, data: TinyData) -> None:
    if name == "manifest":
        assert all(outcome.duration_s >= 0 for outcome in read_manifest(path))
    elif name == "vocabulary":
        vocabulary = read_vocabulary(path)
        assert np.isfinite(vocabulary.vectors).all()
        assert vocabulary.token_ids(["cat"])[0] in range(len(vocabulary.words))
    else:
        captions_dir, images_dir = path.parent, data.images_dir
        if name == "images":
            captions_dir, images_dir = data.captions_dir, path.parent
            for shard in data.images_dir.glob("*.tar"):
                (images_dir / shard.name).symlink_to(shard)
        else:
            (captions_dir / "token_ids.npy").symlink_to(data.captions_dir / "token_ids.npy")
        ImageTextPairs(captions_dir, images_dir, "train", data.augment, seed=1)


FILES = {"manifest": "m.parquet", "vocabulary": "v.parquet", "captions": "captions.parquet",
         "images": "index.parquet"}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=30)
@given(edits=EDITS)
def test_damaged_table_is_read_or_refused(
    name: str, tables: dict[str, bytes], tiny_data: TinyData, edits: list[Edit]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILES[name]
        path.write_bytes(edited(tables[name], edits))
        with errors_naming(folder):
            read_any_table(name, path, tiny_data)


# Archives, shards and images


@pytest.fixture(scope="module")
def valid_archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("archives")
    files = {f"é/{i}.jpg": b"ab" * i * 99 for i in range(4)}
    return {kind: pack(folder / f"a{kind}", files).read_bytes() for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archive_is_read_or_named(kind: str, valid_archives: dict[str, bytes]) -> None:
    problems = Counter[bool]()

    @settings(max_examples=40)
    @given(edits=EDITS)
    def damaged(edits: list[Edit]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / f"b{kind}"
            archive.write_bytes(edited(valid_archives[kind], edits))
            files, problem = listed(archive)
            assert not problem or str(archive) in problem
            broken = bool(problem)
            for file in files:
                with errors_naming(str(archive)) as messages:
                    assert len(read_file(file)) == file.size
                broken |= bool(messages)
        problems[broken] += 1

    damaged()
    assert problems[True] > 20


@settings(max_examples=20)
@given(members=st.dictionaries(NAME, st.binary(max_size=1200), min_size=1, max_size=4), key=NAME)
def test_members_of_a_shard_are_where_its_extents_say(members: dict[str, bytes], key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        extents = write_shard(path, [Sample(key=key, members=members)])[key]
        assert list(extents) == sorted(members)
        for suffix, extent in extents.items():
            assert read_extent(path, extent.offset, extent.size) == members[suffix]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@settings(max_examples=60)
@given(edits=EDITS)
def test_damaged_jpeg_is_pixels_or_a_value_error(edits: list[Edit]) -> None:
    try:
        pixels = decode_jpeg(edited(jpeg(), edits))
    except ValueError:
        return
    assert pixels.shape[0] == 3
    assert pixels.numel() <= 3 * 2**24


def test_jpeg_that_claims_four_gigapixels_is_not_decoded() -> None:
    content = jpeg()
    start = content.index(b"\xff\xc0") + 5
    with pytest.raises(ValueError, match="65500 x 65500"):
        decode_jpeg(content[:start] + b"\xff\xdc\xff\xdc" + content[start + 4 :])


# Tokens


@settings(max_examples=60)
@given(caption=st.text() | st.text(st.sampled_from("aA\u0130\u0131\u017f\u212a'\xe9 0\n\u202e🐕")))
def test_tokens_of_tokens_are_the_same(caption: str) -> None:
    tokens = ENGLISH.words(caption)
    assert all(set(token) <= set(string.ascii_lowercase) and token for token in tokens)
    assert not ENGLISH.stop_words & set(tokens)
    assert ENGLISH.words(" ".join(tokens)) == tokens
