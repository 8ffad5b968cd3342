"""Test sentences of videos: MSR-VTT's, in the three formats in use, and plain lists.

- CSV, 1k-A's ``MSRVTT_JSFUSION_test.csv``: key, vid_key, video_id, sentence; one sentence a video.
- CSV of two columns, video_id and sentence, any number of sentences a video: what
  :mod:`trimodal.sources.video_lists` makes of other data sets' files.
- JSON as the data set's authors give it (``MSRVTT_data.json``, ``test_videodatainfo.json``):
  ``videos`` with their splits and ``url`` on YouTube, and ``sentences``, about twenty per video.
- JSON list of ``{"video": "video7579.mp4", "caption": ...}``, or with ``video_id`` for ``video``.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from trimodal.core.files import read_json
from trimodal.core.records import Clip, DataError, Query, is_youtube_id, reading_text
from trimodal.sources.rows import BadRowError, RowTally, csv_rows, list_in, value_of

_COLUMNS = ("key", "vid_key", "video_id", "sentence")
LIST_COLUMNS = ("video_id", "sentence")


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The queries, the known YouTube ids by video, and counts of the videos of other splits."""

    queries: list[Query]
    youtube_ids: dict[str, str] = field(default_factory=dict)
    other_splits: Counter[str] = field(default_factory=Counter)


def read_queries(path: Path) -> tuple[list[Query], Counter[str]]:
    """One query for each sentence, in file order, of the official JSON only those of split
    ``test``; and the bad rows by reason: unsafe names, empty sentences, duplicates of a video (CSV)
    or a ``sen_id``, sentences of unknown videos.

    Raises DataError, naming the file, for a file in another format, without queries or with more
    than 1 % bad rows.
    """
    content, bad_rows = _read(path)
    return content.queries, bad_rows


def read_videos(path: Path) -> tuple[list[Clip], Counter[str]]:
    """The videos of the queries, each once, in the order of their first query; and counts of what
    is left out, by reason: bad rows, and videos of other splits. Only the official JSON says from
    which YouTube video each was cut. Raises DataError as :func:`read_queries` does.
    """
    content, bad_rows = _read(path)
    youtube_ids = content.youtube_ids
    clips = [
        Clip(
            clip_id=name,
            source="msrvtt",
            split="test",
            label="",
            youtube_id=youtube_ids.get(name, ""),
        )
        for name in dict.fromkeys(query.video_id for query in content.queries)
    ]
    return clips, bad_rows + content.other_splits


def _read(path: Path) -> tuple[_Content, Counter[str]]:
    readers = {".csv": _from_csv, ".json": _from_json}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: queries are read from .csv and .json files")
    tally = RowTally(path, "msrvtt")
    content = readers[path.suffix.lower()](path, tally)
    return content, tally.checked(content.queries)


def _from_csv(path: Path, tally: RowTally) -> _Content:
    queries: dict[str, Query] = {}
    with reading_text(path), path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv_rows(lines)
        _, _, header = next(rows, ("", 0, []))
        if tuple(header) == LIST_COLUMNS:
            return _Content(queries=_from_rows(rows, tally))
        if missing := [name for name in _COLUMNS if name not in header]:
            raise DataError(f"{path}: the header lacks {', '.join(missing)}")
        for where, count, row in rows:
            with tally.row(f"{where} ({row!r:.80})", lines=count):
                if len(row) != len(header):
                    raise BadRowError("another number of columns than the header")
                named = dict(zip(header, row, strict=True))
                query = _query(named["key"], named["video_id"], named["sentence"])
                if query.video_id in queries:
                    raise BadRowError("a video occurs twice")
                queries[query.video_id] = query
    return _Content(queries=list(queries.values()))


def _from_rows(rows: Iterable[tuple[str, int, list[str]]], tally: RowTally) -> list[Query]:
    queries: list[Query] = []
    for number, (where, count, row) in enumerate(rows):
        with tally.row(f"{where} ({row!r:.80})", lines=count):
            if len(row) != len(LIST_COLUMNS):
                raise BadRowError("another number of columns than the header")
            queries.append(_query(f"ret{number}", *row))
    return queries


def _from_json(path: Path, tally: RowTally) -> _Content:
    content = read_json(path)
    if isinstance(content, list):
        return _Content(queries=_from_list(content, tally))
    return _from_official(
        list_in(path, content, "videos"), list_in(path, content, "sentences"), tally
    )


def _from_list(rows: list[Any], tally: RowTally) -> list[Query]:
    queries = []
    for number, row in enumerate(rows):
        with tally.row(f"entry {number}"):
            key = "video" if isinstance(row, dict) and "video" in row else "video_id"
            video = value_of(row, key, str).removesuffix(".mp4")
            # The CSV calls 1k-A's sentences ret0, ret1, ... too.
            queries.append(_query(f"ret{number}", video, value_of(row, "caption", str)))
    return queries


def _from_official(videos: list[Any], sentences: list[Any], tally: RowTally) -> _Content:
    splits: dict[str, str] = {}
    youtube_ids: dict[str, str] = {}
    for position, row in enumerate(videos):
        with tally.row(f"videos: entry {position}"):
            name = value_of(row, "video_id", str)
            if name in splits:
                raise BadRowError("a video occurs twice")
            splits[name] = value_of(row, "split", str)
            if youtube_id := youtube_id_in(row.get("url")):
                youtube_ids[name] = youtube_id
    queries: dict[int, Query] = {}
    for position, row in enumerate(sentences):
        with tally.row(f"sentences: entry {position}"):
            name = value_of(row, "video_id", str)
            if name not in splits:
                raise BadRowError("sentence of an unknown video")
            number = value_of(row, "sen_id", int)
            query = _query(f"sen{number}", name, value_of(row, "caption", str))
            if splits[name] != "test":
                continue
            if number in queries:
                raise BadRowError("a sen_id occurs twice")
            queries[number] = query
    other_splits = Counter(
        f"msrvtt: video of the {name} split" for name in splits.values() if name != "test"
    )
    return _Content(
        queries=list(queries.values()), youtube_ids=youtube_ids, other_splits=other_splits
    )


def youtube_id_in(url: Any) -> str:
    """The id in 'https://www.youtube.com/watch?v=<id>' or 'https://youtu.be/<id>'; empty for
    anything else.
    """
    if not isinstance(url, str):
        return ""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    except ValueError:  # a '[' in the host part
        return ""
    if host == "youtu.be":
        youtube_id = parts.path.strip("/")
    elif host == "youtube.com" and parts.path == "/watch":
        youtube_id = parse_qs(parts.query).get("v", [""])[0]
    else:
        youtube_id = ""
    return youtube_id if is_youtube_id(youtube_id) else ""


def _query(query_id: str, video_id: str, sentence: str) -> Query:
    if not sentence.strip():
        raise BadRowError("empty sentence")
    try:
        return Query(query_id=query_id, video_id=video_id, sentence=sentence)
    except DataError:
        raise BadRowError("unsafe name") from None
