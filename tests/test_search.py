"""Searching moments: queries of all modalities, grouping by video, text and JSON output."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from media_fixtures import write_steps
from model_fixtures import Tool

from trimodal import cli
from trimodal.search.api import Moment, VideoHit, as_text
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.search.store import About, IndexedVideo, MomentStore


@pytest.fixture(scope="module")
def indexed(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The location of a store of two videos."""
    folder = tmp_path_factory.mktemp("indexed")
    write_steps(folder / "long.mp4", seconds=10)
    write_steps(folder / "silent.mp4", seconds=4, with_audio=False)
    tool.model.index(folder, folder / "store", workers=1)
    return str(folder / "store")


def unit(*numbers: float) -> npt.NDArray[np.float32]:
    row = np.zeros(256, np.float32)
    row[: len(numbers)] = numbers
    return row / np.float32(np.linalg.norm(row))


def test_queries_of_text_and_audio(tool: Tool, indexed: str) -> None:
    model = tool.model
    media = Path(indexed).parent / "long.mp4"
    for hits in (
        model.search("a red dog", store=indexed),
        model.search(audio=media, store=indexed),
        model.search(["a dog", "a bird"], [media], store=indexed, audio_weight=0.5),
    ):
        assert {hit.path for hit in hits} == {"long.mp4", "silent.mp4"}
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_moment_is_retrieved_by_its_own_frame(tool: Tool, indexed: str) -> None:
    pixels = np.full((32, 48, 3), 20 + 22 * 8, np.uint8)
    query = tool.model.embed_images([pixels])[0]
    best = tool.model.search_in(MomentStore.open(indexed), query, top=1, audio_weight=0.0)[0]
    assert best.path == "long.mp4"
    assert best.moments[0].second == 8.5
    assert best.score > 0.99


def test_a_query_of_several_inputs_is_the_mean_of_their_embeddings(
    tool: Tool, indexed: str
) -> None:
    media = str(Path(indexed).parent / "long.mp4")
    text, audio = tool.model.embed_text(["a dog"]), tool.model.embed_audio([media])
    mean = (text + audio)[0]
    np.testing.assert_allclose(
        tool.model.query(["a dog"], [media], []), mean / np.linalg.norm(mean), atol=1e-6
    )


def test_scores_mix_frame_and_audio_similarity(tool: Tool, indexed: str) -> None:
    """The dot products are mixed as in evaluation; a silent video's score is its frames'."""
    store = MomentStore.open(indexed)
    query = tool.model.query(["a dog"], [], [])
    by_weight = {
        weight: {
            (hit.file, hit.second): hit.score for hit in store.search(query, weight, 100)
        } for weight in (0.0, 0.3, 1.0)
    }  # fmt: skip
    silent = next(file.file for file in store.files() if not file.has_audio)
    for moment, score in by_weight[0.3].items():
        frame, audio = by_weight[0.0][moment], by_weight[1.0][moment]
        assert score == pytest.approx(0.7 * frame + 0.3 * audio, abs=1e-5)
        assert (moment[0] == silent) == (abs(frame - audio) < 1e-6)


def test_moments_are_grouped_by_video_and_apart(tool: Tool, tmp_path: Path) -> None:
    """One long video has the best 500 moments: the search continues until there are 3 videos."""
    about = About(folder="videos", model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path), about, 256)
    files = [
        IndexedVideo(file=number, path=f"{number}.mp4", bytes=1, modified_ns=1, moments=1,
                   has_audio=True, aspect=1.0, problem="") for number in range(3)
    ]  # fmt: skip
    moments, embeddings = [], []
    for second in range(500):
        moments.append((0, second + 1, b"", b""))
        embeddings.append(np.tile(unit(1, second / 1000), 2))
    for number in (1, 2):
        moments.append((number, 1, b"", b""))
        embeddings.append(np.tile(unit(1, number), 2))
    store.add(files, moments, np.stack(embeddings))
    hits = tool.model.search_in(store, unit(1), top=3, audio_weight=0.2)
    assert [hit.path for hit in hits] == ["0.mp4", "1.mp4", "2.mp4"]
    assert [moment.second for moment in hits[0].moments] == [0.5, 3.5, 6.5]
    assert [len(hit.moments) for hit in hits] == [3, 1, 1]
    assert len(tool.model.search_in(store, unit(1), top=2, audio_weight=0.2)) == 2


def test_an_unusable_query_is_an_error(tool: Tool, indexed: str) -> None:
    with pytest.raises(QueryError, match="empty query"):
        tool.model.search(store=indexed)
    with pytest.raises(QueryError, match="zebra"):
        tool.model.search("zebra", store=indexed)
    with pytest.raises(QueryError, match="top >= 1"):
        tool.model.search("a dog", store=indexed, top=0)
    with pytest.raises(QueryError, match="audio_weight"):
        tool.model.search("a dog", store=indexed, audio_weight=1.5)
    with pytest.warns(UnknownWordWarning, match="zebra"):
        assert tool.model.search("zebra dog", store=indexed)


def test_results_as_text() -> None:
    hit = VideoHit(
        path="a/b.mp4", file=1, has_audio=False, aspect=1.0, score=0.5,
        moments=[Moment(second=75.5, score=0.5), Moment(second=3.5, score=0.25)],
    )  # fmt: skip
    assert as_text([hit]) == "  1  0.500 at 1:15.5  a/b.mp4  [silent]  (also 0.250 at 0:03.5)"


class Command(NamedTuple):
    """A command's result."""

    returncode: int
    stdout: str
    stderr: str


def command(
    tool: Tool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> Command:
    name, *rest = words
    model = ["--model", str(tool.path), "--vocabulary", str(tool.vocabulary)]
    monkeypatch.setattr(sys, "argv", ["trimodal", name, *model, *rest])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    return Command(code, *capsys.readouterr())


def test_the_commands(
    tool: Tool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = partial(command, tool, capsys, monkeypatch)
    folder, store = tmp_path / "videos", str(tmp_path / "store")
    folder.mkdir()
    write_steps(folder / "a.mp4", seconds=4)
    (folder / "bad.mp4").write_bytes(b"rubbish")
    done = run("search", "--text", "a dog", "--store", store)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no index; create one with `trimodal index FOLDER`" in done.stderr
    done = run("index", str(folder), "--store", store)
    assert done.returncode == 0, done.stderr
    problem, total = done.stdout.splitlines()
    assert problem.startswith("bad.mp4: corrupt: ")
    assert total.startswith("4 moments; videos: 2 new, 0 changed, 0 unchanged, 0 deleted, 1 with")
    done = run(
        "search", "--store", store, "--json", "--text", "a dog and a zebra", "--and",
        "--audio", str(folder / "a.mp4"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trimodal: 'a dog and a zebra': words without a vector: zebra\n" in done.stderr
    (hit,) = json.loads(done.stdout)
    assert hit["path"] == "a.mp4"
    assert hit["moments"][0].keys() == {"second", "score"}
    done = run("search", "--store", store, "--text", "zebra")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "trimodal: 'zebra' has no word that the model knows: words without a vector: zebra\n"
    )
