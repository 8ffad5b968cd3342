"""The notebook is stored without outputs, and runs."""

import ast
from pathlib import Path

import nbformat
import pytest
from dependencies import ROOT

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_the_notebook_is_valid_and_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    for cell in cells:
        assert cell.outputs == []
        assert cell.execution_count is None
        ast.parse(cell.source)


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")  # of Jupyter's packages
def test_the_notebook_goes_from_clips_to_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    texts = {
        cell.source.splitlines()[0]: "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if output.get("name") != "stderr"  # progress bars
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert texts['model = Trimodal.from_pretrained(WORK / "model")'] == "(600, {})"
    (found,) = [text for source, text in texts.items() if source.startswith("hits = ")]
    assert len(found.splitlines()) == 3
    assert ".mp4 at " in found
    assert list(tmp_path.glob("quickstart-*")) == []
