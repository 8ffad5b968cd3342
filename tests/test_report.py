"""The report: the paper's table with our rows, true statements, the same bytes twice."""

import copy
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from comparison_fixtures import run
from data_fixtures import contents
from matplotlib.figure import Figure
from model_fixtures import FACTS
from report_fixtures import Evaluated
from repository import ROOT

from trimodal.core.files import write_table
from trimodal.core.schemas import SOUND_MAP_SCHEMA
from trimodal.report.comparison import compare_variants
from trimodal.report.comparison_table import comparison_table
from trimodal.report.report import write_report
from trimodal.report.series import read_series

# docs/method.md, Results: R@1, R@5, R@10, MedR of each row
PAPER = {
    "C+LSTM+SA+FC7": "4.2 | 12.9 | 19.9 | 55",
    "VSE-LSTM": "3.8 | 12.7 | 17.1 | 66",
    "JSFusion": "10.2 | 31.2 | 43.2 | 13",
    "Miech et al.": "7.5 | 21.2 | 29.6 | 38",
    "MIL-NCE": "9.9 | 24.0 | 32.4 | 30",
    "MMV FAC": "9.3 | 23.0 | 31.1 | 38",
    "simple loss": "5.3 | 16.3 | 23.6 | 52",
    "audio feature": "6.0 | 16.6 | 25.0 | 49",
    "VM-ranking loss": "6.1 | 15.8 | 24.2 | 48",
}

SOUNDS_AUDIT = {"kind": "text_audio", "queries": 15, "gallery": 3}
SOUNDS = {
    "directions": {
        "text_to_audio": {
            "R@1": 40.0, "R@5": 41.0, "R@10": 42.0, "R@50": 43.0, "MedR": 2.0, "MeanR": 3.5,
            "MRR": 44.0, "nDCG@10": 45.0, "intervals": {"R@1": [30.25, 50.0], "MRR": [4.0, 99.96]},
        },
        "audio_to_text": {"R@1": 50.0, "R@5": 51.0, "R@10": 52.0, "MedR": 1.0, "MeanR": 1.5},
    },
    "rsum": {"text_audio": {"rsum": 276.0, "intervals": {"rsum": [200.0, 300.0]}}},
}  # fmt: skip
NO_COMPARISON: dict[str, Any] = {"git": "", "seeds": [], "runs": []}  # as committed


def summary(r1: float, r5: float, r10: float, median: float, mean: float) -> dict[str, float]:
    return {"R@1": r1, "R@5": r5, "R@10": r10, "MedR": median, "MeanR": mean}


@pytest.fixture
def metrics() -> dict[str, Any]:
    image, mixed = summary(10.04, 20, 30, 12, 21.54), summary(11.06, 22, 33, 11.5, 19.26)
    directions = ("text_to_image", "image_to_text", "text_to_audio", "audio_to_text")
    named = {name: summary(i, 2 * i, 3 * i, 40 + i, 50 + i) for i, name in enumerate(directions)}
    return {
        "text_to_video": {"image": image, "image_audio": mixed},
        "other_protocol": {"image": summary(9, 19, 29, 13, 22), "image_audio": mixed},
        "directions": named,
        "audio_to_image_text": summary(7, 8, 9, 10, 11),
        "demo": {
            "oracle": {name: summary(61, 97, 99, 1, 2) for name in ("image", "audio", "both")},
            "sound_captions": {"queries": 17, "image": image, "image_audio": mixed},
        },
    }


def write(folder: Path, retrieval: dict[str, Any], comparison: Any = None) -> Path:
    """A metrics folder as the stages before the report leave it."""
    plots = folder / "train" / "plots" / "metrics"
    for part in ("train", "val"):
        (plots / part).mkdir(parents=True, exist_ok=True)
        (plots / part / "loss.tsv").write_text("step\tloss\n0\t0.5\n1\t0.25\n")
    audit = {
        "kind": "text_video", "margin_mode": "variable", "protocol": "standard",
        "audio_weight": 0.2, "epoch": 2,
        "queries": 50, "gallery": 50, "gallery_without_audio": 3, "unknown_word_share": 0.0123,
        "data": "d", "videos_seen_in_training_kept": 0, "videos_seen_in_training_left_out": 0,
        "geometry": {
            "image": {"rows": 50, "effective_rank": 31.26, "mean_cosine": 0.12345},
            "text": {"rows": 51, "effective_rank": 28.0, "mean_cosine": -0.5},
        },
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(FACTS))
    audits = {"sounds": SOUNDS_AUDIT, "msrvtt": audit}
    (folder / "audit.json").write_text(json.dumps(audits))
    for name, metrics in {"sounds": SOUNDS, "msrvtt": retrieval}.items():
        (folder / "evaluation" / name).mkdir(parents=True, exist_ok=True)
        (folder / "evaluation" / name / "metrics.json").write_text(json.dumps(metrics))
    for file in ("embeddings.parquet", "ranks.parquet"):
        shutil.copy(_evaluated[0].folder / file, folder / "evaluation" / "msrvtt" / file)
    (folder / "comparison.json").write_text(json.dumps(comparison or NO_COMPARISON))
    curve = (
        "set,audio_weight,R@1,R@5,R@10,MedR\nother,0,9,9,9,9\n"
        "msrvtt,0,1,2,3,4\nmsrvtt,0.5,2,3,4,5\nmsrvtt,1,0,1,2,3\n"
    )
    (folder / "audio_weight.csv").write_text(curve)
    return folder


_evaluated: list[Evaluated] = []


@pytest.fixture(autouse=True)
def _use_evaluated(evaluated: Evaluated) -> None:
    _evaluated[:] = [evaluated]


def report_on(metrics: Path, out: Path) -> None:
    (source,) = _evaluated
    model, params = metrics / "model.json", ROOT / "params.yaml"
    write_report(
        metrics, model, params, metrics / "evaluation", source.av_dir, source.manifest, out
    )


_written: dict[str, Path] = {}


def save_blank(_figure: Figure, file: Path | io.StringIO, **_: object) -> None:
    if isinstance(file, Path):
        file.write_text("<svg></svg>")
    else:
        file.write("<svg></svg>")


def report(tmp_path: Path, retrieval: dict[str, Any], comparison: Any = None) -> str:
    """The report's text, with blank plots, which take long to draw. What another test has written
    already is copied, where nothing is yet.
    """
    metrics, out = write(tmp_path / "metrics", retrieval, comparison), tmp_path / "report"
    known = _written.setdefault(json.dumps([retrieval, comparison]), out)
    if known == out or out.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", save_blank)
            report_on(metrics, out)
    else:
        shutil.copytree(known, out)
    return (out / "report.md").read_text()


def row(text: str, *parts: str) -> str:
    """The one table row that has all parts in it, but those of the table of all test sets."""
    lines = [
        line for line in text.splitlines() if not line.startswith(("| msrvtt |", "| sounds |"))
    ]
    (line,) = [line for line in lines if line.startswith("|") and all(p in line for p in parts)]
    return line


@pytest.mark.parametrize(("method", "figures"), PAPER.items())
def test_papers_rows_have_the_papers_figures(
    method: str, figures: str, metrics: dict[str, Any], tmp_path: Path
) -> None:
    report(tmp_path, metrics)
    table = (tmp_path / "report" / "table.md").read_text()
    assert row(table, method, "MSR-VTT, 1000").endswith(f"| {figures} |")


def test_our_rows_have_our_figures(metrics: dict[str, Any], tmp_path: Path) -> None:
    text = report(tmp_path, metrics)
    ours = row(text, "ours: variable margin, image alone")
    assert ours.startswith("| **ours: variable margin, image alone** | this run | demo world, 50 |")
    assert ours.endswith("| 10.0 | 20.0 | 30.0 | 12 |")
    assert row(text, "ours: variable margin, image + audio").endswith(
        "| 11.1 | 22.0 | 33.0 | 11.5 |"
    )
    assert row(text, "| random").endswith("| 2.0 | 10.0 | 20.0 | 25.5 |")
    assert row(text, "oracle that sees everything").endswith("| 61.0 | 97.0 | 99.0 | 1 |")
    assert row(text, "image alone", "9.0").endswith("| 9.0 | 19.0 | 29.0 | 13 |")
    assert row(text, "text to audio").endswith("| 2.0 | 4.0 | 6.0 | 42 | 52.0 |")
    assert row(text, "helped by text").endswith("| 7.0 | 8.0 | 9.0 | 10 | 11.0 |")
    assert row(text, "unknown word share").endswith("| 0.0123 |")
    assert row(text, "| image |", "31").endswith("| 50 | 31.3 | 0.123 |")
    assert row(text, "| text |", "28").endswith("| 51 | 28.0 | -0.500 |")
    assert "geometry" not in text
    assert "50 sentences, 50 videos, 3 of them without audio" in text


def test_all_sets_are_in_one_table_with_their_intervals(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    lines = report(tmp_path, metrics).splitlines()
    sets = [line for line in lines if line.startswith(("| sounds |", "| msrvtt |"))]
    assert [line.split(" | ")[1] for line in sets] == [
        "text to audio", "audio to text", "text to video, image alone",
        "text to video, image + audio", "text to image", "image to text", "text to audio",
        "audio to text", "audio to image, helped by text",
    ]  # fmt: skip
    assert sets[0] == (
        "| sounds | text to audio | 15 / 3 | 40.0 (30.2..50.0) | 41.0 | 42.0 | 43.0 | 2.0 | 3.5 | "
        "44.0 (4.0..100.0) | 45.0 | 276.0 (200.0..300.0) |"
    )
    assert sets[1].endswith("| 15 / 3 | 50.0 | 51.0 | 52.0 |  | 1.0 | 1.5 |  |  |  |")
    assert sets[2].startswith("| msrvtt | text to video, image alone | 50 / 50 | 10.0 | 20.0 |")


ZERO_SHOT = {
    "top1": 50.04, "top1_low": 40.0, "top1_high": 60.0, "top5": 90.0, "top5_low": 80.0,
    "top5_high": 95.5, "linear_probe": {
        "accuracy": 70.0, "accuracy_low": 65.0, "accuracy_high": 75.0, "accuracy_by_fold": {},
    },
}  # fmt: skip
ZERO_SHOT_AUDIT = {
    "kind": "zero_shot", "modality": "sound", "items": 30, "classes": 16,
    "unknown_classes": ["zebra", "yak"],
}  # fmt: skip
CIOU = {"cIoU@0.5": 31.0, "AUC": 32.0, "cIoU": 33.0, "intervals": {
    key: [30.0, 34.0] for key in ("cIoU@0.5", "AUC", "cIoU")
}}  # fmt: skip
PLACES = {"sound": {"half": CIOU}, "best": {"half": CIOU}}
MAPS = pa.Table.from_pylist(
    [{"name": "clip1", "ciou_half": 0.3, "ciou_as_many": 0.4, "frame": b"f", "heat_map": b"h",
      "boxes": [[0.0, 0.0, 0.5, 0.5]]}],
    schema=SOUND_MAP_SCHEMA,
)  # fmt: skip


def write_sets(folder: Path, sets: dict[str, tuple[Any, Any]]) -> Path:
    """As :func:`write`, with these test sets alone: metrics and audit."""
    audits = {name: audit for name, (_, audit) in sets.items()}
    (folder / "audit.json").write_text(json.dumps(audits))
    for name, (metrics, _) in sets.items():
        (folder / "evaluation" / name).mkdir(parents=True, exist_ok=True)
        (folder / "evaluation" / name / "metrics.json").write_text(json.dumps(metrics))
    if "places" in sets:
        write_table(folder / "evaluation/places/sound_maps.parquet", MAPS)
    return folder


PLACES_AUDIT = {"kind": "localisation", "queries": 12, "gallery": 12}
OTHER_SETS = {
    "esc": (ZERO_SHOT, ZERO_SHOT_AUDIT), "places": (PLACES, PLACES_AUDIT),
}  # fmt: skip


def test_sets_of_other_kinds_have_tables_of_their_own(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    folder = write(tmp_path / "metrics", metrics)
    audits = json.loads((folder / "audit.json").read_text())
    sets = {"sounds": (SOUNDS, SOUNDS_AUDIT), "msrvtt": (metrics, audits["msrvtt"])}
    report_on(write_sets(folder, sets | OTHER_SETS), tmp_path / "out")
    text, page = ((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))
    assert row(text, "| esc |") == (
        "| esc | sound | 30 | 16 (2 unknown) | 50.0 (40.0..60.0) | 90.0 (80.0..95.5) |  | "
        "70.0 (65.0..75.0) |"
    )
    assert row(text, "| places |", "its own sound") == (
        "| places | 12 | its own sound | upper half | 31.0 (30.0..34.0) | 32.0 (30.0..34.0) | "
        "33.0 (30.0..34.0) |"
    )
    assert ">16 (2 unknown)</td>" in page
    assert "Where does it sound? places" in page
    assert "Text-to-video" in page
    assert "Zero-shot" not in report(tmp_path / "plain", metrics)


@pytest.mark.parametrize("sets", [OTHER_SETS, {"sounds": (SOUNDS, SOUNDS_AUDIT)}, {}])
def test_without_a_set_of_videos_there_is_no_part_about_it(
    sets: Any, metrics: dict[str, Any], tmp_path: Path
) -> None:
    folder = write(tmp_path / "metrics", metrics)
    write_sets(folder, sets)
    (folder / "audio_weight.csv").write_text("set,audio_weight,R@1,R@5,R@10,MedR\n")
    report_on(folder, tmp_path / "out")
    out = contents(tmp_path / "out")
    assert set(out) == {"report.md", "report.html", "table.md", "model_card.md", "training.svg"}
    assert out["table.md"].startswith(b"There is no text-to-video test set")
    text, page = out["report.md"].decode(), out["report.html"].decode()
    for part in (text, page):
        assert ("There is no text-to-video test set." in part) == bool(sets)
        assert ("There is no test set." in part) == (not sets)
        assert "Selected epoch: 7." in part
        assert ("esc" in part) == ("esc" in sets)
        assert ("text to audio" in part) == ("sounds" in sets)
        assert ("All searches" in part) == ("sounds" in sets)
        assert "audio weight" not in part.lower()
        assert "paper" not in part
    assert page.count("<svg") == 1
    assert "![Loss by epoch](training.svg)" in text


def test_main_table_is_in_the_report(metrics: dict[str, Any], tmp_path: Path) -> None:
    text = report(tmp_path, metrics)
    table = (tmp_path / "report" / "table.md").read_text()
    assert table in text
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_figures_are_aligned_right_and_words_left(metrics: dict[str, Any], tmp_path: Path) -> None:
    report(tmp_path, metrics)
    header, rule, *_ = (tmp_path / "report" / "table.md").read_text().splitlines()
    assert header == "| method | training data | test set | R@1 | R@5 | R@10 | MedR |"
    assert rule == "| --- | --- | --- | ---: | ---: | ---: | ---: |"


def test_names_that_are_syntax_change_no_structure(metrics: dict[str, Any], tmp_path: Path) -> None:
    plain = report(tmp_path, metrics)
    metrics["directions"]["a|b\n# <script>alert(1)</script> **c** [d](e)"] = summary(1, 2, 3, 4, 5)
    text = report(tmp_path, metrics)
    assert "<script" not in text
    assert len(text.splitlines()) == len(plain.splitlines()) + 2  # in two tables
    assert "\n| a\\|b # &lt;script>alert(1)&lt;/script> \\*\\*c\\*\\* \\[d\\](e) | 1.0 |" in text


def test_report_says_when_audio_helps(metrics: dict[str, Any], tmp_path: Path) -> None:
    text = report(tmp_path, metrics)
    assert "17 sentences mention a sound" in text
    assert "**helps** by mean rank (21.5 without, 19.3 with)" in text


@pytest.mark.parametrize("mean", [21.54, 25.0])
def test_report_says_when_audio_does_not_help(
    mean: float, metrics: dict[str, Any], tmp_path: Path
) -> None:
    metrics["demo"]["sound_captions"]["image_audio"]["MeanR"] = mean
    text = report(tmp_path, metrics)
    assert "**does not help**" in text
    assert "**helps**" not in text


def test_report_without_demo_and_without_sound(metrics: dict[str, Any], tmp_path: Path) -> None:
    bare = copy.deepcopy(metrics)
    del bare["demo"], bare["audio_to_image_text"]
    for name in ("text_to_audio", "audio_to_text"):
        del bare["directions"][name]
    text = report(tmp_path, bare)
    assert "oracle" not in text
    assert "mention a sound" not in text
    assert [line for line in text.splitlines() if "text to audio" in line] == [
        line for line in text.splitlines() if line.startswith("| sounds | text to audio |")
    ]
    assert row(text, "image alone", "this run", "| 50 videos |").endswith("| 12 |")


def test_same_metrics_give_the_same_bytes(metrics: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "metrics", metrics)
    report_on(folder, tmp_path / "one")
    report_on(folder, tmp_path / "two")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert set(one) == {
        "report.md", "report.html", "table.md", "model_card.md", "audio_weight.svg", "training.svg"
    }  # fmt: skip
    assert all(one[name].startswith(b"<?xml") for name in one if name.endswith(".svg"))


def test_plots_see_the_numbers(metrics: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "metrics", metrics)
    report_on(folder, tmp_path / "one")
    curve = folder / "audio_weight.csv"
    curve.write_text(curve.read_text().replace("0.5,2", "0.5,9"))
    losses = folder / "train" / "plots" / "metrics" / "val" / "loss.tsv"
    losses.write_text(losses.read_text().replace("0.25", "0.75"))
    report_on(folder, tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {"audio_weight.svg", "training.svg", "report.html"}


def test_report_is_written_over_an_older_one(metrics: dict[str, Any], tmp_path: Path) -> None:
    report(tmp_path, metrics)
    metrics["text_to_video"]["image"]["R@1"] = 77.7
    assert "77.7" in report(tmp_path, metrics)


def test_comparison_of_margins_names_its_commit(
    metrics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    series = read_series(Path("experiments/table1.yaml"), [1, 2])
    runs = {
        (mode, seed): run(f"{mode}{seed}", 10 * seed + (mode == "variable"))
        for mode in ("fixed", "variable") for seed in (1, 2)
    }  # fmt: skip
    comparison = {"git": "0123456789abcdef", **compare_variants(series, runs), "data": "d"}
    text = report(tmp_path, metrics, comparison)
    assert "commit 0123456789abcdef." in text
    assert comparison_table(comparison) in text


def test_report_without_a_comparison_has_no_section_for_it(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    assert "Variable against fixed" not in report(tmp_path, metrics, NO_COMPARISON)


def test_a_comparison_of_other_data_is_not_shown(metrics: dict[str, Any], tmp_path: Path) -> None:
    other = {"git": "0123", "data": "other", "seeds": [1, 2], "runs": [{"margin_mode": "fixed"}]}
    assert "Variable against fixed" not in report(tmp_path, metrics, other)
