"""The demo's clips: a rendered world and its annotations in the data sets' own formats."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from trimodal.core.archives import StoredFile
from trimodal.core.files import atomic_path, read_json, write_json
from trimodal.core.fingerprint import code_fingerprint, file_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome
from trimodal.core.progress import bar, log
from trimodal.core.records import Clip, DataError
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
    earlier: Sequence[ClipOutcome],
) -> list[ClipOutcome]:
    """Renders missing clips into ``clips_dir`` and writes the annotations into ``world_dir``. If
    the params or the drawing code have changed, everything is rendered again; so is a single file
    whose content is not the recorded one: ``clips_dir/world.json`` has the fingerprints of the
    annotations, the ``earlier`` manifest those of the clips.
    """
    world = sample_world(demo)
    _write_world(world, demo, clips_dir, world_dir)
    jobs = _render_jobs(world, world_dir)
    fingerprints = {row.path: row.fingerprint for row in earlier if row.fingerprint}
    rendered = map_in_order(
        machine, partial(_render, demo, clips_dir, fingerprints), jobs,
        preflight=missing_media_tools,
    )  # fmt: skip
    outcomes, damaged = [], []
    for outcome, was_damaged in bar(rendered, task="rendering", unit="clips", total=len(jobs)):
        outcomes.append(outcome)
        damaged += [outcome.path] * was_damaged
    _log_damage(clips_dir, damaged)
    return outcomes


def _write_world(world: World, demo: DemoConfig, clips_dir: Path, world_dir: Path) -> None:
    marker_file = clips_dir / "world.json"
    inputs = _world_inputs(demo)
    marker = _read_marker(marker_file)
    if inputs.items() <= marker.items():
        recorded, found = marker.get("world"), _fingerprints(world_dir)
        if found == recorded:
            return
        recorded = recorded if isinstance(recorded, dict) else {}
        names = sorted({*found, *recorded})
        _log_damage(world_dir, [n for n in names if found.get(n) != recorded.get(n)])
    else:
        shutil.rmtree(clips_dir, ignore_errors=True)
    with atomic_path(world_dir) as temporary:
        write_annotations(world, temporary, demo)
    write_json(marker_file, inputs | {"world": _fingerprints(world_dir)})


def _read_marker(marker_file: Path) -> dict[str, Any]:
    if not marker_file.exists():
        return {}
    try:
        marker = read_json(marker_file)
    except DataError as error:
        log.info(f"download: {error}; the demo is rendered anew")
        return {}
    return marker if isinstance(marker, dict) else {}


def _fingerprints(folder: Path) -> dict[str, str]:
    """The fingerprint of every file in a folder, by its relative name."""
    return {
        path.relative_to(folder).as_posix(): file_fingerprint(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _log_damage(folder: Path, names: Sequence[str]) -> None:
    if names:
        log.info(
            f"download: {folder}: {len(names)} files are damaged or missing and made anew, "
            f"e.g. {names[0]}"
        )


def _world_inputs(demo: DemoConfig) -> dict[str, Any]:
    """What the rendered clips depend on: the params, and the code that draws and encodes."""
    code = code_fingerprint("trimodal.download.demo.render", "trimodal.download.demo.annotations")
    return {"demo": asdict(demo), "code": code}


def _render_jobs(world: World, world_dir: Path) -> list[tuple[Clip, Scene]]:
    scenes = {scene.name: scene for scene in (*world.train, *world.test)}
    clips, _ = read_vggsound(world_dir / "vggsound.csv", ("train",))
    videos, _ = read_videos(world_dir / "MSRVTT_JSFUSION_test.csv")
    return [(clip, scenes[clip.clip_id]) for clip in clips + videos]


def _render(
    demo: DemoConfig, clips_dir: Path, fingerprints: Mapping[str, str], job: tuple[Clip, Scene]
) -> tuple[ClipOutcome, bool]:
    """The outcome of a clip, which is rendered unless it is there; and whether it was there but
    damaged.
    """
    clip, scene = job
    path = clips_dir / f"{clip.clip_id}.mp4"
    was_there = path.exists()
    intact = was_there and _is_intact(clip, path, fingerprints.get(path.as_posix(), ""))
    if not intact:
        render_clip(scene, path, demo)
    outcome = inspect(clip, StoredFile.plain(path), updated_at=None)
    return replace(outcome, fingerprint=file_fingerprint(path)), was_there and not intact


def _is_intact(clip: Clip, path: Path, fingerprint: str) -> bool:
    """Whether a clip is the recorded one; one that a killed run did not record must be usable."""
    if not fingerprint:
        return inspect(clip, StoredFile.plain(path), updated_at=None).status == "ok"
    try:
        return file_fingerprint(path) == fingerprint
    except OSError:
        return False
