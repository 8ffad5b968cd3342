"""The demo's clips: a rendered world and its annotations in the data sets' own formats."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from trimodal.core.archives import StoredFile
from trimodal.core.files import atomic_path, read_json, write_json
from trimodal.core.fingerprint import code_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome
from trimodal.core.progress import bar
from trimodal.core.records import Clip
from trimodal.download.demo.annotations import write_annotations
from trimodal.download.demo.render import render_clip
from trimodal.download.demo.world import DemoConfig, Scene, World, sample_world
from trimodal.download.probe import inspect
from trimodal.media.container import missing_media_tools
from trimodal.parallel.executor import map_in_order
from trimodal.sources.msrvtt import read_videos
from trimodal.sources.vggsound import read_vggsound


def render_world(
    demo: DemoConfig,
    clips_dir: Path,
    world_dir: Path,
    machine: MachineConfig,
) -> list[ClipOutcome]:
    """Renders missing clips into ``clips_dir`` and writes the annotations into ``world_dir``. If
    the params or the drawing code have changed, everything is rendered again.
    """
    world = sample_world(demo)
    marker_file = clips_dir / "world.json"
    inputs = _world_inputs(demo)
    if not marker_file.exists() or read_json(marker_file) != inputs:
        shutil.rmtree(clips_dir, ignore_errors=True)
        shutil.rmtree(world_dir, ignore_errors=True)
    if not any(world_dir.glob("*")):
        with atomic_path(world_dir) as temporary:
            write_annotations(world, temporary, demo)
    write_json(marker_file, inputs)
    jobs = _render_jobs(world, world_dir)
    outcomes = bar(
        map_in_order(
            machine, partial(_render, demo, clips_dir), jobs, preflight=missing_media_tools
        ),
        task="rendering", unit="clips", total=len(jobs),
    )  # fmt: skip
    return list(outcomes)


def _world_inputs(demo: DemoConfig) -> dict[str, Any]:
    """What the rendered clips depend on: the params, and the code that draws and encodes."""
    code = code_fingerprint("trimodal.download.demo.render", "trimodal.download.demo.annotations")
    return {"demo": asdict(demo), "code": code}


def _render_jobs(world: World, world_dir: Path) -> list[tuple[Clip, Scene]]:
    scenes = {scene.name: scene for scene in (*world.train, *world.test)}
    clips, _ = read_vggsound(world_dir / "vggsound.csv", ("train",))
    videos, _ = read_videos(world_dir / "MSRVTT_JSFUSION_test.csv")
    return [(clip, scenes[clip.clip_id]) for clip in clips + videos]


def _render(demo: DemoConfig, clips_dir: Path, job: tuple[Clip, Scene]) -> ClipOutcome:
    clip, scene = job
    path = clips_dir / f"{clip.clip_id}.mp4"
    if not path.exists():
        render_clip(scene, path, demo)
    return inspect(clip, StoredFile.plain(path), updated_at=None)
