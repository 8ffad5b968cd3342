"""The command line: help, checks before PyTorch is imported, Ctrl-C, what commands hand on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from comparison_fixtures import run as fake_run
from repository import ROOT
from typer.main import get_command

from trimodal.cli import main
from trimodal.cli.app import SECTIONS, app
from trimodal.report import experiments
from trimodal.search.api import Moment, Trimodal, VideoHit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in a folder with a pretended model and index; returns its exit code and what
    it wrote to standard output and standard error.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("models/trimodal/config.json", "data/search/about.lance/x", "videos/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["trimodal", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return command


def test_no_command_is_help_and_every_command_is_in_it(run: Run) -> None:
    code, out, told = run()
    assert (code, out) == (2, "")
    assert run("--help") == (0, told, "")
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(get_command(app).commands)  # type: ignore[attr-defined]
    assert all(f"\n  {name} " in told for name in named)
    assert "..." not in told.partition("Search your videos")[2]  # no line is cut
    assert run("-h") == run("--help")


def test_the_version_is_the_packages(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.split()[1] == version("trimodal")


def test_a_mistyped_command_is_told_the_right_one(run: Run) -> None:
    code, _, told = run("serch", "an owl")
    assert code == 2
    assert "No such command 'serch'. Did you mean 'search'" in told


def test_shells_complete_commands_and_the_names_of_overlays() -> None:
    def completed(line: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-m", "trimodal"],
            capture_output=True, text=True, cwd=ROOT, check=True,
            env=os.environ | {
                "_TRIMODAL_COMPLETE": "complete_bash", "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split(" ")) - 1),
            },
        )  # fmt: skip
        return set(done.stdout.split())

    assert completed("trimodal se") == {"sentences", "search", "serve"}
    assert completed("trimodal scale fl") == {"flickr8k"}


# A command line, its exit code and its last line, in a folder with a model, an index and a video.
CHECKED = [
    ("search", 2, "Error: Invalid value for SENTENCE: nothing is asked: give a sentence, --audio"),
    ("search owl --audio-weight 1.5", 2, "Error: Invalid value for '--audio-weight': "),
    ("search owl --top many", 2, "Error: Invalid value for '--top': "),
    ("search --audio no.wav", 2, "Error: Invalid value for '--audio': file 'no.wav' does not"),
    ("search owl --store no", 1, "trimodal: no: no index; create one with `trimodal index FOLDER`"),
    ("search owl --model no", 1, "trimodal: no: no model here: run `make repro`, or name another"),
    ("serve --model no", 1, "trimodal: no: no model here: "),
    ("serve --store no", 1, "trimodal: no: no index; "),
    ("serve --token x --no-token", 2, "Error: Invalid value for --no-token: not together with"),
    ("index", 2, "Error: Invalid value for FOLDER: give a folder of videos"),
    ("index vidoes", 1, "trimodal: vidoes: no such folder"),
    ("index videos data", 1, "trimodal: {here}/data: no video here; left out: 1 without a suffix"),
    ("index videos .", 1, "trimodal: {here}/videos: inside {here}, which is indexed with all its"),
    ("index videos --model no", 1, "trimodal: no: no model here: "),
    ("index --drop videos --store no", 1, "trimodal: no: no index; "),
    ("embed vidoes", 2, "Error: Invalid value for 'FOLDER': dir 'vidoes' does not exist"),
    ("embed videos --model no", 1, "trimodal: no: no model here: "),
    ("export onnx out --model no", 1, "trimodal: no: no model here: "),
    ("export model out --model no", 1, "trimodal: no: no model here: "),
    ("export model out --card no", 2, "Error: Invalid value for '--card': file 'no' does not"),
    ("export pairs out", 2, "Error: Invalid value for '--params': file 'params.yaml' does not"),
    ("scale", 2, "Error: Invalid value for NAME: which one? `trimodal scale --list` shows them"),
    ("sentences tv a.json list.csv", 2, "Error: Invalid value for 'DATASET': "),
    ("experiments table1 --seeds 1,x", 2, "Error: Invalid value for --seeds: 'x' is not a whole"),
]
# Runs each command in a forked process in which heavy packages cannot be imported.
RUN_LIGHTLY = """
import os, shlex, sys

class Light:
    def find_spec(self, name, path, target=None):
        if name in ("torch", "pyarrow", "lancedb", "numpy"):
            print(f"imports {name}", file=sys.stderr, flush=True)
            os._exit(99)

sys.meta_path.insert(0, Light())
import trimodal.cli.app, typer._adapters
for line in sys.stdin.read().splitlines():
    if child := os.fork():
        print("rc", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
        continue
    sys.argv = ["trimodal", *shlex.split(line)]
    trimodal.cli.main()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.usefixtures("run")
def test_what_is_wrong_is_told_before_pytorch_is_imported(tmp_path: Path) -> None:
    here = tmp_path.resolve()
    done = subprocess.run(
        [sys.executable, "-c", RUN_LIGHTLY], input="\n".join(line for line, *_ in CHECKED),
        capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    *told, rest = done.stderr.split("rc ")
    codes = [part.partition("\n")[0] for part in (*told[1:], rest)]
    messages = [told[0], *(part.partition("\n")[2] for part in told[1:])]
    assert len(messages) == len(CHECKED)
    for (line, code, last), found, message in zip(CHECKED, codes, messages, strict=True):
        assert found == str(code), (line, message)
        assert message.splitlines()[-1].startswith(last.format(here=here)), line
        assert code == 2 or message.count("\n") == 1, line


def test_words_are_a_sentence_and_json_has_absolute_paths(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    hit = VideoHit(
        folder="/videos", path="a/b.mp4", file=1, has_audio=True, aspect=1.5, score=0.5,
        moments=[Moment(second=0.5, score=0.5, from_image=0.5, from_audio=None)],
    )  # fmt: skip

    class Model:
        def search(self, *inputs: object, **_: object) -> list[VideoHit]:
            asked.extend(inputs)
            return [hit]

    monkeypatch.setattr(Trimodal, "from_pretrained", lambda *_: Model())
    code, out, told = run("search", "an", "owl hoots", "--text", "a bell", "--json")
    assert (code, told) == (0, "")
    assert asked[0] == ["an owl hoots", "a bell"]
    found = json.loads(out)
    assert found["store"] == str(tmp_path / "data/search")
    assert found["hits"][0].items() >= {"path": "/videos/a/b.mp4", "folder": "/videos"}.items()


def test_files_are_embedded_and_problems_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []

    def embed_files(*arguments: object, workers: int) -> SimpleNamespace:
        called.extend([*arguments, workers])
        return SimpleNamespace(rows=7, problems={"b.mp4": "corrupt: x"}, hidden=2)

    monkeypatch.setattr(Trimodal, "from_pretrained", lambda folder: f"model of {folder}")
    stand_in = SimpleNamespace(embed_files=embed_files)
    monkeypatch.setitem(sys.modules, "trimodal.search.embed_files", stand_in)
    assert run("embed", "videos", "-o", "e.parquet", "--workers", "3") == (
        0,
        "b.mp4: corrupt: x\ne.parquet: 7 embeddings, 1 with problems, 2 hidden passed over\n",
        "",
    )
    assert called == ["model of models/trimodal", Path("videos"), Path("e.parquet"), 3]


def test_a_model_is_exported_with_its_card(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    stand_in = SimpleNamespace(export_model=lambda *arguments: called.extend(arguments))
    monkeypatch.setitem(sys.modules, "trimodal.search.hub", stand_in)
    Path("card.md").touch()
    assert run("export", "model", "out", "--card", "card.md")[0] == 0
    assert called == [Path("models/trimodal"), Path("out"), Path("card.md")]
    assert run("export", "model", "out")[0] == 0
    assert called[3:] == [Path("models/trimodal"), Path("out"), None]


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [((), "HEAD", "workspace"), (("v1",), "v1", "workspace"), (("v1", "v2"), "v1", "v2")],
)
def test_differences_have_the_direction_of_dvc_metrics_diff(
    words: tuple[str, ...], first: str, second: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is better: R@K rises, ranks fall."""
    monkeypatch.setattr(
        experiments, "run_at", lambda name, _: fake_run(name, 1, 1.0 if name == second else 0.0)
    )
    code, out, _ = run("compare", *words)
    assert code == 0
    header, _, *rows = out.splitlines()
    assert header == f"| search | metric | {first} | {second} | difference |"
    differences = {row.split(" | ")[1]: row.split(" | ")[4] for row in rows if row.startswith("|")}
    assert differences["R@10"].startswith("+")
    assert differences["MeanR"].startswith("-")
    assert f"queries, paired; {second} minus {first}." in out


def test_a_reader_that_goes_away_ends_a_command_quietly(run: Run) -> None:
    """As with ``trimodal search ... | head -1``."""

    def gone(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimodal.overlay.list_overlays", gone)
        assert run("scale", "--list") == (1, "", "")


def test_ctrl_c_is_one_line_also_while_the_command_is_imported(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trimodal.cli.app.run", interrupted)
    assert run("search", "an owl") == (130, "", "trimodal: interrupted\n")


# Imported for long, as PyTorch is, by whoever runs the jobs.
SLOW = """
import os, time
from pathlib import Path
here = Path(os.environ["HERE"])
(here / "importing").touch()
time.sleep(float(os.environ["SECONDS"]))

def work():
    (here / "working").touch()
    time.sleep(60)
"""
# A command whose jobs are of that module, which it does not import itself.
COMMAND = """
import sys
import trimodal.overlay
from trimodal.cli import main
from trimodal.parallel.pool import map_in_order

class Work:
    def __init__(self):
        self.__module__ = "slow"
    def __call__(self, job):
        import slow
        slow.work()

def list_overlays(_):
    if {imports}:
        import slow
    list(map_in_order(Work(), range(9), 2))

if __name__ == "__main__":
    trimodal.overlay.list_overlays = list_overlays
    sys.argv = ["trimodal", "scale", "--list"]
    main()
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
@pytest.mark.parametrize(
    ("imports", "seconds", "mark"),
    [(True, "60", "importing"), (False, "1", "importing"), (False, "0", "working")],
    ids=["this process imports", "the fork server imports", "the workers work"],
)
def test_ctrl_c_is_one_line_wherever_it_meets_a_command(
    imports: bool, seconds: str, mark: str, tmp_path: Path
) -> None:
    """A terminal sends it to all processes of the group."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "command.py").write_text(COMMAND.format(imports=imports))
    path = f"{ROOT}{os.pathsep}{tmp_path}"
    with subprocess.Popen(
        [sys.executable, "command.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "HERE": str(tmp_path), "SECONDS": seconds},
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 30
        while not (tmp_path / mark).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "trimodal: interrupted\n")
