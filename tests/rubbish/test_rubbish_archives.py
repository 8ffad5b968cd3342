"""Download of a folder of bad archives: each clip has its outcome, and no other file changes."""

import logging
from dataclasses import replace

import pytest
from configs import MACHINE
from data_fixtures import contents, write_clip
from test_download import DEMO, DEMO_SOURCE, YOUTUBE

from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.download.download import download

from .archive_corpus import ARCHIVES, BadArchive

IDS = {archive.name: f"a{number:010d}" for number, archive in enumerate(ARCHIVES)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, ClipOutcome], str]:
    """The outcomes by clip, and the log."""
    root = tmp_path_factory.mktemp("archives")
    clip = write_clip(root / "video1.mp4").read_bytes()
    (folder := root / "folder").mkdir()
    for archive in ARCHIVES:
        clip_id = IDS[archive.name]
        archive.make(folder / f"{clip_id}{archive.kind}", f"{clip_id}_000001.mp4", clip)
    rows = [f"{clip_id},1,dog,train" for clip_id in IDS.values()]
    (root / "vggsound.csv").write_text("\n".join(rows))
    (root / "test.csv").write_text("key,vid_key,video_id,sentence\nr,m,video1,a dog\n")
    config = replace(
        DEMO_SOURCE,
        source="files",
        vggsound_csv=str(root / "vggsound.csv"),
        vggsound_media=str(folder),
        msrvtt_csv=str(root / "test.csv"),
        msrvtt_media=str(root),
    )
    before = contents(root)
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("trimodal")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    out = tmp_path_factory.mktemp("out")
    try:
        download(config, YOUTUBE, DEMO, out / "clips", out / "world", MACHINE)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert contents(root) == before
    outcomes = read_manifest(out / "clips" / "manifest.parquet")
    return {outcome.clip.clip_id: outcome for outcome in outcomes}, "\n".join(messages)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_clip_of_a_bad_archive_has_its_outcome(
    archive: BadArchive, run: tuple[dict[str, ClipOutcome], str]
) -> None:
    outcomes, log = run
    clip_id = IDS[archive.name]
    outcome = outcomes[f"{clip_id}_000001"]
    assert outcome.status == archive.status, outcome.reason
    assert archive.reason in outcome.reason
    assert (f"{clip_id}{archive.kind}: a broken archive" in log) == archive.logged
