"""Matching test videos to queries, the order of embedding rows, and the embeddings file."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_fixtures import clip_of, embeddings_of, queries_of, several_sentences

from trimodal.core.records import DataError, Query
from trimodal.evaluation.embeddings import write_embeddings
from trimodal.evaluation.matching import match_videos


def test_missing_videos_and_those_to_leave_out_are_counted() -> None:
    clips = [clip_of(f"video{i}") for i in (3, 2, 0, 9)]
    test = match_videos(list(queries_of(4)), clips, {"video2", "video1", "other"}, 0.75)
    assert [query.video_id for query in test.queries] == ["video0", "video3"]
    assert [clip.clip_id for clip in test.clips] == ["video0", "video3"]
    assert test.left_out == {"missing": 1, "seen in training": 1}
    assert (test.in_test_file, test.available, test.with_audio) == (4, 3, 3)
    all_available = match_videos(list(queries_of(4)), clips, (), 0.75)
    assert [clip.clip_id for clip in all_available.clips] == ["video0", "video2", "video3"]


def test_silent_videos_are_available_but_not_counted_with_audio() -> None:
    clips = [clip_of("video0"), clip_of("video1", audio=False), clip_of("video2", audio=False)]
    test = match_videos(list(queries_of(4)), clips, {"video2"}, 0.0)
    assert (test.in_test_file, test.available, test.with_audio) == (4, 3, 1)


def test_several_sentences_a_video_match_it_once() -> None:
    queries = [
        Query(query_id=f"r{i}", video_id=f"video{video}", sentence="a dog")
        for i, video in enumerate([7, 3, 9, 7, 3, 5, 9, 7])
    ]
    test = match_videos(queries, [clip_of(f"video{i}") for i in (3, 5, 7)], {"video5"}, 0.0)
    assert [query.query_id for query in test.queries] == ["r0", "r1", "r3", "r4", "r7"]
    assert [clip.clip_id for clip in test.clips] == ["video7", "video3"]
    assert test.left_out == {"missing": 1, "seen in training": 1}
    assert (test.in_test_file, test.available, test.with_audio) == (4, 3, 3)


def test_too_few_of_the_videos_are_an_error_that_names_some() -> None:
    clips = [clip_of(f"video{i}") for i in range(19)]
    with pytest.raises(DataError) as caught:
        match_videos(list(queries_of(20)), clips, (), 0.96)
    assert "evaluate: 95.0 % of the 20 test videos" in str(caught.value)
    assert "96 % are required (evaluate.min_coverage)" in str(caught.value)
    assert "1  e.g. video19" in str(caught.value)
    assert match_videos(list(queries_of(20)), clips, (), 0.95).available == 19


def test_videos_that_are_left_out_do_not_count_against_the_coverage() -> None:
    clips = [clip_of(f"video{i}") for i in range(4)]
    assert len(match_videos(list(queries_of(4)), clips, {"video0", "video1"}, 1.0).clips) == 2


def test_fewer_than_two_videos_are_an_error_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"2 test videos are needed, not 1.*'missing': 2"):
        match_videos(list(queries_of(3)), [clip_of("video1")], set(), 0.0)


def test_a_video_twice_in_the_index_is_refused() -> None:
    clips = [clip_of(f"video{i}") for i in (0, 1, 2, 1)]
    with pytest.raises(DataError, match=r"index of clips .* 1 video ids .* first is video1$"):
        match_videos(list(queries_of(3)), clips, (), 1.0)


def test_a_query_id_twice_is_refused() -> None:
    queries = [*queries_of(3), Query(query_id="r2", video_id="video0", sentence="a cat")]
    with pytest.raises(DataError, match=r"test file .* 1 query ids .* first is r2$"):
        match_videos(queries, [clip_of(f"video{i}") for i in range(3)], (), 1.0)


def test_videos_are_in_the_order_of_their_first_query() -> None:
    e = several_sentences(30, videos=9)
    order = list(dict.fromkeys(query.video_id for query in e.queries))
    assert [order[row] for row in e.true_video] == [query.video_id for query in e.queries]
    assert embeddings_of(8).true_video.tolist() == list(range(8))


def test_selected_videos_keep_their_queries() -> None:
    e = several_sentences(30, videos=9, silent=(2, 6))
    with_audio = e.select(e.has_audio)
    own_queries = [i for i in range(30) if e.true_video[i] not in (2, 6)]
    assert with_audio.queries == tuple(e.queries[i] for i in own_queries)
    assert with_audio.text.tolist() == e.text[own_queries].tolist()
    for part in ("image", "audio"):
        assert (
            getattr(with_audio, part)[with_audio.true_video].tolist()
            == getattr(e, part)[e.true_video[own_queries]].tolist()
        )
    assert with_audio.has_audio.tolist() == [True] * 7


@pytest.mark.parametrize("part", ["text", "image", "audio", "has_audio"])
def test_rows_without_their_query_or_video_are_refused(part: str) -> None:
    e = embeddings_of(8)
    with pytest.raises(ValueError, match=r"embeddings: every (query|video) needs a row"):
        replace(e, **{part: getattr(e, part)[1:]})


def test_embeddings_are_written_with_null_audio_for_silent_videos(tmp_path: Path) -> None:
    e = embeddings_of(8, dim=256, silent=(2, 5))
    write_embeddings(tmp_path / "e.parquet", e)
    table = pq.read_table(tmp_path / "e.parquet")
    vector = pa.list_(pa.float32(), 256)
    assert {field.name: field.type for field in table.schema} == {
        "query_id": pa.string(), "video_id": pa.string(), "has_audio": pa.bool_(),
        "image": vector, "audio": vector, "text": vector,
    }  # fmt: skip
    rows = table.to_pylist()
    assert [row["audio"] is None for row in rows] == (~e.has_audio).tolist()
    assert [row["video_id"] for row in rows] == [f"video{i}" for i in range(8)]
    for part in ("image", "text", "audio"):
        for row, expected in zip(rows, getattr(e, part), strict=True):
            assert row[part] is None or row[part] == expected.tolist()
