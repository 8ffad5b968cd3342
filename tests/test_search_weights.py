"""How much image and audio count in a search: by the kind of query, or as asked."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from model_fixtures import Tool
from PIL import Image
from sound_fixtures import Sounds, index_sounds
from store_fixtures import Vectors, unit, video

from trimodal import cli
from trimodal.search.api import default_audio_weight
from trimodal.search.encoder import QueryError
from trimodal.search.server import build_app
from trimodal.search.store import MomentStore
from trimodal.search.tables import About


@pytest.fixture(scope="module")
def sounds(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    return index_sounds(tool, tmp_path_factory.mktemp("sounds"))


def own_clips(sounds: Sounds) -> list[str]:
    return [cut.with_suffix(".mp4").name for cut in sounds.cuts]


def test_a_sound_finds_its_own_clip(tool: Tool, sounds: Sounds) -> None:
    def first(weight: float | None) -> list[str]:
        search = tool.model.search
        return [
            search(audio=cut, store=sounds.store, audio_weight=weight)[0].path
            for cut in sounds.cuts
        ]

    assert first(None) == own_clips(sounds)
    assert first(0.2) != own_clips(sounds)


def test_a_sound_finds_its_own_clip_by_the_command(
    tool: Tool, sounds: Sounds, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--model", str(tool.path)]
    command = ["trimodal", "search", *model, "--store", str(sounds.store)]

    def found(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *words])
        cli.main()
        return capsys.readouterr().out

    for cut, own in zip(sounds.cuts, own_clips(sounds), strict=True):
        best = json.loads(found("--json", "--audio", str(cut)))["hits"][0]
        assert Path(best["path"]).name == own
        (moment, *_) = best["moments"]
        assert (moment["from_image"], moment["from_audio"]) == (0, moment["score"])
        score = f"{moment['score']:.3f}"
        line = found("--audio", str(cut)).splitlines()[0]
        assert line.startswith(f"  1  {score} (image 0.000, audio {score}) at 0:0")
        assert f"/{own}" in line
    asked = json.loads(found("--json", "--audio", str(sounds.cuts[0]), "--audio-weight", "0.2"))
    assert "silent.mp4" in {Path(hit["path"]).name for hit in asked["hits"]}


def test_a_sound_among_silent_videos_is_told(
    tool: Tool,
    sounds: Sounds,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(sounds.cuts[0].with_name("silent.mp4"))
    tool.model.index(tmp_path / "videos", tmp_path / "store", workers=1)
    words = "--model", tool.path, "--audio", sounds.cuts[0]
    command = ["trimodal", "search", "--store", str(tmp_path / "store"), *map(str, words)]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert capsys.readouterr().err == (
        "trimodal: nothing is indexed that can be compared with this query\n"
    )


def test_a_sound_finds_its_own_clip_by_the_server(
    tool: Tool, sounds: Sounds, tmp_path: Path
) -> None:
    app = build_app(tool.model, MomentStore.open(str(sounds.store)))
    client = TestClient(app, base_url="http://127.0.0.1")

    def ask(kind: str, content: bytes, **parameters: str) -> dict:
        parameters |= {"kind": kind}
        return client.post("/api/search", params=parameters, content=content).json()

    cuts = [ask("audio", cut.read_bytes()) for cut in sounds.cuts]
    assert [answer["hits"][0]["path"] for answer in cuts] == own_clips(sounds)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    cut, image = sounds.cuts[0].read_bytes(), (tmp_path / "a.png").read_bytes()
    assert cuts[0]["audio_weight"] == 1
    assert ask("image", image)["audio_weight"] == 0
    assert ask("", b"", text="a dog")["audio_weight"] == 0.2
    assert ask("audio", cut, text="a dog")["audio_weight"] == pytest.approx(0.6)
    assert ask("audio", cut, audio_weight="0.35")["audio_weight"] == 0.35


def test_the_weight_of_several_inputs_is_the_mean_of_theirs() -> None:
    weights = {
        (1, 0, 0): 0.2, (3, 0, 0): 0.2, (0, 1, 0): 1, (0, 7, 0): 1, (0, 0, 2): 0, (1, 1, 0): 0.6,
        (0, 1, 1): 0.5, (1, 0, 1): 0.1, (2, 1, 1): 0.35,
    }  # fmt: skip
    for inputs, weight in weights.items():
        assert default_audio_weight(*inputs) == pytest.approx(weight, abs=1e-12), inputs
    assert default_audio_weight(0, 7, 0) == 1.0  # to the bit: silent moments are left out


@pytest.fixture
def made(tool: Tool, tmp_path: Path) -> tuple[MomentStore, Vectors]:
    """A video whose frame and audio are known, and a silent one whose frame is better than both."""
    store = MomentStore.create(str(tmp_path), About(model=tool.model.fingerprint), 256)
    rows = np.zeros((2, 2, 256), np.float32)
    rows[0, 0, :2], rows[0, 1, :2] = (0.28, 0.96), (0.6, -0.8)
    rows[1, :, :2] = (0.8, 0.6)
    moments = [(number, 1, b"", b"") for number in range(2)]
    store.add([video(number, moments=1) for number in range(2)], moments, rows.reshape(2, 512))
    return store, unit(np.eye(1, 256)[0])


def test_image_and_audio_add_up_to_the_score(tool: Tool, made: tuple[MomentStore, Vectors]) -> None:
    store, query = made
    for weight in (0.0, 0.2, 0.75):
        silent, heard = tool.model.search_in(store, query, top=2, audio_weight=weight)
        (moment,) = heard.moments
        assert moment.from_image == pytest.approx((1 - weight) * 0.28, abs=1e-6)
        assert moment.from_audio == pytest.approx(weight * 0.6, abs=1e-6)
        assert moment.score == moment.from_image + (moment.from_audio or 0)
        (moment,) = silent.moments
        assert (moment.from_image, moment.from_audio) == (moment.score, None)
        assert moment.score == pytest.approx(0.8)


def test_by_audio_alone_a_silent_moment_is_not_compared(
    tool: Tool, made: tuple[MomentStore, Vectors]
) -> None:
    """Its frame is more similar than any audio; more moments are fetched in its place."""
    store, query = made

    def paths(weight: float, top: int) -> list[str]:
        hits = tool.model.search_in(store, query, top=top, audio_weight=weight)
        return [hit.path for hit in hits]

    assert (paths(0.99, 1), paths(1.0, 1)) == (["1.mp4"], ["0.mp4"])
    silent = np.tile(query, (30, 2))
    store.add([video(2, moments=30)], [(2, second + 1, b"", b"") for second in range(30)], silent)
    assert paths(1.0, 1) == ["0.mp4"]
    with pytest.raises(QueryError, match="audio_weight"):
        paths(1.01, 1)
