"""benchmarks/spread.py: how two training runs are compared."""

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.spread import Outcome, relative_difference, row, set_environment


def weights(path: Path, **tensors: list[float]) -> Path:
    save_file({name: torch.tensor(values) for name, values in tensors.items()}, path)
    return path


def outcome(path: Path, rank: float) -> Outcome:
    metrics = {"R@1": 10.0, "R@10": 50.0, "MeanR": rank}
    return Outcome(weights=(path,), metrics=metrics, kernels="AVX2, 2 threads")


def test_differences_are_shares_of_the_reference(tmp_path: Path) -> None:
    ours = weights(tmp_path / "a", x=[0.0, 0.5], y=[7.0, 4.0], running_mean=[5.0])
    theirs = weights(tmp_path / "b", x=[0.0, 1.0], y=[10.0, 0.0], running_mean=[1.0])
    lengths = math.sqrt((0.25 + 9 + 16) / 101)
    assert relative_difference(ours, theirs) == pytest.approx((lengths, 0.5))
    assert relative_difference(ours, ours) == (0, 0)


def test_what_grows_out_of_nothing_is_wholly_different(tmp_path: Path) -> None:
    ours, theirs = weights(tmp_path / "a", x=[1e-9]), weights(tmp_path / "b", x=[0.0])
    assert relative_difference(ours, theirs) == (1, 1)


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    ours, theirs = weights(tmp_path / "a", x=[1.0]), weights(tmp_path / "b", x=[1.0, 2.0])
    with pytest.raises(ValueError, match="different tensors"):
        relative_difference(ours, theirs)


def test_a_line_tells_identical_files_and_changes_of_metrics(tmp_path: Path) -> None:
    one, two = weights(tmp_path / "a", x=[1.0]), weights(tmp_path / "b", x=[1.0])
    same = row("again", outcome(two, 12.5), outcome(one, 12.5))
    assert same == "| again | AVX2, 2 threads | identical | 10.00 | 50.00 | 12.50 |"
    other = weights(tmp_path / "c", x=[0.999])
    said = row("old", outcome(other, 12.0), outcome(one, 12.5))
    assert said == "| old | AVX2, 2 threads | 1.0e-03 (1.0e-03) | 10.00 | 50.00 | 12.00 (-0.50) |"


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPREAD_ONE", "before")
    monkeypatch.delenv("SPREAD_TWO", raising=False)
    with set_environment({"SPREAD_ONE": "1", "SPREAD_TWO": "2"}):
        assert (os.environ["SPREAD_ONE"], os.environ["SPREAD_TWO"]) == ("1", "2")
    assert os.environ["SPREAD_ONE"] == "before"
    assert "SPREAD_TWO" not in os.environ
