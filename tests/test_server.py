"""The server's responses: what it serves, what it refuses, and what it does not reveal."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from media_fixtures import write_steps
from model_fixtures import Tool
from PIL import Image

from trimodal.search import server
from trimodal.search.server import build_app
from trimodal.search.store import MomentStore


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexed videos, one of them silent, and a file beside them that is not indexed."""
    folder = tmp_path_factory.mktemp("served")
    write_steps(folder / "a.mp4", seconds=5)
    write_steps(folder / "silent.mp4", seconds=3, with_audio=False)
    (folder / "secret.txt").write_text("secret")
    tool.model.index(folder, folder / "store", workers=1)
    return folder


@pytest.fixture
def client(tool: Tool, folder: Path) -> Iterator[TestClient]:
    store = MomentStore.open(str(folder / "store"))
    with TestClient(build_app(tool.model, store), base_url="http://127.0.0.1") as client:
        yield client


def test_the_page_and_its_parts_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for part in ("style.css", "app.js", "icon.svg"):
        assert part in page.text
        assert client.get(f"/{part}").status_code == 200
    assert "http" not in page.text.replace('http-equiv="', "")
    assert client.get("/api/about").json() == {
        "folder": client.get("/api/about").json()["folder"], "videos": 2, "moments": 8,
        "problems": 0,
    }  # fmt: skip


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/app.js", "/api/about", "/videos/0", "/videos/99", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 's")
        assert headers["x-content-type-options"] == "nosniff"


def test_a_query_by_text(client: TestClient) -> None:
    result = client.post("/api/search", params={"text": "a zebra and a dog", "top": 1}).json()
    assert len(result["hits"]) == 1
    assert result["warnings"] == ["'a zebra and a dog': words without a vector: zebra"]
    (hit,) = result["hits"]
    name = f"{hit['file']}/{hit['moments'][0]['second']}.jpg"
    thumbnail = client.get(f"/thumbnails/{name}")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content.startswith(b"\xff\xd8")


def test_queries_by_audio_and_by_image(client: TestClient, folder: Path) -> None:
    for kind, content in (
        ("audio", (folder / "a.mp4").read_bytes()), ("image", png(folder.parent / "p.png")),
    ):  # fmt: skip
        response = client.post("/api/search", params={"kind": kind}, content=content)
        assert response.status_code == 200, response.text
        assert len(response.json()["hits"]) == 2


def png(path: Path) -> bytes:
    Image.new("RGB", (40, 30), (200, 10, 10)).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("params", "content", "detail"),
    [
        ({"kind": "audio"}, b"rubbish", "The audio cannot be used: it cannot be decoded."),
        ({"kind": "audio"}, b"", "The audio cannot be used: it cannot be decoded."),
        (
            {"kind": "image"},
            b"rubbish",
            "The file is not a readable picture: not a picture in one of the formats JPEG, PNG, "
            "WEBP, AVIF, GIF, TIFF",
        ),
        (
            {"text": "zebra"},
            b"",
            "'zebra' has no word that the model knows: words without a vector: zebra",
        ),
        ({"text": " "}, b"", "empty query: give a sentence, an audio file or an image"),
    ],
)
def test_unusable_queries_are_refused_with_the_reason(
    client: TestClient, params: dict[str, str], content: bytes, detail: str
) -> None:
    response = client.post("/api/search", params=params, content=content)
    assert (response.status_code, response.json()["detail"]) == (422, detail)


@pytest.mark.parametrize(
    "params", [{"audio_weight": "2"}, {"audio_weight": "nan"}, {"top": "0"}, {"top": "1000"},
               {"kind": "virus"}, {"text": "a" * 1001}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(client: TestClient, params: dict[str, str]) -> None:
    assert client.post("/api/search", params={"text": "a dog"} | params).status_code == 422


def test_a_large_upload_is_refused_before_it_is_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_BYTES", 10_000)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield bytes(1000)

    response = client.post("/api/search", params={"kind": "audio"}, content=parts())
    assert response.status_code == 413
    assert "larger" in response.json()["detail"]


def test_videos_are_served_in_ranges(client: TestClient, folder: Path) -> None:
    content = (folder / "a.mp4").read_bytes()
    number = next(f.file for f in MomentStore.open(str(folder / "store")).files() if f.has_audio)
    response = client.get(f"/videos/{number}")
    assert (response.content, response.headers["content-type"]) == (content, "video/mp4")
    part = client.get(f"/videos/{number}", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(f"/videos/{number}", headers={"Range": "bytes=999999-"}).status_code == 416
    assert client.head(f"/videos/{number}").headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "path",
    [
        "/videos/99", "/videos/-1", "/videos/a.mp4", "/videos/..%2fsecret.txt", "/secret.txt",
        "/..%2fsecret.txt", "/..%2f..%2fserver.py", "/%2e%2e/server.py", "/a.mp4",
        "/thumbnails/0/99.5.jpg", "/thumbnails/0/nan.jpg", "/thumbnails/0/1e999.jpg",
        "/thumbnails/99999999999999999999/0.5.jpg", "/mels/1/0.5.jpg", "/videos/99999999999999999",
    ],
)  # fmt: skip
def test_nothing_but_indexed_files_is_served(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (404, 422)
    assert "secret" not in response.text.replace("secret.txt", "")


def test_a_video_that_has_become_a_link_is_not_served(
    tool: Tool, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "videos").mkdir()
    video = tmp_path / "videos" / "a.mp4"
    video.write_bytes((folder / "a.mp4").read_bytes())
    tool.model.index(tmp_path / "videos", tmp_path / "store", workers=1)
    client = TestClient(
        build_app(tool.model, MomentStore.open(str(tmp_path / "store"))),
        base_url="http://127.0.0.1",
    )
    assert client.get("/videos/0").status_code == 200
    video.unlink()
    assert client.get("/videos/0").status_code == 404
    video.symlink_to(folder / "secret.txt")
    response = client.get("/videos/0")
    assert (response.status_code, "secret" in response.text) == (404, False)


def test_other_hosts_and_other_sites_are_refused(client: TestClient) -> None:
    assert client.get("/api/about", headers={"Host": "example.com"}).status_code == 400
    for site in ("cross-site", "same-site"):
        response = client.post("/api/search?text=a dog", headers={"Sec-Fetch-Site": site})
        assert response.status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_a_bug_is_not_reported_as_a_user_error(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(server.Trimodal, "query", broken)
    with pytest.raises(ValueError, match="a bug"):
        client.post("/api/search", params={"text": "a dog"})
