"""MSR-VTT's test sentences in all formats; bad rows are counted, other files refused."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import REAL, needs_real_data, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from trimodal.core.records import DataError
from trimodal.sources.msrvtt import read_queries, read_videos, youtube_id_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


@pytest.fixture
def annotation(tmp_path: Path) -> Path:
    return tmp_path / "MSRVTT_data.json"


# 1k-A's CSV

HEADER = "key,vid_key,video_id,sentence\n"


def queries(file: Path, text: str) -> list[Any]:
    file.write_text(text, encoding="utf-8")
    return read_queries(file)[0]


def bad_rows(file: Path) -> dict[str, int]:
    """Counts of what is left out; asserts that at least one query was read."""
    read, bad = read_queries(file)
    assert read
    return {reason.removeprefix("msrvtt: "): count for reason, count in bad.items()}


def test_csv_queries_in_file_order(file: Path) -> None:
    read = queries(
        file, f'\ufeff{HEADER}ret0,msr2,video2,"a man, a ""plan"""\r\n\r\nret1,msr1,video1,é\r\n'
    )
    assert [(q.query_id, q.video_id, q.sentence) for q in read] == [
        ("ret0", "video2", 'a man, a "plan"'),
        ("ret1", "video1", "é"),
    ]


def test_csv_columns_are_found_by_name(file: Path) -> None:
    (query,) = queries(file, "sentence,video_id,extra,vid_key,key\na dog,v,x,m,r\n")
    assert (query.query_id, query.video_id, query.sentence) == ("r", "v", "a dog")


def test_csv_clips_are_the_queries_videos(file: Path) -> None:
    queries(file, f"{HEADER}ret0,msr2,video2,a\nret1,msr1,video1,b\n")
    clips, bad = read_videos(file)
    assert not bad
    assert [clip.clip_id for clip in clips] == ["video2", "video1"]
    assert {(c.source, c.split, c.youtube_id) for c in clips} == {("msrvtt", "test", "")}


@pytest.mark.parametrize("column", ["key", "vid_key", "video_id", "sentence"])
def test_csv_missing_column_is_named(column: str, file: Path) -> None:
    header = ",".join(name for name in HEADER.strip().split(",") if name != column)
    refused(lambda: queries(file, f"{header}\na,b,c\n"), str(file), column)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ret1,msr1,video1", "another number of columns than the header"),
        ("ret1,msr1,video0,again", "a video occurs twice"),
        ("ret1,msr1,video1,", "empty sentence"),
        ('ret1,msr1,video1,"  "', "empty sentence"),
        ("ret1,msr1,../video1,a dog", "unsafe name"),
        ("ret/1,msr1,video1,a dog", "unsafe name"),
        ("ret1,msr1,video1,a man, a plan", "another number of columns than the header"),
    ],
)
def test_csv_bad_row_is_counted_and_the_others_are_read(row: str, reason: str, file: Path) -> None:
    text = f"{HEADER}ret0,msr0,video0,a dog\n\n{row}\nret2,msr2,video2,a cat\n"
    assert [q.video_id for q in queries(file, text)] == ["video0", "video2"]
    assert bad_rows(file) == {reason: 1}


def test_csv_with_many_bad_rows_is_refused(file: Path) -> None:
    good = "".join(f"r{n},m,v{n},a dog\n" for n in range(200))
    assert len(queries(file, HEADER + good + "r,m,x,\n" * 2)) == 200
    refused(lambda: queries(file, HEADER + good + "r,m,x,\n" * 3), "3 of 203", "row 202", "empty")


def test_csv_unclosed_quote_counts_as_the_rows_it_swallows(file: Path) -> None:
    text = f'{HEADER}ret0,msr0,video0,a dog\nret1,msr1,"video1,a\nret2,msr2,video2,b\n'
    refused(lambda: queries(file, text), "2 of 3 rows", "row 3")


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n\n"])
def test_csv_file_without_queries_is_refused(text: str, file: Path) -> None:
    refused(lambda: queries(file, text), str(file))


@pytest.mark.parametrize("name", ["queries", "queries.txt", "queries.csv.gz"])
def test_file_of_another_type_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{HEADER}ret0,msr0,video0,a dog\n")
    refused(lambda: read_queries(tmp_path / name), name, ".csv", ".json")


# The official JSON


def official() -> dict[str, Any]:
    """Two test videos with two sentences each, a training and a validation video."""
    split = {"video7": "test", "video1": "train", "video5": "test", "video2": "validate"}
    sentences = [
        ("video5", "a man sings", 40), ("video1", "a cat", 3), ("video7", "é, a dog", 41),
        ("video5", "a song", 39), ("video2", "a pig", 4), ("video7", "a dog", 42),
    ]  # fmt: skip
    return {
        "info": {"year": "2016"},
        "videos": [
            {"video_id": name, "split": part, "category": 9, "url": "https://x", "id": number,
             "start time": 137.7, "end time": 149.4}
            for number, (name, part) in enumerate(split.items())
        ],
        "sentences": [
            {"video_id": name, "caption": caption, "sen_id": number}
            for name, caption, number in sentences
        ],
    }  # fmt: skip


def from_json(path: Path, content: Any) -> list[Any]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_queries(path)[0]


def test_official_queries_are_the_test_videos_sentences_in_file_order(annotation: Path) -> None:
    read = from_json(annotation, official())
    assert [(q.query_id, q.video_id, q.sentence) for q in read] == [
        ("sen40", "video5", "a man sings"),
        ("sen41", "video7", "é, a dog"),
        ("sen39", "video5", "a song"),
        ("sen42", "video7", "a dog"),
    ]


def test_official_clips_are_the_videos_once_each(annotation: Path) -> None:
    from_json(annotation, official())
    assert [clip.clip_id for clip in read_videos(annotation)[0]] == ["video5", "video7"]


def test_official_videos_of_other_splits_are_counted_with_the_videos(annotation: Path) -> None:
    """And not with the queries."""
    content = official()
    content["videos"] += [{"video_id": f"v{number}", "split": "train"} for number in range(9)]
    from_json(annotation, content)
    assert read_videos(annotation)[1] == {
        "msrvtt: video of the train split": 10,
        "msrvtt: video of the validate split": 1,
    }
    assert not read_queries(annotation)[1]


def test_official_clips_name_the_youtube_video_they_were_cut_from(annotation: Path) -> None:
    content = official()
    urls = ["https://www.youtube.com/watch?v=9lZi22qLlEo", "https://x", "https://youtu.be/-bad", 3]
    for video, url in zip(content["videos"], urls, strict=True):
        video |= {"url": url, "split": "test"}
    del content["videos"][1]["url"]
    from_json(annotation, content)
    clips, bad = read_videos(annotation)
    assert {clip.clip_id: clip.youtube_id for clip in clips} == {
        "video7": "9lZi22qLlEo", "video1": "", "video5": "", "video2": "",
    }  # fmt: skip
    assert not bad


@pytest.mark.parametrize(
    ("url", "youtube_id"),
    [
        ("https://www.youtube.com/watch?v=9lZi22qLlEo", "9lZi22qLlEo"),
        ("http://youtube.com/watch?feature=x&v=-_Zi22qLlEo&t=3", "-_Zi22qLlEo"),
        ("https://m.youtube.com/watch?v=9lZi22qLlEo#t=1", "9lZi22qLlEo"),
        ("https://youtu.be/9lZi22qLlEo", "9lZi22qLlEo"),
        ("https://youtu.be/9lZi22qLlEo?t=3", "9lZi22qLlEo"),
        ("https://www.youtube.com/watch?v=9lZi22qLlE", ""),
        ("https://www.youtube.com/watch?v=9lZi22qLlEo7", ""),
        ("https://www.youtube.com/watch", ""),
        ("https://www.youtube.com/user/9lZi22qLlEo", ""),
        ("https://example.org/watch?v=9lZi22qLlEo", ""),
        ("https://notyoutube.com/watch?v=9lZi22qLlEo", ""),
        ("9lZi22qLlEo", ""),
        ("https://[x/watch?v=9lZi22qLlEo", ""),
        ("", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_youtube_id_is_read_from_a_url(url: Any, youtube_id: str) -> None:
    assert youtube_id_in(url) == youtube_id


def test_official_sen_id_of_another_split_may_be_that_of_a_test_sentence(annotation: Path) -> None:
    """Files joined from the training and the test annotation count both from 0."""
    content = official()
    content["sentences"][1]["sen_id"] = 40
    assert len(from_json(annotation, content)) == 4


def test_official_sentences_may_be_equal(annotation: Path) -> None:
    content = official()
    content["sentences"][3]["caption"] = "a man sings"
    assert len(from_json(annotation, content)) == 4


@pytest.mark.parametrize(("key", "value"), [("videos", None), ("sentences", {})])
def test_official_value_that_is_not_a_list_is_named(key: str, value: Any, annotation: Path) -> None:
    refused(lambda: from_json(annotation, official() | {key: value}), str(annotation), f"'{key}'")


@pytest.mark.parametrize(
    ("where", "value", "reasons"),
    [
        (("videos", 1), "x", {"no str 'video_id'": 1, "sentence of an unknown video": 1}),
        (("videos", 1, "split"), 1, {"no str 'split'": 1, "sentence of an unknown video": 1}),
        (("videos", 1, "video_id"), "video7",
         {"a video occurs twice": 1, "sentence of an unknown video": 1}),
        (("sentences", 3), [], {"no str 'video_id'": 1}),
        (("sentences", 3, "video_id"), "video6", {"sentence of an unknown video": 1}),
        (("sentences", 3, "sen_id"), "39", {"no int 'sen_id'": 1}),
        (("sentences", 3, "sen_id"), 40, {"a sen_id occurs twice": 1}),
        (("sentences", 3, "caption"), " ", {"empty sentence": 1}),
        (("sentences", 3, "caption"), None, {"no str 'caption'": 1}),
        (("sentences", 3, "caption"), "\ud83d", {"no str 'caption'": 1}),
        (("sentences", 1, "caption"), None, {"no str 'caption'": 1}),
    ],
)  # fmt: skip
def test_official_bad_row_is_counted(
    where: tuple[Any, ...], value: Any, reasons: dict[str, int], annotation: Path
) -> None:
    content = official()
    parent: Any = content
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    content["sentences"] += [
        {"video_id": "video7", "caption": "more", "sen_id": 100 + n} for n in range(300)
    ]
    read = from_json(annotation, content)
    assert len(read) == 304 - (where[:2] == ("sentences", 3))
    assert bad_rows(annotation) == reasons


def test_official_unsafe_names_are_left_out(annotation: Path) -> None:
    content = official()
    content["videos"].append({"video_id": "../x", "split": "test"})
    content["sentences"].append({"video_id": "../x", "caption": "a dog", "sen_id": 77})
    assert {q.video_id for q in from_json(annotation, content)} == {"video5", "video7"}
    assert bad_rows(annotation) == {"unsafe name": 1}


def test_annotation_without_test_videos_is_refused(annotation: Path) -> None:
    text = json.dumps(official()).replace('"test"', '"train"')
    refused(lambda: from_json(annotation, text), str(annotation), "no usable rows")


# The JSON list


@pytest.mark.parametrize("key", ["video", "video_id"])
@pytest.mark.parametrize("ending", [".mp4", ""])
def test_list_queries_in_file_order(key: str, ending: str, annotation: Path) -> None:
    rows = [
        {key: f"video7579{ending}", "caption": "a girl sings"},
        {"caption": "a dog", key: f"video3{ending}", "source": "MSR-VTT"},
    ]
    assert [(q.query_id, q.video_id, q.sentence) for q in from_json(annotation, rows)] == [
        ("ret0", "video7579", "a girl sings"),
        ("ret1", "video3", "a dog"),
    ]


def test_list_may_have_several_sentences_a_video(annotation: Path) -> None:
    rows = [{"video": "b.mp4", "caption": c} for c in ("x", "y")]
    assert len(from_json(annotation, [{"video": "a.mp4", "caption": "x"}, *rows])) == 3
    assert [clip.clip_id for clip in read_videos(annotation)[0]] == ["a", "b"]


def test_list_prefers_the_file_name_to_the_id(annotation: Path) -> None:
    rows = [{"video_id": "video9770", "video": "video9770.mp4", "caption": "a person"}]
    assert from_json(annotation, rows)[0].video_id == "video9770"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"caption": "x"}, "no str 'video_id'"),
        ({"video": "video1.mp4"}, "no str 'caption'"),
        ({"video": "video1.mp4", "caption": ["x"]}, "no str 'caption'"),
        ({"video": 1, "caption": "x"}, "no str 'video'"),
        ({"video": "video1.mp4", "caption": ""}, "empty sentence"),
        ({"video": "../video1.mp4", "caption": "x"}, "unsafe name"),
        ({"video": "video1.avi", "caption": "x"}, "unsafe name"),
        ("video1.mp4", "no str 'video_id'"),
        (None, "no str 'video_id'"),
    ],
)
def test_list_bad_entry_is_counted(row: Any, reason: str, annotation: Path) -> None:
    rows = [{"video": "video0.mp4", "caption": "x"}, row]
    assert len(from_json(annotation, rows)) == 1
    assert bad_rows(annotation) == {reason: 1}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '"videos"', "{} {}", "[" * 100_000])
def test_json_of_another_form_is_refused(text: str, annotation: Path) -> None:
    refused(lambda: from_json(annotation, text), str(annotation))


def test_json_that_is_not_utf8_is_refused(annotation: Path) -> None:
    annotation.write_bytes(b'[{"video": "a", "caption": "\xff"}]')
    refused(lambda: read_queries(annotation), str(annotation), "UTF-8")


names = st.sampled_from(["video1", "video2.mp4", "../x", "", 1, None])
keys = ["video", "video_id", "caption", "sen_id", "split"]
rows = st.lists(
    st.dictionaries(st.sampled_from(keys), names | st.sampled_from(["test", "a dog", 7, True]))
    | st.none(),
    max_size=4,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["videos", "sentences"]), rows) | rows)
def test_any_json_is_parsed_or_refused(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            read = from_json(Path(folder) / "any.json", content)
        except DataError:
            return
    for query in read:
        assert re.fullmatch(r"[\w-]+", query.video_id, re.ASCII)
        assert query.sentence.strip()


# Real data


@needs_real_data
def test_real_clips_as_a_retrieval_test() -> None:
    read, bad = read_queries(REAL / "msrvtt_style_test.csv")
    assert (len(read), bad) == (60, {})
    assert {q.video_id for q in read} == {path.stem for path in (REAL / "clips").iterdir()}


@needs_real_data
def test_real_msrvtt_has_a_thousand_queries() -> None:
    path = REAL / "annotations" / "MSRVTT_JSFUSION_test.csv"
    read, bad = read_queries(path)
    assert not bad
    assert len(read) == len({q.query_id for q in read}) == 1000
    assert (read[0].video_id, read[0].sentence) == (
        "video9770",
        "a person is connecting something to system",
    )


@needs_real_data
def test_real_queries_are_the_same_from_json(annotation: Path) -> None:
    read, bad = read_queries(REAL / "annotations" / "MSRVTT_JSFUSION_test.csv")
    assert not bad
    rows = [{"video": f"{query.video_id}.mp4", "caption": query.sentence} for query in read]
    assert from_json(annotation, rows) == read
