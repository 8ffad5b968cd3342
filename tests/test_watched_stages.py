"""The stages while they run: nothing is unpickled, only ffmpeg is started, no file is written
outside the working directory and the temporary folder.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from data_fixtures import write_clip
from forked import Forked
from repository import ROOT, TINY

from trimodal.media.container import ffmpeg_executable

TESTS = Path(__file__).parent
# Every one of them reads as an option.
IDS = ("-abcdefghij", "--bcdefghij", "-i_cdefghij", "-version---")
# What libraries start for themselves, by the module that does it.
LIBRARIES_START = {
    "ctypes/util.py": "looks for system libraries with ldconfig, gcc, ld or objdump",
    "platform.py": "asks uname for the processor (gensim notes it)",
    "matplotlib/font_manager.py": "asks fc-list for fonts, the first time",
}
LIBRARIES_WRITE = {
    "matplotlib/__init__.py": "its folders in the home directory",
    "matplotlib/cbook.py": "the lock of its list of fonts",
    "matplotlib/font_manager.py": "its list of fonts, in the home directory",
}
# Python's own modules between an event and who caused it.
OWN_WRITERS = ("<frozen os>", "/os.py", "/pathlib.py", "/tempfile.py", "/contextlib.py")


class Watched(NamedTuple):
    """An audit event with its arguments as text, and its innermost frames, ``file:function``."""

    event: str
    arguments: list[str]
    frames: list[str]

    def by(self, files: Sequence[str], own: Sequence[str]) -> bool:
        """Whether the innermost frame outside the ``own`` modules is in one of the files."""
        names = [frame.rsplit(":", 1)[0] for frame in self.frames]
        others = [name for name in names if not name.endswith(tuple(own))]
        return bool(others) and others[0].endswith(tuple(f"/{file}" for file in files))


def complaint(watched: Watched, folders: Sequence[Path], cwd: Sequence[Path]) -> str:
    """What is wrong with an event, or nothing."""
    event, arguments = watched.event, watched.arguments
    if event == "subprocess.Popen":
        good = arguments[0] == arguments[1] == ffmpeg_executable()
        library = watched.by([*LIBRARIES_START], ["/subprocess.py"])
        return "" if good or library else f"starts {arguments}"
    if event == "open" or event.startswith(("os.mkdir", "os.re", "os.rm", "shutil.")):
        if watched.by([*LIBRARIES_WRITE], OWN_WRITERS):
            return ""
        paths = arguments[: 2 if event == "os.rename" else 1]
        outside = [p for p in paths if not _lies_in(p, folders, cwd) and p != os.devnull]
        return f"{event} of {outside}" if outside else ""
    return f"{event} of {arguments}"


def _lies_in(path: str, folders: Sequence[Path], cwd: Sequence[Path]) -> bool:
    """Whether a path lies in one of the folders, a relative one from each working directory."""
    places = [(where / path).resolve() for where in cwd]
    return all(any(place.is_relative_to(folder) for folder in folders) for place in places)


def own_environment(base: Path) -> dict[str, str]:
    """With a home and a temporary folder in ``base``, which are made."""
    for name in ("home", "tmp"):
        (base / name).mkdir(exist_ok=True)
    elsewhere = ("XDG_", "MPL", "NUMBA_", "TORCH")  # folders; PyTorch sets one when it is imported
    given = {k: v for k, v in os.environ.items() if not k.startswith(elsewhere)}
    own = {"HOME": str(base / "home"), "TMPDIR": str(base / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    return given | own


def run_child(base: Path, *command: str) -> None:
    """Runs Python in its own environment."""
    done = subprocess.run(
        [sys.executable, *command], env=own_environment(base), cwd=base, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def read_events(path: Path) -> list[Watched]:
    return [Watched(*event) for event in json.loads(path.read_text())]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``project``: where the demo's stages ran, in it ``youtube``: clips fetched from a server;
    ``events.json``: what was watched; beside them ``home``, ``tmp`` and a file of somebody else.
    """
    base = tmp_path_factory.mktemp("watched").resolve()
    project = base / "project"
    served, media = project / "youtube" / "served", project / "youtube" / "media"
    for folder in (served, media, project / "metrics"):
        folder.mkdir(parents=True)
    (base / "canary.txt").write_text("mine")
    shutil.copy(ROOT / "metrics" / "comparison.json", project / "metrics")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section] |= values
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    for clip in (*(served / f"{name}.mp4" for name in IDS), media / "video1.mp4"):
        write_clip(clip, seconds=5.0)
    rows = "".join(f"{name},1,cat,train\n" for name in IDS)
    (project / "youtube" / "vggsound.csv").write_text(rows)
    (project / "youtube" / "test.csv").write_text(
        "key,vid_key,video_id,sentence\nr,m,video1,a dog\n"
    )
    params["download"] |= {
        "source": "youtube", "vggsound_csv": "vggsound.csv", "msrvtt_csv": "test.csv",
        "msrvtt_media": "media",
    }  # fmt: skip
    page = "http://127.0.0.1:PORT/{id}.mp4"
    params["youtube"] |= {"page": page}
    params["machine"]["youtube"] |= {"workers": 1, "pause_seconds": 0.0, "retries": 0}
    (project / "youtube" / "params.yaml").write_text(yaml.safe_dump(params))
    arguments = (str(project), str(base / "events.json"))
    with Forked("watched_stages", *arguments, cwd=base, env=own_environment(base)) as stages:
        _, err = stages.communicate(timeout=600)
    assert stages.returncode == 0, err
    return base


@pytest.fixture(scope="module")
def events(base: Path) -> list[Watched]:
    return read_events(base / "events.json")


def test_the_stages_start_write_and_unpickle_nothing_that_they_should_not(
    base: Path, events: list[Watched]
) -> None:
    project = base / "project"
    allowed, cwd = (project, base / "tmp"), (project, project / "youtube")
    found = [said for event in events if (said := complaint(event, allowed, cwd))]
    assert found == []


def test_the_watch_saw_the_stages_at_work(base: Path, events: list[Watched]) -> None:
    started = [event.arguments[0] for event in events if event.event == "subprocess.Popen"]
    assert started.count(ffmpeg_executable()) >= TINY["demo"]["clips"] + len(IDS)
    written = {event.arguments[0] for event in events if event.event == "open"}
    assert any(path.endswith("index.parquet") or path.endswith(".tar.tmp") for path in written)
    assert (base / "project" / "metrics" / "report" / "report.md").is_file()


def test_nothing_lies_outside_afterwards(base: Path) -> None:
    """Compiled libraries (Arrow, safetensors) write without an audit event."""
    assert {path.name for path in base.iterdir()} == {
        "canary.txt", "events.json", "home", "project", "tmp",
    }  # fmt: skip
    assert (base / "canary.txt").read_text() == "mine"
    home = {p.relative_to(base / "home").parts[1] for p in (base / "home").glob("*/*")}
    assert home <= {"matplotlib"}
    left = {path.name.split("_")[0] for path in (base / "tmp").iterdir()}
    assert left <= {"torchinductor"}  # PyTorch's, empty


def test_a_clip_id_never_becomes_an_option(base: Path, events: list[Watched]) -> None:
    named = [
        argument
        for event in events
        if event.event == "subprocess.Popen"
        for argument in event.arguments
        if any(name in argument for name in IDS) and argument != "-version"
    ]
    assert len(named) == 2 * len(IDS)  # each is fetched from its address and cut to its file
    assert all(argument.startswith(("http://127.0.0.1:", "file:data/clips/")) for argument in named)
    fetched = base / "project" / "youtube" / "data" / "clips" / "youtube"
    assert {path.stem for path in fetched.glob("*.mp4")} == {f"{name}_000001" for name in IDS}
    stats = json.loads((fetched.parents[1] / "av" / "stats.json").read_text())
    assert stats["clips"] == {"train": 2, "val": 2, "test": 1}
    assert stats["left_out"] == {}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import pickle, pathlib\npickle.loads(pickle.dumps(pathlib.Path()))", "pickle.find_class"),
        ("import os\nos.system('true')", "os.system"),
        ("import subprocess\nsubprocess.run(['true'])", "starts"),
        ("import subprocess\nsubprocess.run('true', shell=True)", "starts"),
        ("import subprocess\nsubprocess.run(['sh', '-c', 'git'])", "starts"),
        ("open('outside.txt', 'w')", "open of"),
        ("open('project/../outside.txt', 'a')", "open of"),
        ("import os\nos.open('outside.txt', os.O_RDWR | os.O_CREAT)", "open of"),
        ("import os\nos.mkdir('outside')", "os.mkdir of"),
        ("open('project/a', 'w')\nimport os\nos.rename('project/a', 'b')", "os.rename of"),
        ("import os\nos.symlink('/', 'project/root')", "os.symlink of"),
        ("import shutil\nshutil.rmtree('home')", "shutil.rmtree of"),
        ("import pathlib\npathlib.Path('project/fine.txt').write_text('')", ""),
        ("import tempfile\ntempfile.TemporaryDirectory().cleanup()", ""),
        ("open('/dev/null', 'w')", ""),
        ("open('canary.txt')", ""),
        ("import subprocess\nsubprocess.run(['git', '--version'])", "starts"),
    ],
)
def test_the_watch_sees_what_is_bad(code: str, said: str, tmp_path: Path) -> None:
    base = tmp_path.resolve()
    (base / "project").mkdir()
    (base / "canary.txt").write_text("mine")
    watching = f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nimport watched_stages as watch\n"
    lines = f"sys.addaudithook(watch.note)\n{code}\nfound = list(watch.EVENTS)\nimport json\n"
    keeping = f"open({str(base / 'tmp' / 'e.json')!r}, 'w').write(json.dumps(found))\n"
    run_child(base, "-W", "ignore", "-c", watching + lines + keeping)
    found = read_events(base / "tmp" / "e.json")
    complaints = [complaint(event, (base / "project", base / "tmp"), (base,)) for event in found]
    if said:
        assert any(said in one for one in complaints), found
    else:
        assert [one for one in complaints if one] == []
