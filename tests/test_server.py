"""The server's responses: what it serves, what it refuses, and what it does not reveal."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import Request
from fastapi.testclient import TestClient
from media_fixtures import ffmpeg, write_steps
from model_fixtures import Tool, make_tool
from PIL import Image
from sound_fixtures import index_sounds
from store_fixtures import video
from training_fixtures import TinyData

from trimodal.media.heat_map import heat_map_png
from trimodal.models.image_input import ImageInput
from trimodal.models.preprocessing import centre_crop_shares, centre_views, decode_jpeg
from trimodal.models.sound_map import sound_map
from trimodal.search import page_queries, server
from trimodal.search.api import Trimodal, VideoHit
from trimodal.search.example_queries import example_queries
from trimodal.search.guard import TokenError
from trimodal.search.server import build_app
from trimodal.search.store import MomentStore
from trimodal.search.tables import About


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexed videos, one of them silent, and a file beside them that is not indexed."""
    folder = tmp_path_factory.mktemp("served")
    write_steps(folder / "a.mp4", seconds=5)
    write_steps(folder / "silent.mp4", seconds=3, with_audio=False)
    (folder / "secret.txt").write_text("secret")
    tool.model.index(folder, folder / "store", workers=1)
    return folder


def client_of(tool: Tool, location: Path, token: str = "") -> TestClient:
    app = build_app(tool.model, MomentStore.open(str(location)), token)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def client(tool: Tool, folder: Path) -> Iterator[TestClient]:
    with client_of(tool, folder / "store") as client:
        yield client


@pytest.fixture(scope="module")
def name(folder: Path) -> str:
    """The store's name in URLs."""
    return MomentStore.open(str(folder / "store")).identity


def test_the_page_and_its_parts_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    scripts = [client.get("/app.js").text, client.get("/start.js").text]
    for part in ("style.css", "app.js", "icon.svg", "start.js", "results.js"):
        assert part in page.text or any(f'"./{part}"' in script for script in scripts)
        assert client.get(f"/{part}").status_code == 200
    assert "http" not in page.text.replace('http-equiv="', "")
    assert client.get("/api/about").json() == {
        "folder": client.get("/api/about").json()["folder"], "videos": 2, "moments": 8,
        "problems": [], "further_problems": 0,
    }  # fmt: skip


def has_security_headers(response: Any) -> bool:
    policy = response.headers.get("content-security-policy", "")
    return (
        policy.startswith("default-src 'none'; script-src 's")
        and response.headers["x-content-type-options"] == "nosniff"
        and response.headers["cache-control"].startswith("private, ")
    )


def test_every_response_has_the_security_headers(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {
        "/": 200, "/app.js": 200, "/api/about": 200, f"/videos/{name}/0": 200, "/nowhere": 404,
        f"/videos/{name}/99": 404, f"/videos/{name}/x": 422,
    }  # fmt: skip
    for path, status in paths.items():
        response = client.get(path)
        assert (response.status_code, has_security_headers(response)) == (status, True), path
    for headers, status in (({"Sec-Fetch-Site": "cross-site"}, 403), ({"Host": "a.com"}, 400)):
        response = client.get("/", headers=headers)
        assert (response.status_code, has_security_headers(response)) == (status, True)
    monkeypatch.setattr(page_queries, "_summary", lambda _: 1 / 0)
    response = client.get("/api/about")
    assert (response.status_code, has_security_headers(response)) == (500, True)


def test_a_query_by_text(client: TestClient) -> None:
    result = client.post("/api/search", params={"text": "a zebra and a dog", "top": 1}).json()
    assert len(result["hits"]) == 1
    assert result["warnings"] == ["'a zebra and a dog': words without a vector: zebra"]
    thumbnail = client.get(thumbnail_of(result))
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content.startswith(b"\xff\xd8")


def similar(client: TestClient, moment: str, **params: str) -> Any:
    return client.post("/api/search", params={"like": moment, **params})


def test_a_moment_as_query_finds_other_videos_by_frame_and_by_audio(
    tool: Tool, tmp_path: Path
) -> None:
    """Against dot products of the stored embeddings: frame with frame, audio with audio."""
    sounds = index_sounds(tool, tmp_path)
    store = MomentStore.open(str(sounds.store))
    number = {video.path: video.file for video in store.files()}
    with client_of(tool, sounds.store) as client:
        found = similar(client, f"{store.identity}/{number['0.mp4']}/2.5").json()
        assert found["like"] == {"path": "0.mp4", "second": 2.5}
        assert (found["audio_weight"], found["more"]) == (0.5, False)
        paths = [hit["path"] for hit in found["hits"]]
        assert sorted(paths) == ["1.mp4", "2.mp4", "3.mp4", "silent.mp4"]
        own = store.embeddings(number["0.mp4"], 2.5)
        assert own is not None
        for hit in found["hits"]:
            best = hit["moments"][0]
            other = store.embeddings(hit["file"], best["second"])
            assert other is not None
            image, audio = 0.5 * (own * other).sum(axis=1)
            assert best["score"] == pytest.approx(image + audio, abs=1e-5)
            if hit["path"] != "silent.mp4":
                parts = (best["from_image"], best["from_audio"])
                assert parts == pytest.approx((image, audio), abs=1e-5)
        heard = similar(client, f"{store.identity}/{number['0.mp4']}/2.5", audio_weight="1").json()
        assert heard["hits"][0]["moments"][0]["from_image"] == pytest.approx(0, abs=1e-6)
        assert "silent.mp4" not in [hit["path"] for hit in heard["hits"]]
        silent = similar(client, f"{store.identity}/{number['silent.mp4']}/2.5").json()
        assert (silent["audio_weight"], len(silent["hits"])) == (0, 4)
        page = similar(client, f"{store.identity}/{number['0.mp4']}/2.5", top="3").json()
        assert ([hit["path"] for hit in page["hits"]], page["more"]) == (paths[:3], True)


def test_a_moment_that_is_not_there_is_no_query(client: TestClient, name: str) -> None:
    for moment in (f"{name}/0/77.5", f"{name}/9/0.5", f"{'0' * 16}/0/0.5"):
        assert similar(client, moment).status_code == 404, moment
    both = similar(client, f"{name}/0/0.5", text="a dog")
    assert (both.status_code, "of its own" in both.json()["detail"]) == (422, True)


def test_results_come_in_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(**params: int) -> tuple[list[str], bool]:
        result = client.post("/api/search", params={"text": "a dog", **params}).json()
        return [hit["path"] for hit in result["hits"]], result["more"]

    (first, second), more = page()
    assert not more
    assert page(top=1) == ([first], True)
    assert page(top=1, skip=1) == ([second], False)
    assert page(top=1, skip=2) == ([], False)
    monkeypatch.setattr(page_queries, "_MAX_VIDEOS", 1)
    assert page(top=1) == ([first], False)


def test_problems_are_listed_up_to_a_number(tmp_path: Path, tool: Tool) -> None:
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path / "store"), about, 256)
    broken = [
        replace(video(number), moments=0, problem=f"corrupt: <b>{number}") for number in range(103)
    ]
    store.add(broken, [], np.empty((0, 512), np.float32))
    with client_of(tool, tmp_path / "store") as client:
        about_store = client.get("/api/about").json()
        assert client.get("/api/examples").json() == []
    assert len(about_store["problems"]) == 100
    assert about_store["problems"][0] == {"path": "0.mp4", "problem": "corrupt: <b>0"}
    assert about_store["further_problems"] == 3


def test_examples_are_words_that_the_model_knows_each_of_another_video(
    tool: Tool, client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = client.get("/api/examples").json()
    assert 1 <= len(examples) <= 2  # there are two videos
    assert len(set(examples)) == len(examples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unknown word
        tool.model.embed_text(examples)
    store = MomentStore.open(str(folder / "store"))
    assert examples == example_queries(tool.model, store, 2)
    assert example_queries(tool.model, store, 1) == examples[:1]
    known = tool.model.vocabulary
    assert known is not None
    spelled = replace(known, spelled=frozenset(known.words[2:]))  # none has a vector of its own
    monkeypatch.setattr(Trimodal, "vocabulary", spelled)
    assert example_queries(tool.model, store, 2) == []


def test_examples_differ_in_meaning_and_in_what_they_find(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text network that knows every word: two silent videos that look the same, another."""
    first, second, third = np.eye(256, dtype=np.float32)[:3]
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path / "store"), about, 256)
    moments = [(number, 1, b"frame", b"") for number in range(3)]
    points = np.concatenate([[first, second, first]] * 2, axis=1)
    store.add([video(number, 1) for number in range(3)], moments, points)
    queries = {
        "first": first, "the first": first + 0.1 * second, "half the second": second + 0.8 * third,
        "second": second, "anything": third,
    }  # fmt: skip
    rows = np.stack([row / np.linalg.norm(row) for row in queries.values()])
    monkeypatch.setattr("trimodal.search.example_queries._EVERYDAY", tuple(queries))
    monkeypatch.setattr(Trimodal, "vocabulary", None)
    monkeypatch.setattr(Trimodal, "embed_text", lambda *_: rows)
    assert sorted(example_queries(tool.model, store)) == ["first", "second"]


def thumbnail_of(result: dict) -> str:
    """The URL of the best moment's thumbnail."""
    hit = result["hits"][0]
    return f"/thumbnails/{result['store']}/{hit['file']}/{hit['moments'][0]['second']}.jpg"


def test_images_and_videos_have_validators(client: TestClient) -> None:
    result = client.post("/api/search", params={"text": "a dog"}).json()
    thumbnail = thumbnail_of(result)
    video = f"/videos/{result['store']}/{result['hits'][0]['file']}"
    for url, cache in (
        (thumbnail, "private, max-age=86400, immutable"), (video, "private, no-cache"),
    ):  # fmt: skip
        first = client.get(url)
        assert first.headers["cache-control"] == cache
        tag = first.headers["etag"]
        again = client.get(url, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert client.get(url, headers={"If-None-Match": '"other"'}).content == first.content
    part = client.get(video, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert part.status_code == 200
    for url in (thumbnail, video):
        assert client.get(url.replace(result["store"], "0" * 16)).status_code == 404


def test_a_store_made_anew_is_not_mistaken_for_the_old_one(tool: Tool, tmp_path: Path) -> None:
    """The same numbers and seconds mean other pictures."""
    location = tmp_path / "store"
    for kind, pixels in (("first", "red"), ("second", "blue")):
        (tmp_path / kind).mkdir()
        ffmpeg("-f", "lavfi", "-i", f"color={pixels}:size=48x32:duration=2", "-pix_fmt", "yuv420p",
               tmp_path / kind / "a.mp4")  # fmt: skip
    tool.model.index(tmp_path / "first", location, workers=1)
    with client_of(tool, location) as client:
        before = client.post("/api/search", params={"text": "a dog"}).json()
        old = client.get(thumbnail_of(before))
        tool.model.index(tmp_path / "second", location, workers=1, rebuild=True)
        gone = client.get(thumbnail_of(before))
        assert (gone.status_code, "indexed anew" in gone.json()["detail"]) == (404, True)
        assert client.get(f"/videos/{before['store']}/0").status_code == 404
        after = client.post("/api/search", params={"text": "a dog"}).json()
        assert after["store"] != before["store"]
        new = client.get(thumbnail_of(after))
        assert new.status_code == 200
        assert new.headers["etag"] != old.headers["etag"]
        assert client.get("/api/about").json()["folder"] == "second"


def test_another_models_index_answers_nothing(
    tool: Tool, tiny_data: TinyData, folder: Path, tmp_path: Path
) -> None:
    """The folder is indexed by another model while the page is served."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    tool.model.index(tmp_path / "videos", tmp_path / "store", workers=1)
    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    with client_of(tool, tmp_path / "store") as client:
        assert client.post("/api/search", params={"text": "a dog"}).status_code == 200
        other.index(tmp_path / "videos", tmp_path / "store", workers=1)
        response = client.post("/api/search", params={"text": "a dog"})
    assert response.status_code == 503
    assert "indexed by another model" in response.json()["detail"]


@pytest.fixture
def guarded(tool: Tool, folder: Path) -> Iterator[TestClient]:
    with client_of(tool, folder / "store", "s3cret") as client:
        yield client


def test_without_the_token_nothing_is_served(guarded: TestClient, name: str) -> None:
    paths = ("/", "/app.js", "/api/about", f"/videos/{name}/0", f"/thumbnails/{name}/0/0.5.jpg")
    for path in paths:
        for given in ("", "?token=", "?token=wrong", "?token=s3cret%00", "?token=\u00e9"):
            response = guarded.get(path + given)
            assert (response.status_code, has_security_headers(response)) == (403, True)
            assert "trimodal serve" in response.json()["detail"]
    assert guarded.post("/api/search?text=a dog").status_code == 403
    assert guarded.head(f"/videos/{name}/0").status_code == 403
    guarded.cookies.set("trimodal-80", "wrong")
    assert guarded.get("/").status_code == 403


def test_the_token_in_the_address_is_kept_in_a_cookie(guarded: TestClient, name: str) -> None:
    first = guarded.get("/?token=s3cret", headers={"Sec-Fetch-Site": "cross-site"})
    assert first.status_code == 200
    cookie = first.headers["set-cookie"].lower()
    assert cookie == "trimodal-80=s3cret; httponly; path=/; samesite=strict"
    for path in ("/app.js", "/api/about", f"/videos/{name}/0"):
        response = guarded.get(path)
        assert (response.status_code, "set-cookie" in response.headers) == (200, False)
    assert guarded.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_serve_prints_a_random_token(
    tool: Tool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda *_, **__: None)
    addresses: list[str] = []
    for token in (None, None, "mine", ""):
        server.serve(
            str(tool.path), str(folder / "store"), port=0,
            ready=addresses.append, token=token,
        )  # fmt: skip
    queries = [address.partition("/?")[2] for address in addresses]
    assert queries[2:] == ["token=mine", ""]
    assert len({*queries[:2]}) == 2
    assert all(len(query) == len("token=") + 32 for query in queries[:2])
    with pytest.raises(TokenError, match="a token consists of"):
        build_app(tool.model, MomentStore.open(str(folder / "store")), "a;b")


def test_slow_sounds_do_not_hold_up_images_and_sentences(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than there are threads for the other requests."""
    decoded, asked = threading.Event(), threading.Semaphore(0)
    monkeypatch.setattr(Trimodal, "audio_windows", lambda *_: decoded.wait(60) and 1 / 0)
    upload = page_queries._upload

    def counted(request: Request) -> Any:
        asked.release()
        return upload(request)

    monkeypatch.setattr(page_queries, "_upload", counted)

    def ask(_: int) -> int:
        return client.post("/api/search?kind=audio", content=b"sound").status_code

    with ThreadPoolExecutor(60) as threads:
        sounds = [threads.submit(ask, number) for number in range(45)]
        try:
            assert all(asked.acquire(timeout=20) for _ in sounds)
            image = threads.submit(client.get, f"/thumbnails/{name}/0/0.5.jpg")
            text = threads.submit(client.post, "/api/search?text=a dog")
            assert image.result(20).status_code == 200
            assert text.result(20).status_code == 200
            assert not any(sound.done() for sound in sounds)
        finally:
            decoded.set()
        assert {sound.result(20) for sound in sounds} == {500}


def test_queries_by_audio_and_by_image(client: TestClient, folder: Path) -> None:
    for kind, content, found in (
        ("audio", (folder / "a.mp4").read_bytes(), ["a.mp4"]),  # the other is silent
        ("image", png(folder.parent / "p.png"), ["a.mp4", "silent.mp4"]),
    ):
        response = client.post("/api/search", params={"kind": kind}, content=content)
        assert response.status_code == 200, response.text
        assert sorted(hit["path"] for hit in response.json()["hits"]) == found


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
               {"kind": "virus"}, {"text": "a" * 1001}, {"skip": "600"}, {"skip": "-1"},
               {"text": "", "like": "../../etc"}, {"like": "ab/0/0.5"}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(client: TestClient, params: dict[str, str]) -> None:
    assert client.post("/api/search", params={"text": "a dog"} | params).status_code == 422


def test_a_large_upload_is_refused_before_it_is_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_queries, "_MAX_BYTES", 10_000)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield bytes(1000)

    response = client.post("/api/search", params={"kind": "audio"}, content=parts())
    assert response.status_code == 413
    assert "larger" in response.json()["detail"]


def test_videos_are_served_in_ranges(client: TestClient, folder: Path, name: str) -> None:
    content = (folder / "a.mp4").read_bytes()
    number = next(f.file for f in MomentStore.open(str(folder / "store")).files() if f.has_audio)
    url = f"/videos/{name}/{number}"
    response = client.get(url)
    assert (response.content, response.headers["content-type"]) == (content, "video/mp4")
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    assert client.get(url, headers={"Range": "bytes=999999-"}).status_code == 416
    assert client.head(url).headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "path",
    [
        "/videos/NAME/99", "/videos/NAME/-1", "/videos/NAME/a.mp4", "/videos/NAME/..%2fsecret.txt",
        "/videos/0", "/videos/../0", "/videos/%27/0", "/secret.txt",
        "/..%2fsecret.txt", "/..%2f..%2fserver.py", "/%2e%2e/server.py", "/a.mp4",
        "/thumbnails/NAME/0/99.5.jpg", "/thumbnails/NAME/0/nan.jpg", "/thumbnails/NAME/0/1e999.jpg",
        "/thumbnails/NAME/99999999999999999999/0.5.jpg", "/mels/NAME/1/0.5.jpg",
        "/videos/NAME/99999999999999999",
    ],
)  # fmt: skip
def test_nothing_but_indexed_files_is_served(client: TestClient, name: str, path: str) -> None:
    response = client.get(path.replace("NAME", name))
    assert response.status_code in (404, 422)
    assert "secret" not in response.text.replace("secret.txt", "")


def test_a_video_that_has_become_another_file_is_not_served(
    tool: Tool, tmp_path: Path, folder: Path
) -> None:
    """Not a link to another file, nor one that has changed; not one that cannot be searched."""
    (tmp_path / "videos").mkdir()
    video, linked = tmp_path / "videos" / "a.mp4", tmp_path / "videos" / "b.mp4"
    video.write_bytes((folder / "a.mp4").read_bytes())
    linked.symlink_to(folder / "silent.mp4")
    (tmp_path / "videos" / "c.mp4").symlink_to(folder / "secret.txt")
    tool.model.index(tmp_path / "videos", tmp_path / "store", workers=1)
    client = client_of(tool, tmp_path / "store")
    name = MomentStore.open(str(tmp_path / "store")).identity
    assert client.get(f"/videos/{name}/0").status_code == 200
    assert client.get(f"/videos/{name}/1").content == (folder / "silent.mp4").read_bytes()
    assert client.get(f"/videos/{name}/2").status_code == 404
    was = video.stat()
    video.write_bytes(video.read_bytes())
    response = client.get(f"/videos/{name}/0")
    assert (response.status_code, "has changed" in response.json()["detail"]) == (404, True)
    video.unlink()
    assert client.get(f"/videos/{name}/0").status_code == 404
    secret = tmp_path / "secret"  # of the same size and time
    secret.write_bytes(b"secret".ljust(was.st_size))
    os.utime(secret, ns=(was.st_mtime_ns, was.st_mtime_ns))
    for link in (video, linked):
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
    for number in (0, 1):
        response = client.get(f"/videos/{name}/{number}")
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

    monkeypatch.setattr(Trimodal, "query", broken)
    response = client.post("/api/search", params={"text": "a dog"})
    assert (response.status_code, "a bug;" in response.text) == (500, True)


def test_a_moments_heat_map_is_of_its_own_frame_and_sound(
    client: TestClient, tool: Tool, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As :func:`sound_map` of the stored frame and the window around it, with 3 x 3 places."""
    for network in (tool.network, tool.model.networks):
        monkeypatch.setattr(network.image.backbone, "input", ImageInput(size_px=96))
    response = client.get(f"/heat_maps/{name}/0/2.5.png")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert has_security_headers(response)
    store = MomentStore.open(str(folder / "store"))
    frame = decode_jpeg(store.images(0, 2.5)[0])  # type: ignore[index]
    window = tool.model.audio_windows(folder / "a.mp4")[1]  # of second 2.5: the second that fits
    augment = tool.model.checkpoint.augment
    with torch.inference_mode():
        values = sound_map(tool.network, centre_views([frame], augment), window[None])[0]
    expected = heat_map_png(values, 32, 32, centre_crop_shares(32, augment))
    with Image.open(io.BytesIO(response.content)) as got, Image.open(io.BytesIO(expected)) as want:
        assert got.size == (32, 32)
        assert len(np.unique(np.asarray(got))) > 100
        np.testing.assert_allclose(np.asarray(got, int), np.asarray(want, int), atol=3)
    tag = {"If-None-Match": response.headers["etag"]}
    assert client.get(f"/heat_maps/{name}/0/2.5.png", headers=tag).status_code == 304
    for address in (f"{name}/1/1.5", f"{name}/9/1.5", f"{name}/0/77.5", "abc/0/2.5"):
        assert client.get(f"/heat_maps/{address}.png").status_code == 404, address


def test_a_model_that_cannot_localise_says_so(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("trimodal.models.backbones.ResNet18.feature_map")
    response = client.get(f"/heat_maps/{name}/0/2.5.png")
    assert response.status_code == 503
    assert "model.image_backbone" in response.json()["detail"]


def test_hits_of_a_folder_that_was_added_since_the_store_was_opened() -> None:
    hits = [
        VideoHit(
            path="a.mp4", folder=folder, file=1, has_audio=True, aspect=1.0, score=0.5, moments=[]
        )
        for folder in ("/videos/old", "/videos/new")
    ]
    shown = page_queries._shown(hits, ["/videos/old"])
    assert [hit["path"] for hit in shown] == ["old/a.mp4", "new/a.mp4"]
    assert [hit["path"] for hit in page_queries._shown(hits[:1], ["/videos/old"])] == ["a.mp4"]
