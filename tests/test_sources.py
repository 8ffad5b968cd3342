"""The official annotation files as they are, and every broken one refused by file and row."""

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import REAL, needs_real_data, write_vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.records import DataError
from trimodal.sources.coco import read_coco
from trimodal.sources.flickr30k import read_flickr30k
from trimodal.sources.msrvtt import read_queries
from trimodal.sources.msrvtt import wanted_videos as clips_of_queries
from trimodal.sources.vggsound import read_vggsound
from trimodal.sources.word2vec import read_vectors

BOTH = ("train", "test")
ID = "abcdefghijk"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


def refused(read: Callable[[], Any], *named: str) -> None:
    """The reader raises DataError whose message has every one of ``named``."""
    with pytest.raises(DataError) as caught:
        read()
    for part in named:
        assert part in str(caught.value)


def vggsound(file: Path, text: str, splits: Any = BOTH) -> list[Any]:
    file.write_text(text, encoding="utf-8")
    return read_vggsound(file, splits)


# VGGSound


def test_vggsound_rows_in_file_order(file: Path) -> None:
    clips = vggsound(
        file,
        f'-{ID[1:]},30,"dog, barking",train\n_{ID[1:]},5,rain,test\n'
        f'{ID},0,"a ""loud"" bang",train\n',
    )
    assert [(clip.clip_id, clip.label) for clip in clips] == [
        (f"-{ID[1:]}_000030", "dog, barking"),
        (f"_{ID[1:]}_000005", "rain"),
        (f"{ID}_000000", 'a "loud" bang'),
    ]
    assert {(clip.source, clip.split) for clip in clips} == {("vggsound", "train")}


def test_vggsound_id_may_occur_with_two_starts(file: Path) -> None:
    clips = vggsound(file, f"{ID},30,dog,train\n{ID},60,dog,train\n")
    assert [clip.clip_id for clip in clips] == [f"{ID}_000030", f"{ID}_000060"]


def test_vggsound_byte_order_mark_crlf_and_empty_lines_are_no_rows(file: Path) -> None:
    clips = vggsound(file, f"\ufeff{ID},30,dog,train\r\n\r\n{ID},60,dog,train\r\n\r\n")
    assert len(clips) == 2


@pytest.mark.parametrize(
    ("splits", "starts"), [(("train",), ["01"]), (("test",), ["02"]), ((), [])]
)
def test_vggsound_splits_are_filtered(splits: Any, starts: list[str], file: Path) -> None:
    clips = vggsound(file, f"{ID},1,dog,train\n{ID},2,dog,test\n", splits)
    assert [clip.clip_id[-2:] for clip in clips] == starts


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (f"{ID},1,dog,train", "occurs twice"),
        (f"{ID},01,dog,train", "occurs twice"),
        (f"{ID},2,dog", "3 columns"),
        (f"{ID},2,dog, barking,train", "5 columns"),
        ("abc,2,dog,train", "'abc'"),
        ("../../../ab,2,dog,train", "'../../../ab'"),
        (f"{ID}\0,2,dog,train", "YouTube id"),
        (f"{ID},-2,dog,train", "'-2'"),
        (f"{ID},2.5,dog,train", "'2.5'"),
        (f"{ID},²,dog,train", "'²'"),
        (f"{ID},1000000,dog,train", "'1000000'"),
        (f"{ID},,dog,train", "''"),
        (f"{ID},2,dog,val", "'val'"),
        (f'{ID},2,"dog,train', "3 columns"),
    ],
)
def test_vggsound_bad_row_is_named(row: str, named: str, file: Path) -> None:
    text = f"{ID},1,dog,train\n\n{row}\n"
    refused(lambda: vggsound(file, text), str(file), "row 3", named)


def test_vggsound_row_of_an_unwanted_split_is_checked_too(file: Path) -> None:
    refused(lambda: vggsound(file, f"{ID},x,dog,test\n", ("train",)), "row 1", "'x'")


def test_vggsound_pair_in_both_splits_is_refused(file: Path) -> None:
    text = f"{ID},1,dog,test\n{ID},1,dog,train\n"
    refused(lambda: vggsound(file, text, ("train",)), "row 2", "occurs twice")


# MSR-VTT

HEADER = "key,vid_key,video_id,sentence\n"


def queries(file: Path, text: str) -> list[Any]:
    file.write_text(text, encoding="utf-8")
    return read_queries(file)


def test_msrvtt_queries_in_file_order(file: Path) -> None:
    read = queries(
        file, f'\ufeff{HEADER}ret0,msr2,video2,"a man, a ""plan"""\r\n\r\nret1,msr1,video1,é\r\n'
    )
    assert [(q.query_id, q.video_id, q.sentence) for q in read] == [
        ("ret0", "video2", 'a man, a "plan"'),
        ("ret1", "video1", "é"),
    ]


def test_msrvtt_columns_are_found_by_name(file: Path) -> None:
    (query,) = queries(file, "sentence,video_id,extra,vid_key,key\na dog,v,x,m,r\n")
    assert (query.query_id, query.video_id, query.sentence) == ("r", "v", "a dog")


def test_msrvtt_clips_are_the_queries_videos(file: Path) -> None:
    queries(file, f"{HEADER}ret0,msr2,video2,a\nret1,msr1,video1,b\n")
    clips = clips_of_queries(file)
    assert [clip.clip_id for clip in clips] == ["video2", "video1"]
    assert {(clip.source, clip.split) for clip in clips} == {("msrvtt", "test")}


@pytest.mark.parametrize("column", ["key", "vid_key", "video_id", "sentence"])
def test_msrvtt_missing_column_is_named(column: str, file: Path) -> None:
    header = ",".join(name for name in HEADER.strip().split(",") if name != column)
    refused(lambda: queries(file, f"{header}\na,b,c\n"), str(file), column)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("ret1,msr1,video1", "columns"),
        ("ret1,msr1,video0,again", "video0 occurs twice"),
        ("ret1,msr1,video1,", "empty sentence"),
        ('ret1,msr1,video1,"  "', "empty sentence"),
        ("ret1,msr1,../video1,a dog", "'../video1'"),
        ("ret/1,msr1,video1,a dog", "'ret/1'"),
        ("ret1,msr1,video1,a man, a plan", "columns"),
    ],
)
def test_msrvtt_bad_row_is_named(row: str, named: str, file: Path) -> None:
    text = f"{HEADER}ret0,msr0,video0,a dog\n{row}\n"
    refused(lambda: queries(file, text), str(file), "row 3", named)


def test_msrvtt_row_numbers_count_empty_lines(file: Path) -> None:
    text = f"{HEADER}ret0,msr0,video0,a dog\n\nret1,msr1,video1,\n"
    refused(lambda: queries(file, text), "row 4")


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n\n"])
def test_msrvtt_file_without_queries_is_refused(text: str, file: Path) -> None:
    refused(lambda: queries(file, text), str(file))


# COCO


def coco_content() -> dict[str, Any]:
    return {
        "images": [{"id": 9, "file_name": "9.jpg"}, {"id": 4, "file_name": "4.jpg"}],
        "annotations": [
            {"image_id": 9, "caption": "second image, first"},
            {"image_id": 4, "caption": " only one \n"},
            {"image_id": 9, "caption": "a comment"},
        ],
    }


def coco(folder: Path, content: Any) -> list[Any]:
    path = folder / "annotations" / "captions_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(folder, "val")


def test_coco_images_by_id_and_captions_in_annotation_order(tmp_path: Path) -> None:
    read = coco(tmp_path, coco_content())
    assert [(image.image_id, image.file_name, image.captions) for image in read] == [
        ("coco_000000000004", "4.jpg", ("only one",)),
        ("coco_000000000009", "9.jpg", ("second image, first", "a comment")),
    ]
    assert {(image.source, image.split) for image in read} == {("coco", "val")}


def test_coco_image_without_caption_is_no_captioned_image(tmp_path: Path) -> None:
    content = coco_content()
    content["images"].append({"id": 5, "file_name": "5.jpg"})
    assert len(coco(tmp_path, content)) == 2


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (("images",), None, "'images'"),
        (("annotations",), {}, "'annotations'"),
        (("images", 0), "x", "images"),
        (("images", 0), {"id": 9}, "'file_name'"),
        (("images", 0), {"file_name": "9.jpg"}, "'id'"),
        (("images", 0, "id"), "9", "'id'"),
        (("images", 0, "file_name"), 9, "'file_name'"),
        (("images", 0, "file_name"), "../9.jpg", "'../9.jpg'"),
        (("images", 0, "file_name"), "/etc/passwd", "'/etc/passwd'"),
        (("annotations", 0), {"image_id": 9}, "'caption'"),
        (("annotations", 0), {"caption": "x"}, "'image_id'"),
        (("annotations", 0, "image_id"), 7, "image_id 7"),
        (("annotations", 0, "caption"), " \n", "image 9 has an empty caption"),
        (("annotations", 0, "caption"), None, "'caption'"),
    ],
)
def test_coco_bad_key_is_named(
    where: tuple[Any, ...], value: Any, named: str, tmp_path: Path
) -> None:
    content = coco_content()
    place: Any = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    refused(lambda: coco(tmp_path, content), "captions_val2017.json", named)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"images"', "{} {}"])
def test_coco_json_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    refused(lambda: coco(tmp_path, text), "captions_val2017.json")


def test_coco_caption_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["caption"] = "half a surrogate pair \ud83d"
    refused(lambda: coco(tmp_path, content), "captions_val2017.json", "9")


# Flickr30k

FIRST = "image_name| comment_number| comment\n"


def flickr(folder: Path, text: str) -> dict[str, tuple[str, ...]]:
    (folder / "results.csv").write_text(text, encoding="utf-8", newline="")
    return {image.file_name: image.captions for image in read_flickr30k(folder)}


def test_flickr_captions_in_comment_order_and_images_by_name(tmp_path: Path) -> None:
    text = "\ufeff" + FIRST + 'b_2.jpg| 1| Second , "one" .\r\nb_2.jpg| 0| First .\n\na.jpg|0|x\n'
    assert flickr(tmp_path, text) == {"a.jpg": ("x",), "b_2.jpg": ("First .", 'Second , "one" .')}
    images = read_flickr30k(tmp_path)
    assert [image.image_id for image in images] == ["flickr_a", "flickr_b_2"]
    assert {(image.source, image.split) for image in images} == {("flickr30k", "train")}


def test_flickr_official_row_without_its_separator_is_read(tmp_path: Path) -> None:
    text = FIRST + "2199200615.jpg| 3| A dog .\n2199200615.jpg| 4   A dog runs across the grass .\n"
    assert flickr(tmp_path, text) == {
        "2199200615.jpg": ("A dog .", "A dog runs across the grass .")
    }


def test_flickr_caption_may_hold_the_separator(tmp_path: Path) -> None:
    text = FIRST + "a.jpg| 0| a sign says | stop\na.jpg| 1   a sign | again\n"
    assert flickr(tmp_path, text) == {"a.jpg": ("a sign says | stop", "a sign | again")}


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c"])
def test_flickr_only_line_ends_end_a_row(mark: str, tmp_path: Path) -> None:
    (captions,) = flickr(tmp_path, f"{FIRST}a.jpg| 0| a dog{mark}runs\n").values()
    assert captions == (f"a dog{mark}runs",)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("a.jpg| 0| again", "comment 0"),
        ("a.jpg| 00| again", "comment 0"),
        ("a.jpg| 1|", "a.jpg| 1|"),
        ("a.jpg| 1 |", "a.jpg| 1 |"),
        ("a.jpg| 1|   ", "a.jpg| 1|"),
        ("a.jpg| 1", "a.jpg| 1"),
        ("a.jpg| one| a dog", "one"),
        ("a.jpg| -1| a dog", "-1"),
        ("a.jpg, 1, a dog", "a.jpg, 1"),
        ("| 1| a dog", "| 1|"),
        ("a.jpg|| a dog", "a.jpg||"),
        ("../a.jpg| 1| a dog", "'../a.jpg'"),
        ("a b.jpg| 1| a dog", "a b"),
        ("é.jpg| 1| a dog", "é"),
    ],
)
def test_flickr_bad_row_is_named(row: str, named: str, tmp_path: Path) -> None:
    text = f"{FIRST}a.jpg| 0| a dog\n\n{row}\n"
    refused(lambda: flickr(tmp_path, text), str(tmp_path / "results.csv"), "row 4", named)


def test_flickr_two_files_that_would_share_an_image_id_are_refused(tmp_path: Path) -> None:
    text = f"{FIRST}a.jpg| 0| a dog\na.png| 0| a cat\n"
    refused(lambda: flickr(tmp_path, text), "results.csv", "a.png")


@pytest.mark.parametrize("text", ["", "a.jpg| 0| a dog\n", "name,caption\n"])
def test_flickr_file_without_its_header_is_refused(text: str, tmp_path: Path) -> None:
    refused(lambda: flickr(tmp_path, text), "results.csv")


# Files that are not text, and text that is anything


def plain_reader(name: str, path: Path, content: bytes) -> Any:
    """Puts ``content`` where the reader looks and reads it."""
    path.mkdir(parents=True, exist_ok=True)
    if name == "coco":
        (path / "annotations").mkdir(exist_ok=True)
        (path / "annotations" / "captions_val2017.json").write_bytes(content)
        return read_coco(path, "val")
    (path / "results.csv").write_bytes(content)
    if name == "flickr":
        return read_flickr30k(path)
    if name == "vggsound":
        return read_vggsound(path / "results.csv", BOTH)
    return read_queries(path / "results.csv")


READERS = ("vggsound", "msrvtt", "coco", "flickr")
START = {
    "vggsound": f"{ID},1,dog,train\n{ID},2,",
    "msrvtt": f"{HEADER}r,m,v,s\nq,n,",
    "coco": '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [',
    "flickr": f"{FIRST}a.jpg| 0| x\nb.jpg| ",
}
PIECES = [
    ID, "1", "01", ",", '"', "\n", "\r", "\0", "|", "| ", " ", "   ", "train", "test", "a.jpg",
    "b.jpg", "video1", "../x", '{"image_id": 1, "caption": "x"}', '{"image_id": 1}', "]", "}", "[",
    "{", "null", "\ufeff", "\u2028", "é", "²", "٣", "-",
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_file_that_is_not_utf8_is_refused_by_name(reader: str, tmp_path: Path) -> None:
    content = START[reader].encode() + b"\xff\xfe\n"
    refused(lambda: plain_reader(reader, tmp_path, content), tmp_path.name)


@pytest.mark.parametrize("reader", READERS)
def test_row_that_never_closes_its_quote_is_refused(reader: str, tmp_path: Path) -> None:
    content = START[reader] + '"' + "x" * 1_000_000
    refused(lambda: plain_reader(reader, tmp_path, content.encode()), tmp_path.name)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_any_text_is_parsed_or_refused(reader: str, data: st.DataObject) -> None:
    tail = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
    text = data.draw(st.just(START[reader]) | st.just("")) + data.draw(tail)
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = plain_reader(reader, Path(folder), text.encode())
        except DataError:
            return
    for record in read:
        for name in ("clip_id", "image_id", "file_name", "query_id", "video_id"):
            assert re.fullmatch(r"[\w.-]+", getattr(record, name, "x"), re.ASCII)
        assert all(caption.strip() for caption in getattr(record, "captions", ()))


# word2vec


def test_word2vec_knows_the_words_it_has(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.bin", ["cat", "dog", "é"])
    vectors = read_vectors(path, ["dog", "é", "unicorn"], 300)
    assert set(vectors) == {"dog", "é"}
    assert vectors["dog"].dtype == np.float32
    assert vectors["dog"].tolist() == [2.0] * 300
    assert vectors["é"].tolist() == [3.0] * 300


def test_word2vec_of_another_width_is_refused(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.bin", ["cat"], width=100)
    refused(lambda: read_vectors(path, ["cat"], 300), str(path), "100", "300")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_word2vec_vector_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    vectors = {w: np.ones(300, np.float32) for w in ("cat", "dog")}
    vectors["dog"][7] = bad
    path = write_vectors(tmp_path / "v.bin", vectors)
    refused(lambda: read_vectors(path, ["cat", "dog"], 300), str(path), "'dog'")
    assert set(read_vectors(path, ["cat"], 300)) == {"cat"}


@pytest.mark.parametrize("kept", [0, 1, 5, 7, 10, 100, 1000, -1])
def test_word2vec_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "v.bin", ["cat", "dog"])
    path.write_bytes(path.read_bytes()[:kept])
    refused(lambda: read_vectors(path, ["cat"], 300), str(path))


@pytest.mark.parametrize(
    "content", [b"hello\n", b"x y\n", b"1 300 7\n", b"\x80\x04\x95\n", b"PK\x03\x04", b"-1 300\n"]
)
def test_word2vec_file_of_another_format_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "v.bin"
    path.write_bytes(content)
    refused(lambda: read_vectors(path, ["cat"], 300), str(path))


# Real data


@needs_real_data
def test_real_clips_as_a_retrieval_test() -> None:
    read = read_queries(REAL / "msrvtt_style_test.csv")
    assert len(read) == 60
    assert {q.video_id for q in read} == {path.stem for path in (REAL / "clips").iterdir()}


@needs_real_data
def test_real_msrvtt_has_a_thousand_queries() -> None:
    path = REAL / "annotations" / "MSRVTT_JSFUSION_test.csv"
    read = read_queries(path)
    assert len(read) == len({q.query_id for q in read}) == 1000
    assert (read[0].video_id, read[0].sentence) == (
        "video9770",
        "a person is connecting something to system",
    )


@needs_real_data
def test_real_vggsound_rows() -> None:
    assert len(read_vggsound(REAL / "vggsound.csv", BOTH)) == 16
    parts = [read_vggsound(REAL / "vggsound.csv", (split,)) for split in BOTH]
    assert sum(map(len, parts)) == 16


@needs_real_data
def test_official_vggsound_test_split(file: Path) -> None:
    """The 15,446 rows (file name, label) written as the official four columns."""
    with (REAL / "annotations" / "vggsound_test_split.csv").open(newline="") as lines:
        named = list(csv.reader(lines))
    with file.open("w", newline="") as lines:
        for name, label in named:
            csv.writer(lines).writerow([name[:11], int(name[12:18]), label, "test"])
    clips = read_vggsound(file, ("test",))
    assert [(f"{clip.clip_id}.mp4", clip.label) for clip in clips] == [tuple(row) for row in named]
    assert len(clips) == 15_446


@needs_real_data
def test_real_flickr_has_five_captions_an_image() -> None:
    images = read_flickr30k(REAL / "flickr8k")
    assert len(images) == 7000
    assert {len(image.captions) for image in images} == {5}


@needs_real_data
def test_real_coco_images_are_all_there() -> None:
    for split in ("train", "val"):
        images = read_coco(REAL / "coco", split)  # type: ignore[arg-type]
        names = {path.name for path in (REAL / "coco" / f"{split}2017").iterdir()}
        assert {image.file_name for image in images} == names
        assert len(images) == 20


@needs_real_data
def test_official_coco_validation_captions(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    shutil.copy(
        REAL / "annotations" / "coco_captions_val2017_full.json",
        tmp_path / "annotations" / "captions_val2017.json",
    )
    images = read_coco(tmp_path, "val")
    assert len(images) == 5000
    assert sum(len(image.captions) for image in images) == 25_014


@needs_real_data
def test_real_vectors() -> None:
    vectors = read_vectors(REAL / "word2vec" / "glove300-1576.bin", ["dog", "man", "qqqq"], 300)
    assert set(vectors) == {"dog", "man"}
    assert vectors["dog"].shape == (300,)
