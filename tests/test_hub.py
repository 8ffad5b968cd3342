"""A model that is handed on: as a folder, and by a Hub on loopback."""

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from model_fixtures import Tool, make_tool
from training_fixtures import TinyData

from trimodal import Trimodal
from trimodal.core.records import DataError
from trimodal.models.model_card import described_weights
from trimodal.search import hub
from trimodal.search.hub import FILES, HubError, export_model, model_folder
from trimodal.search.replacing import ExportError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = "---\nweights: {}\n---\n# {}\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no report here


class FakeHub(BaseHTTPRequestHandler):
    """Serves the files of ``owner/model`` in one revision, ``main``."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        start, _, name = self.path.partition(f"/resolve/{COMMIT}/")
        if start == "/owner/model" and name in self.files:
            self._answer(self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        elif self.path.startswith("/api/models/owner/model/revision/main"):
            about = {"id": "owner/model", "sha": COMMIT, "private": False, "siblings": []}
            self._answer(json.dumps(about).encode())
        elif self.path.startswith(f"/api/models/owner/model/tree/{COMMIT}"):
            tree = [{"type": "file", "path": path, "size": len(content), "oid": path}
                    for path, content in self.files.items()]  # fmt: skip
            self._answer(json.dumps(tree).encode())
        else:
            missing = "Revision" if "/owner/model/" in self.path else "Repo"
            self._answer(b"", {"X-Error-Code": f"{missing}NotFound"}, 404)

    def _answer(
        self, body: bytes, headers: dict[str, str] | None = None, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def fake_hub(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[FakeHub]]:
    """A Hub with the tool's model, and with files that are not for us."""
    files = {path.name: path.read_bytes() for path in tool.path.iterdir()}
    files |= {"README.md": b"# Card", "pytorch_model.bin": b"pickle", "sub/config.json": b"{}"}
    served = type("Served", (FakeHub,), {"files": files, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    download = partial(
        huggingface_hub.snapshot_download, endpoint=url, tqdm_class=None, etag_timeout=5
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_of_the_hub_is_that_model(tool: Tool, fake_hub: type[FakeHub]) -> None:
    model = Trimodal.from_pretrained("owner/model", device="cpu")
    assert model.fingerprint == tool.model.fingerprint
    np.testing.assert_array_equal(model.encode("a dog"), tool.model.encode("a dog"))
    names = {path.rpartition("/")[2] for path in fake_hub.asked if "/resolve/" in path}
    assert names == FILES
    assert not any("pytorch_model" in path or "sub" in path for path in fake_hub.asked)
    fake_hub.asked.clear()
    again = Trimodal.from_pretrained(
        "owner/model", revision=COMMIT, device="cpu", local_files_only=True
    )
    assert again.fingerprint == model.fingerprint
    assert fake_hub.asked == []


@pytest.mark.usefixtures("fake_hub")
def test_what_the_hub_does_not_have_is_one_line(tmp_path: Path) -> None:
    for name, given in {
        "owner/other": {}, "owner/model": {"revision": "v9"},
        "owner/mod..el": {}, "own/uncached": {"local_files_only": True},
    }.items():  # fmt: skip
        with pytest.raises(HubError, match=rf"^{name}: no such folder here; Hugg") as error:
            model_folder(name, **given)
        assert "\n" not in str(error.value)
    with pytest.raises(HubError, match="is a folder here, which has no revision v1"):
        model_folder(tmp_path, revision="v1")


def test_a_repository_of_another_library_is_told(fake_hub: type[FakeHub]) -> None:
    del fake_hub.files["config.json"]
    told = "^owner/model: Hugging Face's Hub has no model of trimodal there, no config.json$"
    with pytest.raises(HubError, match=told):
        Trimodal.from_pretrained("owner/model")


def test_what_the_hub_refuses_is_one_line(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise huggingface_hub.errors.LocalTokenNotFoundError("Log in first.\nLike so.")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    told = r"^owner/new: not uploaded; Hugging Face's Hub: Log in first\.$"
    with pytest.raises(HubError, match=told):
        tool.model.push_to_hub("owner/new")


def test_offline_only_the_cache_is_asked(
    fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="owner/model: no such folder here"):
        Trimodal.from_pretrained("owner/model")
    assert fake_hub.asked == []


def test_folders_never_go_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool
) -> None:
    """Not even those that are missing, by the name of the pipeline's model or beside others."""

    def download(*_: Any, **__: Any) -> str:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    shutil.copytree(tool.path, tmp_path / "owner" / "model")
    for name in ("owner/model", "owner/mistyped", "models/trimodal", "model", "/a/b", "../b"):
        assert model_folder(name) == Path(name)
    assert model_folder(Path("some/where")) == Path("some/where")
    assert Trimodal.from_pretrained("owner/model").fingerprint == tool.model.fingerprint
    with pytest.raises(AssertionError, match="asked the Hub"):
        model_folder("some/where")


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "missing_packages", lambda *names: list(names))
    told = r"^a/b: no such folder here; .* needs pip install 'trimodal\[hub\]'$"
    with pytest.raises(HubError, match=told):
        Trimodal.from_pretrained("a/b")
    with pytest.raises(HubError, match=r"^a/b: not uploaded; .* pip install 'trimodal\[hub\]'$"):
        hub.push_model(Path("x"), "a/b")


def test_a_saved_model_is_the_model(tool: Tool, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "model"
    tool.model.save_pretrained(str(folder))
    assert {path.name for path in folder.iterdir()} == FILES
    for name in FILES - {"README.md"}:
        assert (folder / name).read_bytes() == (tool.path / name).read_bytes()
    card = (folder / "README.md").read_text()
    assert described_weights(card) == tool.model.fingerprint
    assert "written by training, before any test" in card
    (folder / "README.md").write_text("edited")
    again = Trimodal.from_pretrained(folder, device="cpu")
    np.testing.assert_array_equal(again.encode("a dog"), tool.model.encode("a dog"))
    again.save_pretrained(tmp_path / "third")
    assert (tmp_path / "third" / "README.md").read_text() == "edited"


def test_the_card_is_the_reports_if_it_is_of_these_weights(tool: Tool, tmp_path: Path) -> None:
    report = tmp_path / hub.REPORT_CARD
    report.parent.mkdir(parents=True)
    report.write_text(CARD.format("0" * 16, "other"))
    assert export_model(tool.path, tmp_path / "a").card is None
    report.write_text(CARD.format(tool.model.fingerprint, "results"))
    assert export_model(tool.path, tmp_path / "a").card == hub.REPORT_CARD
    assert (tmp_path / "a" / "README.md").read_text() == report.read_text()
    report.write_text(CARD.format("0" * 16, "other"))
    written = export_model(tmp_path / "a", tmp_path / "b")
    assert written.card == tmp_path / "a" / "README.md"
    assert written.files == tuple(sorted(FILES))
    own = tmp_path / "own.md"
    own.write_text(CARD.format(tool.model.fingerprint, "own"))
    export_model(tool.path, tmp_path / "b", own)
    assert (tmp_path / "b" / "README.md").read_text() == own.read_text()
    with pytest.raises(DataError, match=r"model_card\.md: not the card of the model in .*trimodal"):
        export_model(tool.path, tmp_path / "c", report)
    assert not (tmp_path / "c").exists()


def test_nothing_is_written_of_a_model_that_is_not_the_loaded_one(
    tool: Tool, tiny_data: TinyData, tmp_path: Path
) -> None:
    used = make_tool(tiny_data, tmp_path / "model", seed=3).model
    make_tool(tiny_data, tmp_path / "model", seed=4)
    with pytest.raises(DataError, match="another model than the one that was loaded"):
        used.save_pretrained(tmp_path / "out")
    with pytest.raises(DataError, match="no model here"):
        export_model(tmp_path / "none", tmp_path / "out")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="not the weights"):
        export_model(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ExportError, match=r"has other files in it, 'thesis\.tex'"):
        export_model(tool.path, tmp_path / "full")


def test_a_model_that_changes_while_it_is_copied_is_not_written(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:-1])

    monkeypatch.setattr(hub, "copyfile", cut)
    with pytest.raises(DataError, match="not the weights"):
        export_model(tool.path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_push_uploads_the_four_files(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, Any]] = []

    class Api:
        def __init__(self, token: str | None) -> None:
            done.append(("token", token))

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            done.append(("create", (repo_id, private, exist_ok)))

        def upload_folder(self, *, repo_id: str, folder_path: Path, **given: Any) -> str:
            assert Trimodal.from_pretrained(folder_path).fingerprint == tool.model.fingerprint
            done.append(("upload", (repo_id, {path.name for path in folder_path.iterdir()})))
            assert set(given["allow_patterns"]) == FILES
            return "address"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert tool.model.push_to_hub("owner/new", private=True, token="t") == "address"  # noqa: S106
    assert done == [
        ("token", "t"),
        ("create", ("owner/new", True, True)),
        ("upload", ("owner/new", set(FILES))),
    ]


def test_no_model_is_said_by_all_that_need_one(tmp_path: Path) -> None:
    from trimodal.models.checkpoint import MODEL
    from trimodal.search.server import serve

    told = rf"^{MODEL}: no model here .*run make repro, or name another folder with --model$"
    for use in (
        Trimodal.from_pretrained,
        lambda: export_model(Path(MODEL), tmp_path / "out"),
        lambda: serve(MODEL, "store", port=0, ready=print),
    ):
        with pytest.raises(DataError, match=told):
            use()
