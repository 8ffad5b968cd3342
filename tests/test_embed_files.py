"""The embeddings of a folder's files are those of its parts, whatever else lies in it."""

import shutil
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from model_fixtures import Tool
from PIL import Image
from training_fixtures import RATE_HZ, TinyData

from trimodal.core.files import read_table
from trimodal.media.audio_windows import cut_windows
from trimodal.search import embed_files as module
from trimodal.search.embed_files import EmbedReport, embed_files


@pytest.fixture(scope="module")
def folder(tiny_data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with and without sound, images, sounds, bad files and others."""
    folder = tmp_path_factory.mktemp("media")
    clips = tiny_data.av_dir.parent / "clips"
    (folder / "b").mkdir()
    shutil.copy(clips / "9.mp4", folder / "b" / "loud.MP4")
    shutil.copy(clips / "10.mp4", folder / "silent.mp4")
    rng = np.random.default_rng(5)
    for name in ("a.png", "b/c.jpg", ".hidden.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    for name, seconds in (("long.wav", 5), ("b/short.wav", 1)):
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE_HZ)
            noise = rng.integers(-9000, 9000, seconds * RATE_HZ)
            file.writeframes(noise.astype("<i2").tobytes())
    for name in ("broken.png", "broken.flac", "broken.mp4"):
        (folder / name).write_bytes(b"not media")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def written(
    tool: Tool, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EmbedReport]:
    out = tmp_path_factory.mktemp("out") / "embeddings.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS_PER_GROUP", 7)
        patch.setattr(module, "_BATCH_SIZE", 4)
        report = embed_files(tool.model, folder, out, workers=1)
    return out, report


def rows_of(out: Path, path: str, modality: str) -> tuple[list[float | None], np.ndarray]:
    rows = [row for row in read_table(out, nullable=["second"]).to_pylist()
            if (row["path"], row["modality"]) == (path, modality)]  # fmt: skip
    return [row["second"] for row in rows], np.array([row["embedding"] for row in rows])


def test_images_and_sounds_have_a_row_each(
    tool: Tool, folder: Path, written: tuple[Path, EmbedReport]
) -> None:
    for name, modality in (("a.png", "image"), ("b/c.jpg", "image"), ("long.wav", "audio"),
                           ("b/short.wav", "audio")):  # fmt: skip
        seconds, rows = rows_of(written[0], name, modality)
        assert seconds == [None]
        expected = tool.model.encode(folder / name)
        np.testing.assert_allclose(rows, expected[None], atol=1e-5)


def test_videos_have_rows_of_frames_and_of_audio_each_second(
    tool: Tool, folder: Path, written: tuple[Path, EmbedReport], tiny_data: TinyData
) -> None:
    from trimodal.media.audio import decode_audio
    from trimodal.media.spectrogram import log_mel
    from trimodal.media.video import decode_frames
    from trimodal.search.index import LIMITS

    video, front_end = folder / "b" / "loud.MP4", tiny_data.front_end
    frames = [frame.copy() for frame in decode_frames(video, 32, 32, LIMITS)]
    seconds, rows = rows_of(written[0], "b/loud.MP4", "image")
    assert seconds == [number + 0.5 for number in range(10)]
    np.testing.assert_allclose(rows, tool.model.embed_images(frames), atol=1e-5)
    seconds, rows = rows_of(written[0], "b/loud.MP4", "audio")
    assert seconds == [number + 0.5 for number in range(10)]
    mel = log_mel(decode_audio(video, RATE_HZ, LIMITS), front_end.mel)
    windows = cut_windows(mel, [1.5, 1.5, 2.5, 3.5], front_end)
    np.testing.assert_allclose(rows[:4], tool.model.embed_windows(windows), atol=1e-5)
    assert len(rows_of(written[0], "silent.mp4", "image")[0]) == 10
    assert rows_of(written[0], "silent.mp4", "audio")[0] == []


def test_the_report_counts_and_the_file_says_whose_they_are(
    tool: Tool, written: tuple[Path, EmbedReport]
) -> None:
    out, report = written
    assert report.rows == 10 + 10 + 10 + 2 + 2
    assert report.problems.keys() == {"broken.png", "broken.flac", "broken.mp4"}
    assert report.problems["broken.png"].startswith("not a picture")
    assert report.problems["broken.flac"].startswith("no_audio: ")
    assert report.hidden == 1
    file = pq.ParquetFile(out)
    assert file.metadata.num_rows == report.rows
    assert file.metadata.num_row_groups > 2
    assert file.schema_arrow.metadata[b"model"].decode() == tool.model.fingerprint
    assert str(file.schema_arrow.field("embedding").type).startswith("fixed_size_list<")
    lengths = np.linalg.norm(read_table(out, nullable=["second"])["embedding"].to_pylist(), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert read_table(out, nullable=["second"])["path"].to_pylist()[0] == "b/loud.MP4"


def test_a_folder_without_media_gives_an_empty_table(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    report = embed_files(tool.model, tmp_path / "in", tmp_path / "out.parquet", workers=1)
    assert report == EmbedReport(rows=0, problems={}, hidden=0)
    assert read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_failure_leaves_the_old_file(
    tool: Tool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("old")
    monkeypatch.setattr(type(tool.model), "embed_windows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed_files(tool.model, folder / "b", out, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert out.read_text() == "old"
    for wrong in (folder / "none", folder / "notes.txt"):
        with pytest.raises(OSError, match=wrong.name):
            embed_files(tool.model, wrong, out, workers=1)
