"""Commands that work for hours look at their arguments first."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.real import __main__ as real
from experiments.real import flickr8k
from experiments.real.recipes import ladder
from trimodal.cli import main
from trimodal.core.files import check_writable
from trimodal.report.significance import ONE_SEED, difference_in_words

BENCHMARKS = "benchmarks."
WRONG = [
    ("experiments.real.__main__", ["--divisions", "1", "1"], "given twice"),
    ("experiments.real.__main__", ["--seeds", "one"], "'one' is not a whole number from 0"),
    ("experiments.real.__main__", ["--shared", "no"], "no has no vggsound.csv, msrvtt_style"),
    (BENCHMARKS + "spread", ["--seeds", "2", "2"], "given twice"),
    (BENCHMARKS + "spread", ["--epochs", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "growth", ["--clips", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "growth", ["--clips", "7", "7"], "given twice"),
    (BENCHMARKS + "dvc_cost", ["--files", "-8"], "'-8' is not a whole number from 1"),
    (BENCHMARKS + "captions_stage", ["--folder", "no"], "'no' is not a folder"),
    (BENCHMARKS + "word_vectors", ["--folder", "no"], "'no' is not a folder"),
    (BENCHMARKS + "vector_search", ["--rows", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "training_step", ["--scales", "huge"], "invalid choice: 'huge'"),
    (BENCHMARKS + "onnx_speed", ["--scale", "huge"], "invalid choice: 'huge'"),
    ("trimodal.cli", ["experiments", "table1", "--seeds", "3", "3"], "given twice"),
    ("trimodal.cli", ["experiments", "table1", "--seeds", "-3"], "not a whole number from 0"),
    ("trimodal.cli", ["experiments", "x", "--seeds", "4294967296"], "4294967296 is not below 2^32"),
]


@pytest.mark.parametrize(("module", "arguments", "told"), WRONG)
def test_wrong_arguments_end_a_command_before_it_begins(
    module: str, arguments: list[str], told: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [module, *arguments])
    with pytest.raises(SystemExit) as ended:
        import_module(module).main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out", "folder"])
def test_places_for_results_are_tried_before_data_are_prepared(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    others = {"out": "folder", "folder": "out"}
    monkeypatch.setattr(real, "missing_files", lambda _: [])
    monkeypatch.setattr(real, "prepare", lambda *_: pytest.fail("prepared"))
    monkeypatch.setattr("sys.argv", ["real", f"--{name}", str(tmp_path / "file/in"),
                                     f"--{others[name]}", str(tmp_path / "there")])  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        real.main()
    assert ended.value.code == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_what_an_experiment_has_computed_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Any, seeds: list[int], keep: Callable[[dict[str, Any]], None]) -> None:
        keep({"seeds": seeds})
        raise MemoryError

    monkeypatch.setattr(real, "missing_files", lambda _: [])
    monkeypatch.setattr(real, "prepare", lambda *_: None)
    monkeypatch.setitem(real.EXPERIMENTS, "flickr8k", (fail, "seeds"))
    monkeypatch.setattr("sys.argv", ["real", "flickr8k", "--seeds", "4", "--out", str(tmp_path),
                                     "--folder", str(tmp_path / "folder")])  # fmt: skip
    with pytest.raises(MemoryError):
        real.main()
    assert json.loads((tmp_path / "flickr8k.unfinished.json").read_text()) == {"seeds": [4]}
    monkeypatch.setitem(real.EXPERIMENTS, "flickr8k", (lambda *_: {"done": True}, "seeds"))
    real.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flickr8k.json", "folder"]


@pytest.mark.parametrize("seeds", [[1], [1, 2]])
def test_the_experiment_on_flickr8k_with_few_seeds(
    seeds: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed has no interval, and the table says so."""

    def trained(recipe: Any, _: Any, given: list[int]) -> list[dict[str, Any]]:
        rng = np.random.default_rng([len(recipe.name), *given])
        return [
            {direction: rng.integers(1, 40, 50).astype(float) for direction in flickr8k.DIRECTIONS}
            for _ in given
        ]

    class Data:
        token_ids = features = range(50)

    class Both:
        dev = train = Data

    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(flickr8k, "_train_and_test", trained)
    result = flickr8k.run(Both, seeds, lambda part: kept.append(json.loads(json.dumps(part))))
    said = capsys.readouterr().out
    assert ("One seed, no interval:" in said) == (len(seeds) == 1)
    assert ("±" in said) == (len(seeds) == 2)
    assert (ONE_SEED in str(result["tests"])) == (len(seeds) == 1)
    assert [len(part["recipes"]) for part in kept] == [*range(1, len(kept) + 1)]
    assert kept[-1]["recipes"] == json.loads(json.dumps(result["recipes"]))
    assert len(kept) >= len(ladder())


def test_one_seed_has_a_test_over_queries() -> None:
    first, second = np.arange(1.0, 21.0), np.arange(1.0, 21.0) + 3
    words = difference_in_words([first], [second], "MeanR")
    assert words == {"over_queries": "+3.0 (95 % CI +3.0..+3.0), p < 0.001", "over_seeds": ONE_SEED}


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("{}")
    check_writable(old)
    check_writable(tmp_path / "new" / "file.json")
    assert old.read_text() == "{}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "old.json"]
    with pytest.raises(OSError, match="old"):
        check_writable(old / "under.json")


def test_export_without_its_packages_says_so_before_it_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trimodal.search.export.missing_packages", lambda *names: names[1:])
    monkeypatch.setattr("trimodal.search.encoder.Encoder.load", lambda *_, **__: None)
    monkeypatch.setattr("sys.argv", ["trimodal", "export", "onnx", str(tmp_path / "onnx")])
    with pytest.raises(SystemExit):
        main()
    told = "trimodal: onnxruntime is not installed: pip install 'trimodal[onnx]'\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "onnx").exists()
