"""Media files: probing, files that are not media, encoding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from data_fixtures import contents
from media_fixtures import ffmpeg, frames_of, samples_of, write_steps

from trimodal.core.machine_errors import UnreadableError
from trimodal.media.container import MediaError
from trimodal.media.tracks import probe


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_steps(tmp_path_factory.mktemp("media") / "clip.mp4")


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_steps(tmp_path_factory.mktemp("media") / "short.mp4", seconds=2)


def test_probe_returns_duration_and_has_audio(clip: Path, tmp_path: Path) -> None:
    info = probe(clip)
    assert info.duration_seconds == pytest.approx(10.0, abs=0.1)
    assert info.has_audio
    silent = write_steps(tmp_path / "silent.mp4", seconds=2, with_audio=False)
    assert probe(silent).duration_seconds == pytest.approx(2.0, abs=0.01)
    assert not probe(silent).has_audio


def test_file_without_audio_is_refused(tmp_path: Path) -> None:
    silent = write_steps(tmp_path / "silent.mp4", seconds=1, with_audio=False)
    assert len(frames_of(silent, 8, 8)) == 1
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        samples_of(silent)


def test_text_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("Video unavailable\n" * 100)
    with pytest.raises(MediaError, match=r"text\.mp4: corrupt") as caught:
        probe(path)
    assert caught.value.reason == "corrupt"
    with pytest.raises(MediaError, match=r"text\.mp4"):
        frames_of(path, 8, 8)


def test_missing_file_is_missing_and_not_corrupt(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"absent\.mp4: missing: "):
        probe(tmp_path / "absent.mp4")


def test_audio_without_video_is_refused(short_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "audio.mp4"
    ffmpeg("-i", short_clip, "-vn", "-c", "copy", path)
    with pytest.raises(MediaError) as caught:
        probe(path)
    assert caught.value.reason == "no_video"


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.0,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile secret.ts\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_cannot_reach_other_files(name: str, short_clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", short_clip, "-c", "copy", tmp_path / "secret.ts")
    for ending in ("mp4", "m3u8"):
        path = tmp_path / f"playlist.{ending}"
        path.write_text(PLAYLISTS[name])
        readers: list[Callable[[Path], Any]] = [probe, lambda p: frames_of(p, 8, 8), samples_of]
        for read in readers:
            with pytest.raises(MediaError) as caught:
                read(path)
            assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(
    "name",
    [
        "-clip.mp4",
        "--help.mp4",
        "12:30.mp4",
        "a 'quoted' \"clip\".mp4",
        "100%d [1];&$x.mp4",
        "ü犬.mp4",
    ],
)
def test_awkward_file_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / "folder 'x'" / name):
        write_steps(path, seconds=1)
        assert path.is_file()
        assert probe(path).has_audio
        assert len(frames_of(path, 8, 8)) == 1
        assert len(samples_of(path)) > 15_000


def test_encoding_is_reproducible(tmp_path: Path) -> None:
    first = write_steps(tmp_path / "first.mp4", seconds=2).read_bytes()
    assert write_steps(tmp_path / "second.mp4", seconds=2).read_bytes() == first


def test_codecs_are_h264_and_aac(short_clip: Path) -> None:
    with av.open(str(short_clip)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["h264"]
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
        assert container.streams.video[0].average_rate == 6


@pytest.mark.parametrize("existing", [True, False])
def test_failed_encoding_leaves_nothing_half_written(existing: bool, tmp_path: Path) -> None:
    """H.264 needs even sides. An existing file stays as it was."""
    path = tmp_path / "clip.mp4"
    if existing:
        path.write_bytes(b"before")
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        write_steps(path, seconds=1, odd=True)
    assert contents(tmp_path) == ({"clip.mp4": b"before"} if existing else {})
