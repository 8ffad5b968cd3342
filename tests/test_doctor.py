"""The doctor says what is missing, what to do about it and what every stage will take."""

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import MACHINE

from trimodal import doctor as module
from trimodal.cli import main
from trimodal.core.config import ConfigError
from trimodal.doctor import Diagnosis, as_text, diagnose, read_sections
from trimodal.estimate import Sizes, StageCost, estimate
from trimodal.overlay import apply_overlay

ROOT = Path(__file__).parents[1]
SIZES = Sizes(train_clips=1000, test_videos=10, images=500)
COSTS = [StageCost(stage="extract", seconds=3725.0, bytes=2e6, basis="nothing")]
TINY = {
    "model": {"width": 16},
    "augment": {"crop_px": 32},
    "extract": {"frame_px": 32},
    "train": {"batch_size": 4},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny params, where the doctor looks."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    change(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "estimate", lambda *_: COSTS)
    return tmp_path


def change(place: Path, changes: dict[str, dict[str, Any]]) -> None:
    params = yaml.safe_load((place / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def verdicts(diagnosis: Diagnosis) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in diagnosis.findings}


def detail(diagnosis: Diagnosis, what: str) -> str:
    return next(finding.detail for finding in diagnosis.findings if finding.what == what)


def test_the_demo_lacks_nothing(place: Path) -> None:
    diagnosis = diagnose(place / "params.yaml")
    assert diagnosis.healthy
    assert verdicts(diagnosis)["ffmpeg"] == "ok"


def test_params_that_no_stage_would_take_are_refused(place: Path) -> None:
    change(place, {"leaks": {"test_in_training": "perhaps"}})
    with pytest.raises(ConfigError, match=r"leaks\.test_in_training"):
        diagnose(place / "params.yaml")


def test_at_paper_scale_every_missing_source_is_named_with_its_home(place: Path) -> None:
    apply_overlay(place / "params.yaml", place / "params" / "paper.yaml")
    change(place, TINY | {"model": {"width": 16, "image_weights": "none", "audio_weights": "none"}})
    diagnosis = diagnose(place / "params.yaml")
    assert not diagnosis.healthy
    missing = {what for what, verdict in verdicts(diagnosis).items() if verdict == "missing"}
    assert missing >= {
        "download.vggsound_csv", "download.vggsound_media", "download.msrvtt_csv",
        "download.msrvtt_media", "captions.coco", "captions.flickr30k", "captions.vectors",
        "evaluate.test_csv",
    }  # fmt: skip
    assert "vggsound" in detail(diagnosis, "download.vggsound_csv")
    assert "MSRVTT.zip" in detail(diagnosis, "download.msrvtt_media")


def test_a_source_that_is_there_is_not_missing(place: Path) -> None:
    change(
        place,
        {
            "download": {
                "source": "files", "vggsound_csv": "v.csv", "vggsound_media": "clips",
                "msrvtt_csv": "m.csv", "msrvtt_media": "videos",
            }
        },
    )  # fmt: skip
    (place / "v.csv").write_text("abcdefghijk,1,dog,train\n")
    (place / "clips").mkdir()
    found = verdicts(diagnose(place / "params.yaml"))
    assert found["download.vggsound_csv"] == found["download.vggsound_media"] == "ok"
    assert found["download.msrvtt_csv"] == "missing"
    assert "VGGSound" not in found


def test_a_source_that_is_there_and_cannot_be_read_is_named(place: Path) -> None:
    change(
        place,
        {
            "download": {
                "source": "files", "vggsound_csv": "v.csv", "vggsound_media": "clips",
                "msrvtt_csv": "m.csv", "msrvtt_media": "videos",
            },
            "captions": {"coco": "coco"},
        },
    )  # fmt: skip
    (place / "v.csv").write_text("<html>sign in</html>\n" * 9)
    (place / "coco").mkdir()
    diagnosis = diagnose(place / "params.yaml")
    assert verdicts(diagnosis)["VGGSound"] == verdicts(diagnosis)["COCO"] == "missing"
    assert "9 of 9 rows" in detail(diagnosis, "VGGSound")
    assert "183,730" in detail(diagnosis, "VGGSound")
    assert "train2017.zip" in detail(diagnosis, "COCO")


def youtube(place: Path, **access: Any) -> Diagnosis:
    change(
        place,
        {
            "download": {
                "source": "youtube", "vggsound_csv": "v.csv", "msrvtt_csv": "m.csv",
                "msrvtt_media": "videos",
            },
            "machine": {"youtube": asdict(MACHINE.youtube) | access},
        },
    )  # fmt: skip
    return diagnose(place / "params.yaml")


def test_youtube_needs_a_javascript_runtime(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "deno" else "/x/qjs")
    assert verdicts(youtube(place, js_runtime="deno"))["JavaScript runtime"] == "missing"
    assert verdicts(youtube(place, js_runtime="quickjs"))["JavaScript runtime"] == "ok"


def test_an_old_yt_dlp_is_worth_a_note(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yt_dlp.version.__version__", "2020.01.01")
    diagnosis = youtube(place)
    assert verdicts(diagnosis)["yt-dlp"] == "note"
    assert "pip install --upgrade yt-dlp" in detail(diagnosis, "yt-dlp")


def test_a_cookies_file_that_is_not_there_is_missing(place: Path) -> None:
    assert (
        verdicts(youtube(place, cookies_file="nope.txt"))["machine.youtube.cookies_file"]
        == "missing"
    )


def test_weights_are_looked_for_where_torch_keeps_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(place, {"model": {"width": 64, "image_weights": "imagenet"}})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert verdicts(diagnose(place / "params.yaml"))["ImageNet weights"] == "note"
    kept = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert verdicts(diagnose(place / "params.yaml"))["ImageNet weights"] == "ok"


def test_a_required_gpu_that_is_absent_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    change(place, {"machine": {"device": "cuda"}})
    assert verdicts(diagnose(place / "params.yaml"))["device"] == "missing"


@pytest.mark.parametrize(("free", "verdict"), [(10**6, "missing"), (10**15, "ok")])
def test_the_disk_is_held_against_the_need(
    free: int, verdict: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(free, 0, free)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert verdicts(diagnose(place / "params.yaml"))["disk"] == verdict


def test_a_cache_that_links_halves_the_need(place: Path) -> None:
    before = detail(diagnose(place / "params.yaml"), "disk")
    (place / ".dvc").mkdir()
    (place / ".dvc" / "config").write_text("[cache]\n    type = hardlink,symlink\n")
    after = detail(diagnose(place / "params.yaml"), "disk")
    assert "keeps a copy" in before
    assert "keeps a copy" not in after


def test_costs_grow_with_the_work(place: Path) -> None:
    sections = read_sections(place / "params.yaml")
    few = {cost.stage: cost for cost in estimate(sections, SIZES)}
    assert list(few) == ["download", "extract", "captions", "train", "evaluate"]
    assert all(cost.seconds > 0 for cost in few.values() if cost.stage != "download")
    assert few["extract"].bytes > 0
    many = estimate(sections, Sizes(train_clips=10**6, test_videos=10, images=10**6))
    for cost in many:
        if cost.stage in ("extract", "captions"):
            assert cost.seconds > 20 * few[cost.stage].seconds
            assert cost.bytes == pytest.approx(
                few[cost.stage].bytes * {"extract": 1_000_010 / 1010, "captions": 2000}[cost.stage]
            )
    assert math.isnan(few["download"].seconds)  # the demo's


def test_every_finding_and_every_stage_has_its_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trimodal", "doctor"])
    main()
    lines = capsys.readouterr().out.splitlines()
    diagnosis = diagnose(place / "params.yaml")
    assert len(lines) == len(diagnosis.findings) + 2 + len(diagnosis.costs)
    assert lines == as_text(diagnosis).splitlines()
    assert lines[-1].split()[:3] == ["extract", "1:02:05", "2.00MB"]


def test_the_exit_code_tells_that_something_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(place, {"captions": {"vectors": "nope.bin"}, "download": {
        "source": "files", "vggsound_csv": "v", "vggsound_media": "v", "msrvtt_csv": "v",
        "msrvtt_media": "v",
    }})  # fmt: skip
    monkeypatch.setattr("sys.argv", ["trimodal", "doctor"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "nope.bin" in capsys.readouterr().out
