"""The ONNX encoders give the networks' embeddings, for any number of rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import Tool

from trimodal.core.files import read_json
from trimodal.search import export
from trimodal.search.encoder import Encoder
from trimodal.search.export import ExportError, Part, example, export_encoders, parts_of, run


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = Encoder.load(tool.path, tool.vocabulary, device="cpu")
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
        expected = parts_of(tool.model)[part](inputs).numpy()
    embeddings = run(folder / f"{part}.onnx", inputs)
    assert embeddings.shape == (rows, 256)
    assert abs(embeddings - expected).max() <= 1e-4


def test_the_files_and_their_settings(folder: Path) -> None:
    names = {file.name for file in folder.iterdir()}
    assert names == {"text.onnx", "image.onnx", "audio.onnx", "encoders.json"}
    settings = read_json(folder / "encoders.json")
    assert settings["frame_px"] == 32
    assert settings["window"]["seconds"] == 3.0


def test_different_embeddings_are_an_error_and_leave_no_file(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "run", lambda path, inputs: run(path, inputs) + 2e-4)
    with pytest.raises(ExportError, match=r"text: .* differ by 2\.0e-04"):
        export_encoders(tool.model, tmp_path)
    assert not list(tmp_path.iterdir())
