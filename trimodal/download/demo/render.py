"""Renders a scene to an MP4 file."""

from pathlib import Path

from trimodal.download.demo.audio import scene_audio
from trimodal.download.demo.draw import clip_frames
from trimodal.download.demo.scenes import Scene
from trimodal.download.demo.world import DemoConfig
from trimodal.media.container import encode_video


def render_clip(scene: Scene, path: Path, cfg: DemoConfig) -> None:
    """Writes `scene` as an H.264/AAC MP4 at `path`; a silent scene gets no audio track."""
    encode_video(
        path,
        clip_frames(scene, seconds=cfg.clip_seconds, fps=cfg.fps, frame_px=cfg.frame_px),
        fps=cfg.fps,
        audio=scene_audio(scene, cfg.audio_rate_hz, cfg.clip_seconds),
        audio_rate_hz=cfg.audio_rate_hz,
    )
