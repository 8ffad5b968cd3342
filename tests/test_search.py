"""Searching moments: queries of all modalities, grouping by video, text and JSON output."""

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from media_fixtures import write_steps
from model_fixtures import Tool, make_tool
from training_fixtures import TinyData

from trimodal import cli
from trimodal.core.records import DataError
from trimodal.search.api import Moment, VideoHit, as_text
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.search.guard import write_redirect
from trimodal.search.store import MomentStore
from trimodal.search.store_errors import StoreError
from trimodal.search.tables import About, IndexedVideo


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
        model.search(audio=media, store=indexed, audio_weight=0.9),
        model.search(["a dog", "a bird"], [media], store=indexed),
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
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path), about, 256)
    files = [
        IndexedVideo(
            file=number, folder="/videos", path=f"{number}.mp4", bytes=1, modified_ns=1, moments=1,
            has_audio=True, aspect=1.0, problem="",
        ) for number in range(3)
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


def test_few_long_videos_are_not_searched_to_their_end(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once all videos are found there are no others to look for."""
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path), about, 256)
    listed = IndexedVideo(
        file=0, folder="videos", path="0.mp4", bytes=1, modified_ns=1, moments=400, has_audio=True,
        aspect=1.0, problem="",
    )  # fmt: skip
    rows = np.stack([np.tile(unit(1, second / 1000), 2) for second in range(400)])
    store.add([listed], [(0, second + 1, b"", b"") for second in range(400)], rows)
    limits: list[int] = []

    def noted(self: MomentStore, *arguments: Any, **options: Any) -> Any:
        limits.append(arguments[2])
        return search(self, *arguments, **options)

    search = MomentStore.search
    monkeypatch.setattr(MomentStore, "search", noted)
    assert len(tool.model.search_in(store, unit(1), top=3, audio_weight=0.2)) == 1
    assert limits == [30]


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


def test_a_model_trained_anew_is_never_half_loaded(tiny_data: TinyData, tmp_path: Path) -> None:
    """Its image and audio networks are read when they are first used."""
    first = make_tool(tiny_data, tmp_path / "model.safetensors", seed=8)
    living, used = first.model, make_tool(tiny_data, tmp_path / "model.safetensors", seed=8).model
    was, image = living.fingerprint, np.zeros((32, 32, 3), np.uint8)
    before = used.embed_images([image])
    new = make_tool(tiny_data, tmp_path / "model.safetensors", seed=9).model
    assert (living.fingerprint, used.fingerprint, new.fingerprint != was) == (was, was, True)
    with pytest.raises(DataError, match=r"model\.safetensors: another model than the one"):
        living.embed_images([image])
    np.testing.assert_array_equal(used.embed_images([image]), before)
    assert np.abs(new.embed_images([image]) - before).max() > 1e-3


def test_a_living_model_does_not_search_another_models_index(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, indexed: str
) -> None:
    videos, store = Path(indexed).parent, tmp_path / "store"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(videos / "silent.mp4")
    tool.model.index(tmp_path / "videos", store, workers=1)
    assert tool.model.search("a dog", store=store)
    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    other.index(tmp_path / "videos", store, workers=1)
    with pytest.raises(StoreError, match="indexed by another model"):
        tool.model.search("a dog", store=store)
    tool.model.index(tmp_path / "videos", store, workers=1)
    assert tool.model.search("a dog", store=store)


def test_an_index_replaced_during_a_query_is_not_mixed(
    tool: Tool, tiny_data: TinyData, tmp_path: Path, indexed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model indexes while the query runs: the answer is checked afterwards too."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(Path(indexed).parent / "silent.mp4")
    tool.model.index(tmp_path / "videos", tmp_path / "store", workers=1)
    other = make_tool(tiny_data, tmp_path / "other.safetensors", seed=8).model
    search_in = type(tool.model).search_in

    def replaced_meanwhile(*arguments: Any, **options: Any) -> list[VideoHit]:
        hits = search_in(*arguments, **options)
        other.index(tmp_path / "videos", tmp_path / "store", workers=1)
        return hits

    monkeypatch.setattr(type(tool.model), "search_in", replaced_meanwhile)
    with pytest.raises(StoreError, match="indexed by another model"):
        tool.model.search("a dog", store=tmp_path / "store")


def test_moments_that_a_run_has_not_listed_yet_are_left_out(tool: Tool, tmp_path: Path) -> None:
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path), about, 256)
    rows = np.stack([np.concatenate([unit(1, number / 9)] * 2) for number in range(3)])
    listed = IndexedVideo(
        file=0, folder="/videos", path="0.mp4", bytes=1, modified_ns=1, moments=1, has_audio=True,
        aspect=1.0, problem="",
    )  # fmt: skip
    store.add([listed], [(0, 1, b"", b"")], rows[2:])
    store.add([], [(1, 1, b"", b""), (2, 1, b"", b"")], rows[:2])
    hits = tool.model.search_in(store, unit(1), top=2, audio_weight=0.2)
    assert [hit.path for hit in hits] == ["0.mp4"]


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    hit = VideoHit(
        folder="/videos", path="a\x1b]0;b\n.mp4", file=1, has_audio=True, aspect=1.0, score=0.5,
        moments=[Moment(second=0.5, score=0.5, from_image=0.25, from_audio=0.25)],
    )  # fmt: skip
    assert as_text([hit]).endswith(" at 0:00.5  /videos/a\\x1b]0;b\\n.mp4")


def test_results_as_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a folder below the working directory, and of another one."""
    monkeypatch.chdir(tmp_path)
    moments = [
        Moment(second=75.5, score=0.5, from_image=0.5625, from_audio=-0.0625),
        Moment(second=3.5, score=0.25, from_image=0.25, from_audio=None),
    ]
    hit = VideoHit(
        folder="/videos", path="a/b.mp4", file=1, has_audio=True, aspect=1.0, score=0.5,
        moments=moments,
    )  # fmt: skip
    here = str(tmp_path / "mine")
    silent = replace(hit, folder=here, path="c.mp4", has_audio=False, moments=moments[1:])
    assert as_text([hit, silent]).splitlines() == [
        "  1  0.500 (image 0.562, audio -0.062) at 1:15.5  /videos/a/b.mp4"
        "  (also 0.250 (image 0.250, no audio) at 0:03.5)",
        "  2  0.250 (image 0.250, no audio) at 0:03.5  mine/c.mp4  [silent]",
    ]


class Command(NamedTuple):
    """A command's result."""

    returncode: int
    stdout: str
    stderr: str


def command(
    tool: Tool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> Command:
    name, *rest = words
    model = ["--model", str(tool.path)]
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
    found = json.loads(done.stdout)
    (hit,) = found["hits"]
    assert found["store"] == store
    assert (hit["path"], hit["folder"]) == (str(folder / "a.mp4"), str(folder))
    assert hit["moments"][0].keys() == {"second", "score", "from_image", "from_audio"}
    done = run("search", "--store", store, "--text", "zebra")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "trimodal: 'zebra' has no word that the model knows: words without a vector: zebra\n"
    )


def test_a_damaged_index_is_one_line_in_every_command(
    tool: Tool,
    indexed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = partial(command, tool, capsys, monkeypatch)
    store, videos = Path(shutil.copytree(indexed, tmp_path / "store")), Path(indexed).parent
    min((store / "files.lance" / "_versions").glob("*.manifest")).unlink()
    for words in (("search", "--text", "a dog"), ("serve", "--port", "0"), ("index", str(videos))):
        done = run(*words, "--store", str(store))
        assert (done.returncode, done.stdout) == (1, ""), words
        (line,) = done.stderr.splitlines()
        assert "delete it and index again" in line
    done = run("index", str(videos), "--store", str(store), "--rebuild")
    assert done.returncode == 0, done.stderr
    assert "2 new" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("index", "folder", "--workers", "0"),
        ("search", "--top", "0"),
        ("search", "--audio-weight", "1.5"),
        ("search", "--audio-weight", "nan"),
        ("serve", "--port", "65536"),
    ],
)
def test_numbers_out_of_range_are_refused_before_work(
    tool: Tool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    done = command(tool, capsys, monkeypatch, *words)
    assert done.returncode == 2
    assert f"Invalid value for '{words[-2]}'" in done.stderr


def test_a_folder_without_videos_is_an_error(
    tool: Tool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "._a.mp4").touch()
    (tmp_path / "videos" / "a.mp4").touch()
    done = command(
        tool, capsys, monkeypatch, "index", str(tmp_path / "videos"), "--store",
        str(tmp_path / "store"),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.endswith("1 with problems\nleft out: 1 hidden\n")
    assert done.stderr == f"trimodal: {tmp_path / 'videos'}: no video that can be searched\n"


def test_the_browser_is_not_given_the_token_on_its_command_line(tmp_path: Path) -> None:
    url = write_redirect(tmp_path, "http://127.0.0.1:1/?token=s3cret")
    assert "s3cret" not in url
    assert 'content="0; url=http://127.0.0.1:1/?token=s3cret"' in (
        Path(url.removeprefix("file://")).read_text()
    )
