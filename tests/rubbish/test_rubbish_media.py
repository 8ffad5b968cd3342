"""Every bad clip goes through download and extract in one run and has its expected outcome."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_fixtures import pack
from configs import MACHINE, config_for_tests
from test_download import DEMO, DEMO_SOURCE, YOUTUBE

from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.download.download import download
from trimodal.media.mel import MelConfig
from trimodal.preprocess.clip_shards import ExtractConfig
from trimodal.preprocess.extract import extract

from .media_corpus import CLIPS, BadClip, clip_id

IDS = {clip.name: clip_id(number, clip) for number, clip in enumerate(CLIPS)}
CONTAINERS = ("folder", ".zip", ".tar")
EXTRACT = config_for_tests(
    ExtractConfig, frame_px=16, clips_per_shard=16, longest_seconds=30.0, min_coverage=0.0
)
MEL = config_for_tests(MelConfig, n_fft=512, window_samples=512, hop_samples=160, mels=16)
CODEC_SECONDS = 0.15  # a codec's packets and delay may change a track's length by this


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All clips in a folder with an awkward name, and the CSV files that name them."""
    root = tmp_path_factory.mktemp("rubbish")
    folder = root / "médias 'ü' \"犬\" %d"
    folder.mkdir()
    rows, queries = [], ["key,vid_key,video_id,sentence"]
    for clip in CLIPS:
        clip.make(folder / f"{IDS[clip.name]}.mp4")
        if clip.test:
            queries.append(f"ret{len(queries)},msr,{IDS[clip.name]},a dog")
        else:
            rows.append(f'{IDS[clip.name][:11]},30,"{clip.name}",train')
    (root / "vggsound.csv").write_text("\n".join(rows))
    (root / "queries.csv").write_text("\n".join(queries))
    return folder


@pytest.fixture(scope="session", params=CONTAINERS)
def run(
    request: pytest.FixtureRequest, media: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The corpus after download and extract, taken from the folder, from a zip or from a tar."""
    out = tmp_path_factory.mktemp("run")
    source = media
    if request.param != "folder":
        files = {f"../{path.name}": path.read_bytes() for path in media.iterdir() if path.is_file()}
        source = pack(out / f"all '1'{request.param}", files)
    config = replace(
        DEMO_SOURCE,
        source="files",
        vggsound_csv=str(media.parent / "vggsound.csv"),
        vggsound_media=str(source),
        msrvtt_csv=str(media.parent / "queries.csv"),
        msrvtt_media=str(source),
    )
    download(config, YOUTUBE, DEMO, out / "clips", out / "world", MACHINE)
    extract(out / "clips" / "manifest.parquet", out / "av", EXTRACT, MEL, MACHINE)
    return out


def outcome_of(clip: BadClip, run: Path) -> ClipOutcome:
    (row,) = [
        outcome
        for outcome in read_manifest(run / "clips" / "manifest.parquet")
        if outcome.clip.clip_id == IDS[clip.name]
    ]
    return row


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
def test_clip_has_its_outcome(clip: BadClip, run: Path) -> None:
    outcome = outcome_of(clip, run)
    assert outcome.status == clip.status, outcome.reason
    assert clip.reason in outcome.reason
    assert bool(outcome.reason) == (clip.status != "ok")
    rows = pq.read_table(run / "av" / "index.parquet").to_pylist()
    indexed = [row for row in rows if row["clip_id"] == IDS[clip.name]]
    assert len(indexed) == bool(clip.frames)
    for row in indexed:
        assert len(row["frame_offsets"]) == clip.frames
        assert row["sound_s"] == pytest.approx(clip.sound_s, abs=CODEC_SECONDS)
        columns = 1 + int(row["sound_s"] * MEL.sample_rate_hz + 0.5) // MEL.hop_samples
        assert row["mel_columns"] == (columns if clip.sound_s else 0)


def test_every_clip_that_was_left_out_is_counted(run: Path) -> None:
    expected = Counter(f"download: {clip.status}" for clip in CLIPS if clip.status != "ok")
    expected += Counter(clip.left_out for clip in CLIPS if clip.left_out)
    stats = json.loads((run / "av" / "stats.json").read_text())
    assert stats["left_out"] == expected
    assert sum(stats["clips"].values()) + expected.total() == len(CLIPS)
    assert stats["frames"] == sum(clip.frames for clip in CLIPS)


def test_each_clip_has_one_expected_outcome() -> None:
    assert len({clip.name for clip in CLIPS}) == len(CLIPS) >= 60
    for clip in CLIPS:
        outcomes = [clip.status != "ok", bool(clip.left_out), bool(clip.frames)]
        assert outcomes.count(True) == 1, clip.name
