"""Commands that work for hours look at their arguments first."""

from importlib import import_module
from pathlib import Path

import pytest

from trimodal.cli import main
from trimodal.core.files import check_writable

BENCHMARKS = "benchmarks."
WRONG = [
    (BENCHMARKS + "spread", ["--seeds", "2", "2"], "given twice"),
    (BENCHMARKS + "spread", ["--epochs", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "growth", ["--clips", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "growth", ["--clips", "7", "7"], "given twice"),
    (BENCHMARKS + "dvc_cost", ["--files", "-8"], "'-8' is not a whole number from 1"),
    (BENCHMARKS + "captions_stage", ["--folder", "no"], "'no' is not a folder"),
    (BENCHMARKS + "word_vectors", ["--folder", "no"], "'no' is not a folder"),
    (BENCHMARKS + "vector_search", ["--rows", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "serve_load", ["--clients", "50", "50"], "given twice"),
    (BENCHMARKS + "timm_step", ["--rounds", "0"], "'0' is not a whole number from 1"),
    (BENCHMARKS + "training_step", ["--scales", "huge"], "invalid choice: 'huge'"),
    (BENCHMARKS + "onnx_speed", ["--scale", "huge"], "invalid choice: 'huge'"),
    ("trimodal.cli", ["experiments", "table1", "--seeds", "3,3"], "given twice"),
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
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        import_module(module).main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


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
    monkeypatch.setattr("trimodal.cli.exporting.missing_packages", lambda *names: names[1:])
    monkeypatch.setattr("sys.argv", ["trimodal", "export", "onnx", str(tmp_path / "onnx")])
    with pytest.raises(SystemExit):
        main()
    told = "trimodal: onnxruntime is not installed: pip install 'trimodal[onnx]'\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "onnx").exists()
