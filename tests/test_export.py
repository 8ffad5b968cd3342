"""The ONNX encoders give the networks' embeddings, for any number of rows."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import Tool, make_subword_tool, make_tool
from training_fixtures import TinyData

from trimodal.core.files import read_json
from trimodal.search import export
from trimodal.search.encoder import Encoder, UnknownWordWarning
from trimodal.search.export import (
    FILES,
    ExportedEncoder,
    ExportError,
    Part,
    example,
    export_encoders,
    parts_of,
    run,
)


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = Encoder.from_pretrained(tool.path, device="cpu")
    model.embed_images([np.zeros((32, 32, 3), np.uint8)])  # used before the export
    assert all(exported.difference <= 1e-4 for exported in export_encoders(model, folder))
    return folder


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("part", ["text", "image", "audio"])
def test_embeddings_agree_for_any_number_of_rows(
    tool: Tool, folder: Path, part: Part, rows: int
) -> None:
    inputs = example(part, tool.model, rows)
    with torch.inference_mode():
        expected = parts_of(tool.model)[part](*inputs).numpy()
    embeddings = run(folder / f"{part}.onnx", inputs)
    assert embeddings.shape == (rows, 256)
    assert abs(embeddings - expected).max() <= 1e-4


def test_the_files_and_their_settings(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert names == {"text.onnx", "image.onnx", "audio.onnx", "encoders.json"}
    settings = read_json(folder / "encoders.json")
    assert settings["frame_px"] == 32
    assert settings["window"]["seconds"] == 3.0
    words = settings["words"]
    assert (words["language"], words["pattern"], len(words["stop_words"])) == (
        "english", "[a-z]+", 179,
    )  # fmt: skip


def test_words_from_their_spelling_are_a_second_input(
    tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_subword_tool(tiny_data, tmp_path).model
    monkeypatch.setattr(export, "parts_of", lambda encoder: {"text": encoder.networks.text})
    export_encoders(model, tmp_path / "out")
    words = model.vocabulary.tokeniser.words
    ids, further = model.vocabulary.encode([words("a red dog"), words("reddish birds")])
    assert (ids >= read_json(tmp_path / "out" / "encoders.json")["words"]["rows"]).sum() == 2
    inputs = [torch.from_numpy(ids), torch.from_numpy(further)]
    with pytest.warns(UnknownWordWarning):
        expected = model.embed_text(["a red dog", "reddish birds"])
    assert abs(run(tmp_path / "out" / "text.onnx", inputs) - expected).max() <= 1e-4
    known = run(tmp_path / "out" / "text.onnx", [inputs[0][:1], torch.zeros(1, 300)])
    assert abs(known - expected[:1]).max() <= 1e-4


def fake(part: Part, encoder: Encoder, folder: Path) -> ExportedEncoder:
    """An export that takes no time; the last one is killed if there is a file of that name."""
    (folder / f"{part}.onnx").write_text(encoder.fingerprint)
    if part == "audio" and (folder.parent / "kill").exists():
        raise KilledError
    return ExportedEncoder(file=f"{part}.onnx", difference=0.0)


class KilledError(Exception):
    """Simulates the end of the process."""


def test_an_export_is_of_one_model_or_none(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export", fake)
    other = make_tool(tiny_data, tmp_path / "other", seed=8).model
    folder = tmp_path / "exported"
    folder.mkdir()

    def models() -> set[str]:
        assert {path.name for path in folder.iterdir()} == FILES
        return {path.read_text() for path in folder.glob("*.onnx")} | {
            read_json(folder / "encoders.json")["weights"]
        }

    export_encoders(tool.model, folder)
    assert models() == {tool.model.fingerprint}
    (tmp_path / "kill").touch()
    with pytest.raises(KilledError):
        export_encoders(other, folder)
    assert models() == {tool.model.fingerprint}
    (tmp_path / "kill").unlink()
    export_encoders(other, folder)
    assert models() == {other.fingerprint}
    assert {path.name for path in tmp_path.iterdir()} == {
        "exported", "other",
    }  # fmt: skip


def test_between_the_two_renames_there_is_no_export(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_export", fake)
    folder = tmp_path / "exported"
    export_encoders(tool.model, folder)
    rename, states = Path.rename, []

    def watched(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        states.append(len(list(folder.glob("*"))))
        return renamed

    monkeypatch.setattr(Path, "rename", watched)
    export_encoders(tool.model, folder)
    assert states == [0, 4]


def test_other_files_are_not_deleted(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"has other files in it, 'notes\.txt'; name a new"):
        export_encoders(tool.model, tmp_path)
    with pytest.raises(ExportError, match="cannot be replaced"):
        export_encoders(tool.model, tmp_path / "notes.txt")
    with pytest.raises(ExportError, match="cannot be replaced"):
        export_encoders(tool.model, Path())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_modes_are_those_that_the_umask_gives(folder: Path) -> None:
    os.umask(umask := os.umask(0))
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask


def test_different_embeddings_are_an_error_and_leave_no_file(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "run", lambda path, inputs: run(path, inputs) + 2e-4)
    with pytest.raises(ExportError, match=r"text: .* differ by 2\.0e-04"):
        export_encoders(tool.model, tmp_path)
    assert not list(tmp_path.iterdir())
