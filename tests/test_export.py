"""The ONNX encoders give the networks' embeddings, for any number of rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import Tool, make_subword_tool
from training_fixtures import TinyData

from trimodal.core.files import read_json
from trimodal.search import export
from trimodal.search.encoder import Encoder, UnknownWordWarning
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


def test_different_embeddings_are_an_error_and_leave_no_file(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "run", lambda path, inputs: run(path, inputs) + 2e-4)
    with pytest.raises(ExportError, match=r"text: .* differ by 2\.0e-04"):
        export_encoders(tool.model, tmp_path)
    assert not list(tmp_path.iterdir())
