"""All sets' results side by side: headline numbers, measures, audits, curves."""

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from configs import config_for_tests

from trimodal.core.records import DataError
from trimodal.evaluation.config import EvaluateConfig, TestSet
from trimodal.evaluation.merged import HEADLINE, headline, measured, merge_results

SUMMARY = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "R@50": 4.0, "MedR": 5.0, "MRR": 6.0,
           "intervals": {"R@1": [0.5, 1.5]}}  # fmt: skip
RSUM = {"text_audio": {"rsum": 12.0, "intervals": {"rsum": [11.0, 13.0]}}}
VIDEOS = {
    "text_to_video": {"image": SUMMARY, "image_audio": SUMMARY | {"R@1": 1.23456}},
    "demo": {"queries": 3}, "folds": 5,
}  # fmt: skip
SOUNDS = {"directions": {"text_to_audio": SUMMARY}, "rsum": RSUM}
SHORT = {"R@1": 1.0, "R@5": 2.0, "R@10": 3.0, "MedR": 5.0}
OUT = ("retrieval", "measures", "audit", "curve")


def write(folder: Path, kind: str, name: str, metrics: dict[str, Any], curve: str = "") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "metrics.json").write_text(json.dumps(metrics))
    (folder / name / "audit.json").write_text(json.dumps({"kind": kind}))
    if curve:
        (folder / name / "curve.csv").write_text(f"audio_weight,R@1,R@5,R@10,MedR\n{curve}\n")


def merge(tmp_path: Path, *names: str) -> tuple[Any, ...]:
    out = {name: tmp_path / name for name in OUT}
    merge_results(tmp_path / "evaluation", names, **out)
    return (*(json.loads(out[n].read_text()) for n in OUT[:-1]), out["curve"].read_text())


def test_sets_are_side_by_side_in_the_order_of_the_params(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    write(folder, "text_video", "videos", VIDEOS, "0,1,2,3,4\n1,2,3,4,5")
    write(folder, "text_audio", "sounds", SOUNDS)
    write(folder, "text_video", "of an earlier params.yaml", VIDEOS, "0,9,9,9,9")
    retrieval, measures, audit, curve = merge(tmp_path, "sounds", "videos")
    assert list(retrieval) == list(measures) == list(audit) == ["sounds", "videos"]
    assert retrieval == {
        "sounds": {"directions": {"text_to_audio": {"R@1": 1.0, "R@10": 3.0, "MedR": 5.0}}},
        "videos": {
            "text_to_video": {
                "image_audio": SHORT | {"R@1": 1.23}, "image": {"R@1": 1.0, "R@10": 3.0}
            }
        },
    }  # fmt: skip
    assert measures == {
        "sounds": {
            "directions": {"text_to_audio": SHORT}, "rsum": {"text_audio": {"rsum": 12.0}}
        },
        "videos": {"text_to_video": {"image": SHORT, "image_audio": SHORT | {"R@1": 1.23456}}},
    }  # fmt: skip
    assert audit == {"sounds": {"kind": "text_audio"}, "videos": {"kind": "text_video"}}
    assert curve == ("set,audio_weight,R@1,R@5,R@10,MedR\nvideos,0,1,2,3,4\nvideos,1,2,3,4,5\n")


@pytest.mark.parametrize("file", ["metrics.json", "audit.json"])
def test_a_set_without_results_is_named(file: str, tmp_path: Path) -> None:
    write(tmp_path / "evaluation", "text_video", "videos", VIDEOS)
    (tmp_path / "evaluation" / "videos" / file).unlink()
    with pytest.raises(DataError, match=rf"videos/{file} is missing: dvc repro evaluate@videos"):
        merge(tmp_path, "videos")


def test_measures_of_nothing_are_nothing() -> None:
    assert measured({"demo": {"queries": 1}, "intervals": {"R@1": [1, 2]}}) == {}


def test_measures_and_headline_of_zero_shot_and_localisation() -> None:
    probe = {"accuracy": 1.0, "accuracy_low": 0.5, "accuracy_by_fold": {"1": 1.0}}
    measures = {"top1": 5.0, "top5": 6.0, "mAP": 7.0}
    of_set = measures | {"top1_low": 4.0, "linear_probe": probe}
    assert measured(of_set) == measures | {"linear_probe": {"accuracy": 1.0}}
    assert headline("zero_shot", of_set) == {
        "top1": 5.0, "mAP": 7.0, "linear_probe": {"accuracy": 1.0}
    }  # fmt: skip
    assert headline("zero_shot", {"top1": 5.0}) == {"top1": 5.0}
    of_maps = {"cIoU@0.5": 1.0, "AUC": 2.0, "cIoU": 3.0}
    of_set = {"sound": {"half": of_maps | {"intervals": {"AUC": [1, 3]}}, "as_many": of_maps}}
    assert measured(of_set) == {"sound": {"half": of_maps, "as_many": of_maps}}
    assert headline("localisation", of_set) == {"sound": {"half": {"cIoU@0.5": 1.0, "AUC": 2.0}}}


def test_without_a_test_set_there_are_empty_files(tmp_path: Path) -> None:
    assert merge(tmp_path) == ({}, {}, {}, "set,audio_weight,R@1,R@5,R@10,MedR\n")


def test_the_demos_headline_numbers_fit_the_table_of_experiments() -> None:
    sets = config_for_tests(EvaluateConfig).sets.values()
    kinds = [get_type_hints(of)["kind"] for of in get_args(get_args(TestSet)[0])]
    assert {name for kind in kinds for name in get_args(kind)} == set(HEADLINE)
    assert sum(len(names) for of in sets for names in HEADLINE[of.kind].values()) == 11
