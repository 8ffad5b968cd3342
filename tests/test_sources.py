"""The official VGGSound and MSR-VTT files; broken ones are refused by file and row."""

import csv
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REAL, needs_real_data, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.core.records import DataError
from trimodal.sources.msrvtt import read_queries
from trimodal.sources.vggsound import read_vggsound

BOTH = ("train", "test")
ID = "abcdefghijk"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


def vggsound(file: Path, text: str, splits: Any = BOTH) -> list[Any]:
    file.write_text(text, encoding="utf-8")
    return read_vggsound(file, splits)[0]


# VGGSound


def test_vggsound_rows_in_file_order(file: Path) -> None:
    clips = vggsound(
        file,
        f'-{ID[1:]},30,"dog, barking",train\n_{ID[1:]},5,rain,test\n'
        f'{ID},0,"a ""loud"" bang",train\n',
    )
    assert [(clip.clip_id, clip.label, clip.youtube_id) for clip in clips] == [
        (f"-{ID[1:]}_000030", "dog, barking", f"-{ID[1:]}"),
        (f"_{ID[1:]}_000005", "rain", f"_{ID[1:]}"),
        (f"{ID}_000000", 'a "loud" bang', ID),
    ]
    assert {(clip.source, clip.split) for clip in clips} == {("vggsound", "train")}


def test_vggsound_id_may_occur_with_two_starts(file: Path) -> None:
    clips = vggsound(file, f"{ID},30,dog,train\n{ID},60,dog,train\n")
    assert [clip.clip_id for clip in clips] == [f"{ID}_000030", f"{ID}_000060"]


def test_vggsound_byte_order_mark_crlf_and_empty_lines_are_ignored(file: Path) -> None:
    clips = vggsound(file, f"\ufeff{ID},30,dog,train\r\n\r\n{ID},60,dog,train\r\n\r\n")
    assert len(clips) == 2


@pytest.mark.parametrize(
    ("splits", "starts"),
    [(("train",), ["01"]), (("test",), ["02"]), (("train", "test"), ["01", "02"])],
)
def test_vggsound_splits_are_filtered(splits: Any, starts: list[str], file: Path) -> None:
    clips = vggsound(file, f"{ID},1,dog,train\n{ID},2,dog,test\n", splits)
    assert [clip.clip_id[-2:] for clip in clips] == starts


@pytest.mark.parametrize(
    ("splits", "left_out"),
    [
        (("train",), {"vggsound: clip of the test split": 3, "vggsound: no YouTube id": 1}),
        (("test",), {"vggsound: clip of the train split": 2, "vggsound: no YouTube id": 1}),
        (BOTH, {"vggsound: no YouTube id": 1}),
    ],
)
def test_vggsound_clips_of_other_splits_are_counted(
    splits: Any, left_out: dict[str, int], file: Path
) -> None:
    rows = [f"{ID},{n},dog,{'train' if n < 2 else 'test'}\n" for n in range(5)]
    file.write_text("".join(rows) + "x,9,dog,test\n")
    assert read_vggsound(file, splits)[1] == left_out


def test_vggsound_clips_of_other_splits_are_not_bad_rows(file: Path) -> None:
    """However many there are; a duplicate in another split is one."""
    file.write_text(f"{ID},1,dog,train\n" + "".join(f"{ID},{n},dog,test\n" for n in range(1, 99)))
    clips, left_out = read_vggsound(file, ("train",))
    assert len(clips) == 1
    assert left_out == {"vggsound: clip of the test split": 97, "vggsound: a clip occurs twice": 1}


def test_vggsound_without_a_clip_of_the_splits_is_refused(file: Path) -> None:
    file.write_text(f"{ID},1,dog,train\n")
    refused(lambda: read_vggsound(file, ("test",)), str(file), "no usable rows")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{ID},1,dog,train", "a clip occurs twice"),
        (f"{ID},01,dog,train", "a clip occurs twice"),
        (f"{ID},1,dog,test", "a clip occurs twice"),
        (f"{ID},2,dog", "row has not 4 columns"),
        (f"{ID},2,dog, barking,train", "row has not 4 columns"),
        ("abc,2,dog,train", "no YouTube id"),
        ("../../../ab,2,dog,train", "no YouTube id"),
        (f"{ID}\0,2,dog,train", "no YouTube id"),
        (f"{ID},-2,dog,train", "start second is no whole number"),
        (f"{ID},2.5,dog,train", "start second is no whole number"),
        (f"{ID},²,dog,train", "start second is no whole number"),
        (f"{ID},1000000,dog,train", "start second is no whole number"),
        (f"{ID},,dog,train", "start second is no whole number"),
        (f"{ID},2,dog,val", "split is not train or test"),
        (f"{ID},x,dog,test", "start second is no whole number"),
        (f'{ID},2,"dog,train', "row has not 4 columns"),
    ],
)
def test_vggsound_bad_row_is_counted_and_the_others_are_read(
    row: str, reason: str, file: Path
) -> None:
    file.write_text(f"{ID},1,dog,train\n\n{ID},7,dog,train\n{row}\n")
    clips, bad = read_vggsound(file, ("train",))
    assert [clip.clip_id[-2:] for clip in clips] == ["01", "07"]
    assert bad == {f"vggsound: {reason}": 1}


def test_vggsound_rows_inside_an_unclosed_quote_are_all_counted(file: Path) -> None:
    good = "".join(f"{ID},{start},dog,train\n" for start in range(400))
    swallowed = "".join(f"{ID},{start},cat,train\n" for start in range(500, 503))
    file.write_text(f'{good}{ID},499,"dog,train\n{swallowed}')
    clips, bad = read_vggsound(file, ("train",))
    assert len(clips) == 400
    assert bad == {"vggsound: row has not 4 columns": 4}
    file.write_text(f'{good}{ID},499,"dog,train\n{swallowed * 2}')
    refused(lambda: read_vggsound(file, ("train",)), "7 of 407", "row 401")


def test_vggsound_file_with_many_bad_rows_is_refused(file: Path) -> None:
    good = "".join(f"{ID},{start},dog,train\n" for start in range(400))
    file.write_text(good + f"{ID},x,dog,train\n" * 4)
    assert len(read_vggsound(file, ("train",))[0]) == 400
    file.write_text(good + f"{ID},x,dog,train\n" * 5)
    refused(lambda: read_vggsound(file, ("train",)), str(file), "5 of 405", "row 401")


# Files that are not text, and arbitrary text


def read_bytes(name: str, path: Path, content: bytes) -> Any:
    """Writes ``content`` into a CSV file and reads it."""
    (path / "results.csv").write_bytes(content)
    if name == "vggsound":
        return read_vggsound(path / "results.csv", BOTH)[0]
    return read_queries(path / "results.csv")[0]


READERS = ("vggsound", "msrvtt")
START = {
    "vggsound": f"{ID},1,dog,train\n{ID},2,",
    "msrvtt": "key,vid_key,video_id,sentence\nr,m,v,s\nq,n,",
}
PIECES = [
    ID, "1", "01", ",", '"', "\n", "\r", "\0", " ", "   ", "train", "test", "video1", "../x",
    "\ufeff", "\u2028", "é", "²", "٣", "-",
]  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_file_that_is_not_utf8_is_refused_by_name(reader: str, tmp_path: Path) -> None:
    content = START[reader].encode() + b"\xff\xfe\n"
    refused(lambda: read_bytes(reader, tmp_path, content), tmp_path.name)


@pytest.mark.parametrize("reader", READERS)
def test_row_with_an_unclosed_quote_is_refused(reader: str, tmp_path: Path) -> None:
    content = START[reader] + '"' + "x" * 1_000_000
    refused(lambda: read_bytes(reader, tmp_path, content.encode()), tmp_path.name)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=50)
@given(data=st.data())
def test_any_text_is_parsed_or_refused(reader: str, data: st.DataObject) -> None:
    tail = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
    text = data.draw(st.just(START[reader]) | st.just("")) + data.draw(tail)
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = read_bytes(reader, Path(folder), text.encode())
        except DataError:
            return
    for record in read:
        for name in ("clip_id", "query_id", "video_id"):
            assert re.fullmatch(r"[\w-]+", getattr(record, name, "x"), re.ASCII)


# Real data


@needs_real_data
def test_real_vggsound_rows() -> None:
    assert len(read_vggsound(REAL / "vggsound.csv", BOTH)[0]) == 16
    parts = [read_vggsound(REAL / "vggsound.csv", (split,))[0] for split in BOTH]
    assert sum(map(len, parts)) == 16


@needs_real_data
def test_official_vggsound_test_split(file: Path) -> None:
    """The 15,446 rows (file name, label), written with the official four columns."""
    with (REAL / "annotations" / "vggsound_test_split.csv").open(newline="") as lines:
        named = list(csv.reader(lines))
    with file.open("w", newline="") as lines:
        for name, label in named:
            csv.writer(lines).writerow([name[:11], int(name[12:18]), label, "test"])
    clips, bad = read_vggsound(file, ("test",))
    assert not bad
    assert [(f"{clip.clip_id}.mp4", clip.label) for clip in clips] == [tuple(row) for row in named]
    assert len(clips) == 15_446
