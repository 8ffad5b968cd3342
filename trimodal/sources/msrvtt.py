"""MSR-VTT 1k-A's ``MSRVTT_JSFUSION_test.csv``: key, vid_key, video_id, sentence."""

import csv
from pathlib import Path

from trimodal.records import Clip, DataError, Query, reading_text

_COLUMNS = ("key", "vid_key", "video_id", "sentence")


def read_queries(csv_path: Path) -> list[Query]:
    """One query a row, in file order. Raises DataError with file and row for a missing column,
    an unsafe name, an empty sentence or a video that occurs twice.
    """
    queries: dict[str, Query] = {}
    with reading_text(csv_path), csv_path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, skipinitialspace=True)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or [])]:
            raise DataError(f"{csv_path}: the header lacks {', '.join(missing)}")
        for row in reader:
            where = f"{csv_path}, row {reader.line_num}"
            if any(row[name] is None for name in _COLUMNS):
                raise DataError(f"{where}: fewer than {len(_COLUMNS)} columns")
            if None in row:
                raise DataError(f"{where}: more columns than the header; quote the commas")
            try:
                query = Query(
                    query_id=row["key"], video_id=row["video_id"], sentence=row["sentence"]
                )
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            if query.video_id in queries:
                raise DataError(f"{where}: video {query.video_id} occurs twice")
            queries[query.video_id] = query
    if not queries:
        raise DataError(f"{csv_path}: no queries")
    return list(queries.values())


def wanted_videos(csv_path: Path) -> list[Clip]:
    """The videos that the queries ask for."""
    return [
        Clip(clip_id=query.video_id, source="msrvtt", split="test", label="")
        for query in read_queries(csv_path)
    ]
