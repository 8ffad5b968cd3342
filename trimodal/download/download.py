"""Stage ``download``: annotations to clips on disk, with an outcome for each in the manifest."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.config import SECTION, Share
from trimodal.core.coverage import check_coverage
from trimodal.core.files import write_json
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.progress import log, summary_line
from trimodal.core.storage import storage_path
from trimodal.download.crawl import crawl
from trimodal.download.demo.world import DemoConfig
from trimodal.download.demo_clips import render_world
from trimodal.download.earlier import read_earlier_manifest
from trimodal.download.local import find_local_clips
from trimodal.download.own_videos import find_own_videos
from trimodal.download.youtube import YoutubeConfig
from trimodal.sources.msrvtt import read_videos
from trimodal.sources.vggsound import read_vggsound


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class DownloadConfig:
    """Section ``download``. ``demo`` renders a world; ``files`` uses local clips; ``youtube``
    fetches VGGSound's clips (section ``youtube``); ``videos`` trains on every video in the folder
    ``vggsound_media``, without a list, but those that ``msrvtt_csv``, if there is one, names.
    ``vggsound_media`` and ``msrvtt_media`` are folders of clips (``<clip id>.mp4``, .mkv, .webm,
    .mov, .avi), of tars and zips, or one tar or zip. At least ``min_coverage`` of each data set's
    clips must be usable.
    """

    source: Literal["demo", "files", "youtube", "videos"]
    vggsound_csv: str
    vggsound_media: str
    vggsound_splits: tuple[Literal["train", "test"], ...]
    msrvtt_csv: str
    msrvtt_media: str
    min_coverage: Share

    def __post_init__(self) -> None:
        required = {
            "demo": (),
            "files": ("vggsound_csv", "vggsound_media", "msrvtt_csv", "msrvtt_media"),
            "youtube": ("vggsound_csv", "msrvtt_csv", "msrvtt_media"),
            "videos": ("vggsound_media", *(("msrvtt_media",) if self.msrvtt_csv else ())),
        }[self.source]
        for key in required:
            if not getattr(self, key):
                raise ValueError(
                    f"download.{key} is required when download.source is {self.source}"
                )


def download(
    config: DownloadConfig,
    youtube: YoutubeConfig,
    demo: DemoConfig,
    clips_dir: Path,
    world_dir: Path,
    machine: MachineConfig,
) -> None:
    """Fills ``clips_dir`` (``manifest.parquet``, ``stats.json`` and rendered or fetched media, in a
    folder per source) and ``world_dir`` (the demo's annotations; otherwise empty). What an earlier
    run finished is kept; what it made and has been damaged since is made anew, and the log says so.

    Raises DataError, with the manifest written, if a data set's coverage is too low.
    """
    bad_rows: Counter[str] = Counter()
    earlier = read_earlier_manifest(clips_dir / "manifest.parquet")
    if config.source == "demo":
        outcomes = render_world(demo, clips_dir / "demo", world_dir, machine, earlier)
    else:
        shutil.rmtree(world_dir, ignore_errors=True)
        world_dir.mkdir(parents=True)
        outcomes, bad_rows = _collect(config, youtube, clips_dir, machine, earlier)
    write_manifest(clips_dir / "manifest.parquet", outcomes)
    stats = {name: _stats(rows) for name, rows in _by_source(outcomes).items()}
    write_json(clips_dir / "stats.json", {"clips": stats, "bad_rows": dict(bad_rows)})
    usable = [outcome for outcome in outcomes if outcome.status == "ok"]
    unusable = Counter[str](outcome.status for outcome in outcomes if outcome.status != "ok")
    hours = sum(outcome.duration_s for outcome in usable) / 3600
    silent = sum(not outcome.has_audio for outcome in usable)
    summary = f"download: {len(usable)} clips, {hours:.2f} h, {silent} without audio"
    log.info(summary_line(summary, unusable + bad_rows))
    _check_coverage(outcomes, config.min_coverage)


def _collect(
    config: DownloadConfig,
    youtube: YoutubeConfig,
    clips_dir: Path,
    machine: MachineConfig,
    earlier: Sequence[ClipOutcome],
) -> tuple[list[ClipOutcome], Counter[str]]:
    if config.source == "videos":
        return _own_videos(config, machine, earlier)
    clips, bad_rows = read_vggsound(Path(config.vggsound_csv), config.vggsound_splits)
    videos, bad_msrvtt_rows = read_videos(Path(config.msrvtt_csv))
    bad_rows += bad_msrvtt_rows
    test_clips = find_local_clips(storage_path(config.msrvtt_media), videos, earlier, machine)
    if config.source == "youtube":
        return [*crawl(youtube, clips, clips_dir / "youtube", machine), *test_clips], bad_rows
    media = storage_path(config.vggsound_media)
    return [*find_local_clips(media, clips, earlier, machine), *test_clips], bad_rows


def _own_videos(
    config: DownloadConfig, machine: MachineConfig, earlier: Sequence[ClipOutcome]
) -> tuple[list[ClipOutcome], Counter[str]]:
    test_clips: list[ClipOutcome] = []
    bad_rows: Counter[str] = Counter()
    if config.msrvtt_csv:
        videos, bad_rows = read_videos(Path(config.msrvtt_csv))
        test_clips = find_local_clips(storage_path(config.msrvtt_media), videos, earlier, machine)
    names = {outcome.clip.clip_id for outcome in test_clips}
    folder = storage_path(config.vggsound_media)
    return [*find_own_videos(folder, names, earlier), *test_clips], bad_rows


def _by_source(outcomes: Sequence[ClipOutcome]) -> dict[str, list[ClipOutcome]]:
    rows: dict[str, list[ClipOutcome]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.clip.source, []).append(outcome)
    return rows


def _stats(rows: Sequence[ClipOutcome]) -> dict[str, int | float | dict[str, int]]:
    usable = [row for row in rows if row.status == "ok"]
    return {
        "wanted": len(rows),
        "found": sum(row.bytes > 0 for row in rows),
        "usable": len(usable),
        "with_sound": sum(row.has_audio for row in usable),
        "hours": round(sum(row.duration_s for row in usable) / 3600, 4),
        "by_status": dict(sorted(Counter(row.status for row in rows).items())),
    }


def _check_coverage(outcomes: Sequence[ClipOutcome], min_coverage: float) -> None:
    for source, rows in _by_source(outcomes).items():
        unusable = [row for row in rows if row.status != "ok"]
        check_coverage(
            "download",
            f"{source} clips",
            len(rows) - len(unusable),
            Counter(row.status for row in unusable),
            required=min_coverage,
            param="download.min_coverage",
            examples={
                row.status: f"{row.clip.clip_id}: {row.reason}" for row in reversed(unusable)
            },
        )
