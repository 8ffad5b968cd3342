"""MSR-VTT's test sentences, in the three forms that are in use.

- CSV, 1k-A's ``MSRVTT_JSFUSION_test.csv``: key, vid_key, video_id, sentence; one sentence a video.
- JSON as the data set's authors give it (``MSRVTT_data.json``, ``test_videodatainfo.json``):
  ``videos`` with their splits and ``sentences``, some twenty a video.
- JSON list of ``{"video": "video7579.mp4", "caption": ...}``, or with ``video_id`` for ``video``.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimodal.records import Clip, DataError, Query, reading_text

_COLUMNS = ("key", "vid_key", "video_id", "sentence")


def read_queries(path: Path) -> list[Query]:
    """One query a sentence, in file order; of the official JSON only those of split ``test``.

    Raises DataError, naming the file and the row or key, for a file of another form, an unsafe
    name, an empty sentence, a video (CSV) or a ``sen_id`` that occurs twice and a sentence of an
    unknown video.
    """
    readers = {".csv": _from_csv, ".json": _from_json}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: queries are read from .csv and .json files")
    with reading_text(path):
        queries = list(readers[path.suffix.lower()](path))
    if not queries:
        raise DataError(f"{path}: no queries")
    return queries


def wanted_videos(path: Path) -> list[Clip]:
    """The videos that the queries ask for, each once, in the order of their first query."""
    return [
        Clip(clip_id=name, source="msrvtt", split="test", label="")
        for name in dict.fromkeys(query.video_id for query in read_queries(path))
    ]


def _from_csv(path: Path) -> Iterator[Query]:
    videos = set()
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or [])]:
            raise DataError(f"{path}: the header lacks {', '.join(missing)}")
        for row in reader:
            where = f"{path}, row {reader.line_num}"
            if any(row[name] is None for name in _COLUMNS):
                raise DataError(f"{where}: fewer than {len(_COLUMNS)} columns")
            if None in row:
                raise DataError(f"{where}: more columns than the header; quote the commas")
            query = _query(where, row["key"], row["video_id"], row["sentence"])
            if query.video_id in videos:
                raise DataError(f"{where}: video {query.video_id} occurs twice")
            videos.add(query.video_id)
            yield query


def _from_json(path: Path) -> Iterator[Query]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if isinstance(content, list):
        return _from_list(path, content)
    for key in ("videos", "sentences"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: is no list and has no list '{key}'")
    return _from_annotation(path, content["videos"], content["sentences"])


def _from_list(path: Path, rows: list[Any]) -> Iterator[Query]:
    for number, row in enumerate(rows):
        where = f"{path}: entry {number}"
        key = "video" if isinstance(row, dict) and "video" in row else "video_id"
        video = _field(where, row, key, str).removesuffix(".mp4")
        # The CSV calls 1k-A's sentences ret0, ret1, ... too.
        yield _query(where, f"ret{number}", video, _field(where, row, "caption", str))


def _from_annotation(path: Path, videos: list[Any], sentences: list[Any]) -> Iterator[Query]:
    split: dict[str, str] = {}
    for position, row in enumerate(videos):
        where = f"{path}: videos: entry {position}"
        name = _field(where, row, "video_id", str)
        if name in split:
            raise DataError(f"{where}: video {name} occurs twice")
        split[name] = _field(where, row, "split", str)
    seen = set()
    for position, row in enumerate(sentences):
        where = f"{path}: sentences: entry {position}"
        name = _field(where, row, "video_id", str)
        if name not in split:
            raise DataError(f"{where}: video_id {name!r} is not among the videos")
        number = _field(where, row, "sen_id", int)
        caption = _field(where, row, "caption", str)
        if split[name] != "test":
            continue
        if number in seen:
            raise DataError(f"{where}: sen_id {number} occurs twice")
        seen.add(number)
        yield _query(where, f"sen{number}", name, caption)


def _query(where: str, query_id: str, video_id: str, sentence: str) -> Query:
    try:
        return Query(query_id=query_id, video_id=video_id, sentence=sentence)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _field(where: str, row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    # JSON can spell half of a surrogate pair, which no file can hold.
    half = isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
    if not isinstance(value, kind) or half:
        raise DataError(f"{where}: {row!r:.80} has no {kind.__name__} '{key}'")
    return value
