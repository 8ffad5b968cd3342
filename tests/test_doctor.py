"""The doctor names what is missing and how to get it, and estimates each stage's cost."""

import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from configs import MACHINE, config_for_tests
from tower_fixtures import write_clip

from trimodal import doctor as module
from trimodal import estimate as costs_module
from trimodal.cli import main
from trimodal.core.config import ConfigError
from trimodal.doctor import Diagnosis, count_work, diagnose, format_diagnosis, read_sections
from trimodal.download.demo.world import DemoConfig
from trimodal.estimate import Sizes, StageCost, estimate, steps_per_epoch
from trimodal.overlay import apply_overlay
from trimodal.training import loaders
from trimodal.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
SIZES = Sizes(train_clips=1000, test_videos=10, images=500, train_images=400)
COSTS = [StageCost(stage="extract", seconds=3725.0, bytes=2e6, basis="nothing")]
TINY = {
    "model": {"width": 16},
    "augment": {"crop_px": 32},
    "extract": {"frame_px": 32},
    "train": {"batch_size": 4},
}


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with tiny params."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    change(tmp_path, TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "estimate", lambda *_: COSTS)
    monkeypatch.setattr(costs_module, "_SAMPLES", 1)
    return tmp_path


def change(workdir: Path, changes: dict[str, dict[str, Any]]) -> None:
    params = yaml.safe_load((workdir / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    (workdir / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def verdicts(diagnosis: Diagnosis) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in diagnosis.findings}


def detail(diagnosis: Diagnosis, name: str) -> str:
    return next(finding.detail for finding in diagnosis.findings if finding.name == name)


def test_nothing_is_missing_for_the_demo(workdir: Path) -> None:
    diagnosis = diagnose(workdir / "params.yaml")
    assert diagnosis.healthy
    assert verdicts(diagnosis)["ffmpeg"] == "ok"


def test_invalid_params_are_refused(workdir: Path) -> None:
    change(workdir, {"leaks": {"test_in_training": "perhaps"}})
    with pytest.raises(ConfigError, match=r"leaks\.test_in_training"):
        diagnose(workdir / "params.yaml")


def test_at_paper_scale_every_missing_source_is_named_with_where_to_get_it(workdir: Path) -> None:
    apply_overlay(workdir / "params.yaml", workdir / "params" / "paper.yaml")
    change(
        workdir, TINY | {"model": {"width": 16, "image_weights": "none", "audio_weights": "none"}}
    )
    diagnosis = diagnose(workdir / "params.yaml")
    assert not diagnosis.healthy
    missing = {name for name, verdict in verdicts(diagnosis).items() if verdict == "missing"}
    assert missing >= {
        "download.vggsound_csv", "download.vggsound_media", "download.msrvtt_csv",
        "download.msrvtt_media", "captions.coco", "captions.flickr30k", "captions.vectors",
    }  # fmt: skip
    lines = format_diagnosis(diagnosis).splitlines()
    for path in ("vggsound.csv", "MSRVTT_JSFUSION_test.csv", "data/sources/coco", "flickr30k"):
        assert sum(" data/sources/" in line and path in line for line in lines) == 1, path
    assert "vggsound" in detail(diagnosis, "download.vggsound_csv")
    assert "MSRVTT.zip" in detail(diagnosis, "download.msrvtt_media")


def test_for_own_videos_their_folder_and_the_towers_are_named_and_no_captions(
    workdir: Path,
) -> None:
    """Weights that cannot be had are a finding among the others, not the end."""
    apply_overlay(workdir / "params.yaml", workdir / "params" / "own-videos.yaml")
    weights = "no/such.safetensors"
    change(workdir, {"model": {"image_weights": weights, "text_weights": weights}})
    diagnosis = diagnose(workdir / "params.yaml")
    missing = {name for name, verdict in verdicts(diagnosis).items() if verdict == "missing"}
    assert missing == {"download.vggsound_media", "towers"}
    assert detail(diagnosis, "download.vggsound_media") == (
        "data/sources/videos: the folder of your videos"
    )
    assert "model.image_weights: the weights of" in detail(diagnosis, "towers")
    assert weights in detail(diagnosis, "towers")
    assert "\n" not in detail(diagnosis, "towers")
    assert format_diagnosis(diagnosis).endswith("no estimate of the stages")


def test_frozen_towers_are_estimated_by_what_they_see(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features are made in a stage of its own, and training steps are made of features."""
    pytest.importorskip("open_clip", reason="an optional extra")
    monkeypatch.setattr(costs_module, "_sample_clip", lambda _: SimpleNamespace(size=1))
    monkeypatch.setattr(costs_module, "_clip_cost", lambda *_: (1.0, 1, 1.0))
    step, seen = Trainer.step, []

    def recorded(self: Trainer, audio: Any, text: Any) -> Any:
        seen.append((tuple(audio[0].shape), text and tuple(text[1].shape)))
        return step(self, audio, text)

    monkeypatch.setattr(Trainer, "step", recorded)
    name = f"open_clip:{write_clip(tmp_path / 'clip')}"
    towers = {"image_backbone": name, "text_network": name, "head": "none", "embedding_dim": 24}
    change(workdir, {"model": towers | {"freeze": ["image", "text"]}, "features": {"views": 3}})
    for sizes in (SIZES, replace(SIZES, images=0, train_images=0)):
        costs = {cost.stage: cost for cost in estimate(read_sections(Path("params.yaml")), sizes)}
        pictures = 10_000 + sizes.train_images
        assert f"{3 * pictures:,} views" in costs["features"].basis
        assert costs["features"].seconds > 0
        assert costs["train"].seconds > 0
        assert seen[-1] == ((4, 24), (4, 24) if sizes.images else None)
    change(workdir, {"train": {"freeze_epochs": 1}})
    thawed = {cost.stage: cost for cost in estimate(read_sections(Path("params.yaml")), SIZES)}
    assert thawed.keys() == costs.keys()
    assert seen[-1] == ((4, 3, 32, 32), (4, 20))


def test_an_existing_source_is_not_missing(workdir: Path) -> None:
    change(
        workdir,
        {
            "download": {
                "source": "files", "vggsound_csv": "v.csv", "vggsound_media": "clips",
                "msrvtt_csv": "m.csv", "msrvtt_media": "videos",
            }
        },
    )  # fmt: skip
    (workdir / "v.csv").write_text("abcdefghijk,1,dog,train\n")
    (workdir / "clips").mkdir()
    results = verdicts(diagnose(workdir / "params.yaml"))
    assert results["download.vggsound_csv"] == results["download.vggsound_media"] == "ok"
    assert results["download.msrvtt_csv"] == "missing"


def test_an_existing_source_that_cannot_be_read_is_named(workdir: Path) -> None:
    change(
        workdir,
        {
            "download": {
                "source": "files", "vggsound_csv": "v.csv", "vggsound_media": "clips",
                "msrvtt_csv": "m.csv", "msrvtt_media": "videos",
            },
            "captions": {"coco": "coco"},
        },
    )  # fmt: skip
    (workdir / "v.csv").write_text("<html>sign in</html>\n" * 9)
    (workdir / "coco").mkdir()
    diagnosis = diagnose(workdir / "params.yaml")
    keys = [finding.name for finding in diagnosis.findings]
    for key in ("download.vggsound_csv", "captions.coco"):
        assert verdicts(diagnosis)[key] == "missing"
        assert keys.count(key) == 1
    assert "9 of 9 rows" in detail(diagnosis, "download.vggsound_csv")
    assert "183,730" in detail(diagnosis, "download.vggsound_csv")
    assert "train2017.zip" in detail(diagnosis, "captions.coco")


def youtube(workdir: Path, **access: Any) -> Diagnosis:
    change(
        workdir,
        {
            "download": {
                "source": "youtube", "vggsound_csv": "v.csv", "msrvtt_csv": "m.csv",
                "msrvtt_media": "videos",
            },
            "machine": {"youtube": asdict(MACHINE.youtube) | access},
        },
    )  # fmt: skip
    return diagnose(workdir / "params.yaml")


def test_youtube_needs_a_javascript_runtime(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == "deno" else "/x/qjs")
    assert verdicts(youtube(workdir, js_runtime="deno"))["JavaScript runtime"] == "missing"
    assert verdicts(youtube(workdir, js_runtime="quickjs"))["JavaScript runtime"] == "ok"


def test_an_old_yt_dlp_is_a_note(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yt_dlp.version.__version__", "2020.01.01")
    diagnosis = youtube(workdir)
    assert verdicts(diagnosis)["yt-dlp"] == "note"
    assert "pip install --upgrade yt-dlp" in detail(diagnosis, "yt-dlp")


def test_a_cookies_file_that_does_not_exist_is_missing(workdir: Path) -> None:
    assert (
        verdicts(youtube(workdir, cookies_file="nope.txt"))["machine.youtube.cookies_file"]
        == "missing"
    )


def test_weights_are_found_in_the_cache_of_torch(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(workdir, {"model": {"width": 64, "image_weights": "imagenet"}})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert verdicts(diagnose(workdir / "params.yaml"))["ImageNet weights"] == "note"
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert verdicts(diagnose(workdir / "params.yaml"))["ImageNet weights"] == "ok"


def test_weights_whose_package_is_not_installed_are_missing(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(
        workdir, {"model": {"image_backbone": "efficientnet_lite0", "image_weights": "imagenet"}}
    )
    sections = read_sections(workdir / "params.yaml")
    assert list(module._weights(sections)) == []
    monkeypatch.setattr(module, "missing_packages", lambda *names: list(names))
    (finding,) = module._weights(sections)
    assert finding.verdict == "missing"
    assert finding.detail == "of efficientnet_lite0: pip install 'trimodal[imagenet]'"


def test_a_required_gpu_that_is_absent_is_missing(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    change(workdir, {"machine": {"device": "cuda"}})
    assert verdicts(diagnose(workdir / "params.yaml"))["device"] == "missing"


@pytest.mark.parametrize(("free", "verdict"), [(10**6, "missing"), (10**15, "ok")])
def test_free_disk_space_is_compared_with_the_required(
    free: int, verdict: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(free, 0, free)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert verdicts(diagnose(workdir / "params.yaml"))["disk"] == verdict


def test_a_cache_with_links_halves_the_required_space(workdir: Path) -> None:
    before = detail(diagnose(workdir / "params.yaml"), "disk")
    (workdir / ".dvc").mkdir()
    (workdir / ".dvc" / "config").write_text("[cache]\n    type = hardlink,symlink\n")
    after = detail(diagnose(workdir / "params.yaml"), "disk")
    assert "keeps a copy" in before
    assert "keeps a copy" not in after


def test_the_least_of_several_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of the machine do not, and slow work is not repeated."""
    now, runs = 0.0, iter([0.1, 0.05, 0.1, 0.1, 0.1, 9.0, 7.0])

    def work() -> None:
        nonlocal now
        now += next(runs)

    monkeypatch.setattr(costs_module.time, "perf_counter", lambda: now)
    assert costs_module._least_seconds(work) == pytest.approx(0.05)
    assert costs_module._least_seconds(work) == pytest.approx(9.0)
    assert list(runs) == [7.0]


def test_costs_grow_with_the_data(workdir: Path) -> None:
    sections = read_sections(workdir / "params.yaml")
    few = {cost.stage: cost for cost in estimate(sections, SIZES)}
    assert list(few) == ["download", "extract", "captions", "train", "evaluate"]
    assert all(cost.seconds > 0 for cost in few.values() if cost.stage != "download")
    assert few["extract"].bytes > 0
    many = estimate(
        sections, Sizes(train_clips=10**6, test_videos=10, images=10**6, train_images=10**6)
    )
    for cost in many:
        if cost.stage in ("extract", "captions"):
            assert cost.seconds > 20 * few[cost.stage].seconds
            assert cost.bytes == pytest.approx(
                few[cost.stage].bytes * {"extract": 1_000_010 / 1010, "captions": 2000}[cost.stage]
            )
    assert math.isnan(few["download"].seconds)  # unknown for the demo


def test_an_epoch_at_paper_scale_has_293_steps(workdir: Path) -> None:
    """Validation images, and clips that are held out, train nothing (docs/method.md, Training)."""
    apply_overlay(workdir / "params.yaml", workdir / "params" / "paper.yaml")
    sections = read_sections(workdir / "params.yaml")
    official = Sizes(
        train_clips=183_730, test_videos=1000, images=155_070, train_images=118_287 + 31_783
    )
    assert steps_per_epoch(sections, official) == 293
    few_clips = replace(official, train_clips=100_000)
    assert steps_per_epoch(sections, few_clips) == 90_000 // 512


def test_the_demo_counts_what_trains(workdir: Path) -> None:
    sizes, unreadable = count_work(
        read_sections(workdir / "params.yaml"), config_for_tests(DemoConfig)
    )
    assert not unreadable
    assert 0 < sizes.train_images < sizes.images


def test_every_finding_and_every_stage_has_its_line(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["trimodal", "doctor"])
    main()
    lines = capsys.readouterr().out.splitlines()
    diagnosis = diagnose(workdir / "params.yaml")
    assert len(lines) == len(diagnosis.findings) + 2 + len(diagnosis.costs)
    assert lines == format_diagnosis(diagnosis).splitlines()
    assert lines[-1].split()[:3] == ["extract", "1:02:05", "2.00MB"]


def test_the_exit_code_is_1_if_something_is_missing(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(workdir, {"captions": {"vectors": "nope.bin"}, "download": {
        "source": "files", "vggsound_csv": "v", "vggsound_media": "v", "msrvtt_csv": "v",
        "msrvtt_media": "v",
    }})  # fmt: skip
    monkeypatch.setattr("sys.argv", ["trimodal", "doctor"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "nope.bin" in capsys.readouterr().out


def test_a_temporary_folder_without_sockets_is_missing(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages with several workers cannot start."""
    monkeypatch.setattr(module, "socket_problem", lambda: "no socket can be made in /x")
    diagnosis = diagnose(workdir / "params.yaml")
    assert not diagnosis.healthy
    assert detail(diagnosis, "TMPDIR") == "no socket can be made in /x"


def test_a_small_shared_memory_is_noted(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(workdir, {"machine": {"loader_workers": 8}, "train": {"batch_size": 512}})
    assert verdicts(diagnose(workdir / "params.yaml"))["shared memory"] == "ok"
    monkeypatch.setattr(loaders, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    diagnosis = diagnose(workdir / "params.yaml")
    assert diagnosis.healthy
    assert verdicts(diagnosis)["shared memory"] == "note"
    assert "--shm-size=1g" in detail(diagnosis, "shared memory")
    change(workdir, {"machine": {"loader_workers": 0}})
    assert verdicts(diagnose(workdir / "params.yaml"))["shared memory"] == "ok"
