"""All sets' results side by side: headline numbers, audits, curves."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimodal.core.records import DataError
from trimodal.evaluation.merged import headline, merge_results

SUMMARY = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "R@50": 4.0, "MedR": 5.0, "MRR": 6.0,
           "intervals": {"R@1": [0.5, 1.5]}}  # fmt: skip
VIDEOS = {"text_to_video": {"image": SUMMARY}, "demo": {"queries": 3}, "folds": 5}
SOUNDS = {"directions": {"text_to_audio": SUMMARY}, "rsum": {"text_audio": {"rsum": 12.0}}}
SHORT = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 5.0}


def write(folder: Path, name: str, metrics: dict[str, Any], curve: str = "") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "metrics.json").write_text(json.dumps(metrics))
    (folder / name / "audit.json").write_text(json.dumps({"kind": name}))
    if curve:
        (folder / name / "curve.csv").write_text(f"audio_weight,R@1,R@5,R@10,MedR\n{curve}\n")


def merge(tmp_path: Path, *names: str) -> tuple[Any, Any, str]:
    out = {name: tmp_path / name for name in ("retrieval", "audit", "curve")}
    merge_results(tmp_path / "evaluation", names, **out)
    return (*(json.loads(out[n].read_text()) for n in ("retrieval", "audit")),
            out["curve"].read_text())  # fmt: skip


def test_sets_are_side_by_side_in_the_order_of_the_params(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    write(folder, "videos", VIDEOS, "0,1,2,3,4\n1,2,3,4,5")
    write(folder, "sounds", SOUNDS)
    write(folder, "of an earlier params.yaml", VIDEOS, "0,9,9,9,9")
    retrieval, audit, curve = merge(tmp_path, "sounds", "videos")
    assert list(retrieval) == list(audit) == ["sounds", "videos"]
    assert retrieval == {
        "sounds": {
            "directions": {"text_to_audio": SHORT}, "rsum": {"text_audio": {"rsum": 12.0}}
        },
        "videos": {"text_to_video": {"image": SHORT}},
    }  # fmt: skip
    assert curve == ("set,audio_weight,R@1,R@5,R@10,MedR\nvideos,0,1,2,3,4\nvideos,1,2,3,4,5\n")


@pytest.mark.parametrize("file", ["metrics.json", "audit.json"])
def test_a_set_without_results_is_named(file: str, tmp_path: Path) -> None:
    write(tmp_path / "evaluation", "videos", VIDEOS)
    (tmp_path / "evaluation" / "videos" / file).unlink()
    with pytest.raises(DataError, match=rf"videos/{file} is missing: dvc repro evaluate@videos"):
        merge(tmp_path, "videos")


def test_headline_numbers_of_nothing_are_nothing() -> None:
    assert headline({"demo": {"queries": 1}, "intervals": {"R@1": [1, 2]}}) == {}


def test_headline_numbers_of_zero_shot_and_localisation() -> None:
    probe = {"accuracy": 1.0, "accuracy_low": 0.5, "accuracy_by_fold": {"1": 1.0}}
    measures = {"top1": 5.0, "top5": 6.0, "mAP": 7.0}
    assert headline(measures | {"top1_low": 4.0, "linear_probe": probe}) == (
        measures | {"linear_probe": {"accuracy": 1.0}}
    )
    of_maps = {"cIoU@0.5": 1.0, "AUC": 2.0, "cIoU": 3.0}
    assert headline({"sound": {"half": of_maps | {"intervals": {"AUC": [1, 3]}}}}) == {
        "sound": {"half": of_maps}
    }


def test_without_a_test_set_there_are_empty_files(tmp_path: Path) -> None:
    assert merge(tmp_path) == ({}, {}, "set,audio_weight,R@1,R@5,R@10,MedR\n")
