"""From annotations to clips on disk: every wanted clip gets a typed outcome in the manifest."""

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from trimodal.demo.annotations import write_annotations
from trimodal.demo.render import render_clip
from trimodal.demo.world import DemoConfig, Scene, World, sample_world
from trimodal.files import atomic_path, sha256_of, write_json
from trimodal.manifest import ClipOutcome, read_manifest, write_manifest
from trimodal.media import MediaError, probe
from trimodal.progress import bar, closing_line, log
from trimodal.records import Clip, DataError
from trimodal.sources.msrvtt import wanted_videos
from trimodal.sources.vggsound import read_vggsound
from trimodal.timing import frame_count
from trimodal.workers import map_in_order

_VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Section ``download``. ``demo`` renders a world; ``folder`` takes clips that one has: files
    ``<clip id>.mp4`` (or .mkv, .webm, .mov, .avi) as the two CSV files name them.
    """

    source: Literal["demo", "folder"]
    vggsound_csv: str
    vggsound_folder: str
    vggsound_splits: tuple[Literal["train", "test"], ...]
    msrvtt_csv: str
    msrvtt_folder: str
    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError("download.workers must be at least 1")
        if self.source == "folder":
            for key in ("vggsound_csv", "vggsound_folder", "msrvtt_csv", "msrvtt_folder"):
                if not getattr(self, key):
                    raise ValueError(f"download.{key} is needed when download.source is folder")


def download(config: DownloadConfig, demo: DemoConfig, clips_dir: Path, world_dir: Path) -> None:
    """Fills ``clips_dir`` (manifest and, in the demo, media) and ``world_dir`` (the demo's
    annotations; left empty for a folder). What an earlier run finished is kept.
    """
    if config.source == "demo":
        outcomes = _render_world(demo, clips_dir, world_dir, config.workers)
    else:
        shutil.rmtree(world_dir, ignore_errors=True)
        world_dir.mkdir(parents=True)
        outcomes = _look_through_folders(config, clips_dir)
    write_manifest(clips_dir / "manifest.parquet", outcomes)
    usable = [outcome for outcome in outcomes if outcome.status == "ok"]
    lost = Counter(outcome.status for outcome in outcomes if outcome.status != "ok")
    hours = sum(outcome.duration_s for outcome in usable) / 3600
    silent = sum(not outcome.has_audio for outcome in usable)
    log.info(
        closing_line(f"download: {len(usable)} clips, {hours:.2f} h, {silent} without sound", lost)
    )
    if not usable:
        raise DataError("download: not one clip is usable; see the reasons above")


def inspect(clip: Clip, path: Path, updated_at: int | None) -> ClipOutcome:
    """Looks into a media file and settles its outcome; the file is not decoded."""
    try:
        info = probe(path)
    except MediaError as error:
        return ClipOutcome(
            clip=clip, path=path.as_posix(), status=error.reason, reason=str(error),
            bytes=path.stat().st_size, updated_at=updated_at,
        )  # fmt: skip
    too_short = frame_count(info.duration_seconds) == 0
    return ClipOutcome(
        clip=clip,
        path=path.as_posix(),
        status="too_short" if too_short else "ok",
        reason=f"{info.duration_seconds:.2f} s hold no frame" if too_short else "",
        duration_s=info.duration_seconds,
        has_audio=info.has_audio,
        bytes=path.stat().st_size,
        updated_at=updated_at,
    )


def _earlier(clips_dir: Path) -> dict[tuple[str, str], ClipOutcome]:
    path = clips_dir / "manifest.parquet"
    if not path.exists():
        return {}
    return {(row.clip.source, row.clip.clip_id): row for row in read_manifest(path)}


def _look_through_folders(config: DownloadConfig, clips_dir: Path) -> list[ClipOutcome]:
    train_clips = read_vggsound(Path(config.vggsound_csv), config.vggsound_splits)
    wanted = [
        (Path(config.vggsound_folder), train_clips),
        (Path(config.msrvtt_folder), wanted_videos(Path(config.msrvtt_csv))),
    ]
    if (clips_dir / "world.json").exists():  # a demo's clips
        shutil.rmtree(clips_dir)
    earlier = _earlier(clips_dir)
    outcomes = []
    for folder, clips in wanted:
        media = _media_by_stem(folder)
        for clip in bar(clips, task=f"looking through {folder}", unit="clips"):
            before = earlier.get((clip.source, clip.clip_id))
            outcomes.append(_look_for(clip, media.get(clip.clip_id), before))
    return outcomes


def _media_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"download: {folder} is not a folder")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in _VIDEO_ENDINGS}


def _look_for(clip: Clip, path: Path | None, before: ClipOutcome | None) -> ClipOutcome:
    if path is None or not path.is_file():
        return ClipOutcome(clip=clip, path="", status="unavailable", reason="no such file")
    state = path.stat()
    seen = (path.as_posix(), state.st_size, int(state.st_mtime))
    if before and before.clip == clip and (before.path, before.bytes, before.updated_at) == seen:
        return before
    return inspect(clip, path, int(state.st_mtime))


def _render_world(
    demo: DemoConfig, clips_dir: Path, world_dir: Path, workers: int
) -> list[ClipOutcome]:
    world = sample_world(demo)
    mark = clips_dir / "world.json"
    if not mark.exists() or json.loads(mark.read_text()) != _world_mark(demo):
        shutil.rmtree(clips_dir, ignore_errors=True)
        shutil.rmtree(world_dir, ignore_errors=True)
    if not world_dir.exists():
        with atomic_path(world_dir) as temporary:
            write_annotations(world, temporary, demo)
    write_json(mark, _world_mark(demo))
    wanted = _wanted(world, world_dir)
    render = partial(_render, demo, clips_dir)
    scenes = bar(
        map_in_order(render, wanted, workers), task="rendering", unit="clips", total=len(wanted)
    )
    return list(scenes)


def _world_mark(demo: DemoConfig) -> dict[str, Any]:
    """What the rendered clips depend on: the params and the code that draws and encodes them."""
    here = Path(__file__).parent
    drawing = (path for path in here.glob("demo/*.py") if path.name != "oracle.py")
    sources = sorted([*drawing, here / "media.py"])
    code = sha256_of(*(source.read_bytes() for source in sources))
    return {"demo": asdict(demo), "code": code}


def _wanted(world: World, world_dir: Path) -> list[tuple[Clip, Scene]]:
    scenes = {scene.name: scene for scene in (*world.train, *world.test)}
    clips = [
        *read_vggsound(world_dir / "vggsound.csv", ("train",)),
        *wanted_videos(world_dir / "MSRVTT_JSFUSION_test.csv"),
    ]
    return [(clip, scenes[clip.clip_id]) for clip in clips]


def _render(demo: DemoConfig, clips_dir: Path, wanted: tuple[Clip, Scene]) -> ClipOutcome:
    clip, scene = wanted
    path = clips_dir / f"{clip.clip_id}.mp4"
    if not path.exists():
        render_clip(scene, path, demo)
    return inspect(clip, path, updated_at=None)
